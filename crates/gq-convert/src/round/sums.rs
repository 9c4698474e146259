//! Output errors of rows that were rounded with their inputs in view.

/// Squared output errors and energies of the rows, with the input's moments.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct OutputSums {
    /// On the tokens that decided the codes; every row.
    pub(crate) error: f64,
    pub(crate) energy: f64,
    /// On the tokens held out; a sample of rows.
    pub(crate) held_out_error: f64,
    pub(crate) held_out_energy: f64,
    /// Rows rounded to nearest after all, because that was closer on the tokens held out.
    pub(crate) nearest_rows: f64,
    /// What that was decided by: squared held-out errors of the rows tried, rounded with feedback and to nearest.
    pub(crate) tried_feedback: f64,
    pub(crate) tried_nearest: f64,
    /// Their energy.
    pub(crate) tried_energy: f64,
}

impl OutputSums {
    /// As a journal keeps them.
    pub(crate) fn to_bits(self) -> [u64; 8] {
        let outputs = [self.error, self.energy, self.held_out_error, self.held_out_energy];
        let tried = [self.nearest_rows, self.tried_feedback, self.tried_nearest, self.tried_energy];
        let mut bits = [0; 8];
        bits.iter_mut().zip(outputs.into_iter().chain(tried)).for_each(|(bits, x)| *bits = x.to_bits());
        bits
    }

    pub(crate) fn from_bits(bits: [u64; 8]) -> OutputSums {
        let [error, energy, held_out_error, held_out_energy, nearest_rows, rest @ ..] =
            bits.map(f64::from_bits);
        let [tried_feedback, tried_nearest, tried_energy] = rest;
        OutputSums {
            error,
            energy,
            held_out_error,
            held_out_energy,
            nearest_rows,
            tried_feedback,
            tried_nearest,
            tried_energy,
        }
    }

    /// Who won, in words; nothing where nobody competed.
    pub(crate) fn verdict(&self, rows: usize) -> Option<String> {
        let relative = |error: f64| error / self.tried_energy;
        let (feedback, nearest) = (relative(self.tried_feedback), relative(self.tried_nearest));
        let won = match self.nearest_rows {
            0.0 => "feedback".to_owned(),
            some if some as usize >= rows => "nearest".to_owned(),
            some => format!("nearest for {some} of {rows} rows, feedback for the others"),
        };
        (self.tried_energy > 0.0)
            .then(|| format!("{won} won: held out, feedback {feedback:.1e}, nearest {nearest:.1e}"))
    }

    pub(crate) fn add(&mut self, other: &OutputSums) {
        self.error += other.error;
        self.energy += other.energy;
        self.held_out_error += other.held_out_error;
        self.held_out_energy += other.held_out_energy;
        self.nearest_rows += other.nearest_rows;
        self.tried_feedback += other.tried_feedback;
        self.tried_nearest += other.tried_nearest;
        self.tried_energy += other.tried_energy;
    }
}
