//! Two distributions over the vocabulary at one position.

/// Sums run over this many lanes in a fixed order, so that they are the same at any thread count and vectorize.
const LANES: usize = 8;

/// How far a model is from its reference at one position; natural logarithms.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Divergence {
    /// `KL(reference || model)` in nats.
    pub kld: f64,
    /// Whether both have the same likeliest token (the lowest index wins ties).
    pub same_top: bool,
    /// Negative log-likelihood of the next token under the model; 0 without one.
    pub model_nll: f64,
    /// The same under the reference.
    pub reference_nll: f64,
    /// Probability of the next token: model's minus reference's.
    pub delta_p: f64,
    /// Largest absolute difference of logits.
    pub max_logit_error: f64,
    /// Sum of squared differences of logits.
    pub squared_logit_error: f64,
}

/// Compares logits `[vocab]` of one position; `target` is the next token, where there is one.
pub fn compare(model: &[f32], reference: &[f64], target: Option<usize>) -> Divergence {
    let model_max = f64::from(model.iter().fold(f32::NEG_INFINITY, |m, &x| m.max(x)));
    let reference_max = reference.iter().fold(f64::NEG_INFINITY, |m, &x| m.max(x));
    let model_norm: f64 = model_max + lanes(model.len(), |i| (f64::from(model[i]) - model_max).exp()).ln();
    let reference_norm =
        reference_max + lanes(reference.len(), |i| (reference[i] - reference_max).exp()).ln();
    let mut difference = Divergence::default();
    let kld = lanes(reference.len().min(model.len()), |i| {
        let log_p = reference[i] - reference_norm;
        log_p.exp() * (log_p - (f64::from(model[i]) - model_norm))
    });
    // Rounding can leave a hair below zero for equal distributions.
    difference.kld = kld.max(0.0);
    difference.same_top = top(model.iter().map(|&x| f64::from(x))) == top(reference.iter().copied());
    for (&m, &r) in model.iter().zip(reference) {
        let error = f64::from(m) - r;
        difference.max_logit_error = difference.max_logit_error.max(error.abs());
        difference.squared_logit_error += error * error;
    }
    if let Some(target) = target {
        let model_log = f64::from(model[target]) - model_norm;
        let reference_log = reference[target] - reference_norm;
        difference.model_nll = -model_log;
        difference.reference_nll = -reference_log;
        difference.delta_p = model_log.exp() - reference_log.exp();
    }
    difference
}

fn lanes(len: usize, term: impl Fn(usize) -> f64) -> f64 {
    let mut sums = [0.0; LANES];
    for i in 0..len {
        sums[i % LANES] += term(i);
    }
    sums.iter().sum()
}

fn top(logits: impl Iterator<Item = f64>) -> Option<usize> {
    let best = logits.enumerate().fold(None, |best: Option<(usize, f64)>, (i, x)| match best {
        Some((_, most)) if x <= most => best,
        _ => Some((i, x)),
    });
    best.map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worked_by_hand() {
        // Reference (1/2, 1/4, 1/4), model (1/4, 1/2, 1/4): KLD = ln(2)/2 - ln(2)/4 = ln(2)/4.
        let ln = f64::ln;
        let reference = [ln(0.5), ln(0.25), ln(0.25)];
        let model = [ln(0.25) as f32, ln(0.5) as f32, ln(0.25) as f32];
        let d = compare(&model, &reference, Some(1));
        assert!((d.kld - ln(2.0) / 4.0).abs() < 1e-7, "{d:?}");
        assert!(!d.same_top);
        assert!((d.model_nll - ln(2.0)).abs() < 1e-7 && (d.reference_nll - ln(4.0)).abs() < 1e-12);
        assert!((d.delta_p - 0.25).abs() < 1e-7);
        assert!((d.max_logit_error - ln(2.0)).abs() < 1e-7);
    }

    #[test]
    fn a_shift_of_all_logits_changes_nothing_but_the_logit_error() {
        let d = compare(&[3.0, 1.0], &[0.0, -2.0], Some(0));
        assert!(d.kld < 1e-15 && d.same_top && d.max_logit_error == 3.0);
    }

    #[test]
    fn the_first_of_equal_tops_counts() {
        assert!(compare(&[1.0, 1.0], &[2.0, 1.0], None).same_top);
        assert!(!compare(&[1.0, 1.0], &[1.0, 2.0], None).same_top);
    }
}
