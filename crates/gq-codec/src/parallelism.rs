//! Whether work is spread over threads.

/// Who does a piece of work. Results are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Parallelism {
    /// The calling thread alone.
    ///
    /// For pieces that are spread over threads themselves: a thread that waits for others in the middle of a piece may take
    /// up another piece meanwhile, and both hold their memory.
    Serial,
    /// Rayon's current pool.
    #[default]
    Threads,
}

impl Parallelism {
    /// Inside one of `pieces` pieces that are spread over threads: each stays in its thread where there are enough for all,
    /// and so there are never more of them at a time than threads.
    pub fn within(pieces: usize) -> Parallelism {
        if pieces >= rayon::current_num_threads() { Parallelism::Serial } else { Parallelism::Threads }
    }

    /// Whether the calling thread is to do it alone.
    pub(crate) fn is_serial(self) -> bool {
        self == Parallelism::Serial
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enough_pieces_for_all_threads_stay_in_theirs() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let within = |pieces| pool.install(|| Parallelism::within(pieces));
        assert_eq!([2, 3, 4].map(within), [Parallelism::Threads, Parallelism::Serial, Parallelism::Serial]);
    }
}
