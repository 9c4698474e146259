//! Two distributions over the vocabulary at one position, for evaluation: every figure in one pass, in f64.

use super::exponential::exp;
use super::of_sum;

/// Sums run over this many lanes in a fixed order, so that they are the same at any thread count and vectorize.
const LANES: usize = 16;

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

impl Divergence {
    /// Of logits that are not all finite numbers: as far as can be, by every figure.
    const INFINITE: Divergence = Divergence {
        kld: f64::INFINITY,
        same_top: false,
        model_nll: f64::INFINITY,
        reference_nll: 0.0,
        delta_p: -1.0,
        max_logit_error: f64::INFINITY,
        squared_logit_error: f64::INFINITY,
    };
}

/// Compares logits `[vocab]` of one position, in 16 lanes of f64; `target` is the next token, where there is one. Where a logit is infinite
/// or not a number, the two are infinitely far apart.
///
/// # Panics
/// When the two have other lengths, or `target` is beyond them.
pub fn compare<R: Copy + Into<f64> + PartialOrd>(
    model: &[f32],
    reference: &[R],
    target: Option<usize>,
) -> Divergence {
    assert_eq!(model.len(), reference.len(), "entries of the vocabulary");
    let ((model_top, model_max), (reference_top, reference_max)) = (top(model), top(reference));
    let mut sums = Sums::default();
    let (models, model_rest) = model.as_chunks::<LANES>();
    let (references, reference_rest) = reference.as_chunks::<LANES>();
    for (model, reference) in models.iter().zip(references) {
        sums.add(model.map(f64::from), reference.map(R::into), model_max, reference_max);
    }
    // The rest fills a block with logits of no probability in both.
    let mut rest = ([f64::NEG_INFINITY; LANES], [f64::NEG_INFINITY; LANES]);
    for (lane, (&model, &reference)) in model_rest.iter().zip(reference_rest).enumerate() {
        (rest.0[lane], rest.1[lane]) = (model.into(), reference.into());
    }
    sums.add_rest(rest.0, rest.1, model_rest.len(), model_max, reference_max);

    let [model_sum, reference_sum, excess, squared_logit_error] =
        [sums.model, sums.reference, sums.excess, sums.squared].map(|lanes| lanes.iter().sum::<f64>());
    if !squared_logit_error.is_finite() {
        return Divergence::INFINITE;
    }
    // Logarithms of the normalizations, less the largest logits.
    let (model_norm, reference_norm) = (model_sum.ln(), reference_sum.ln());
    let mut divergence = Divergence {
        kld: of_sum(excess / reference_sum - reference_norm + model_norm),
        same_top: model_top == reference_top,
        max_logit_error: sums.largest.iter().fold(0.0, |most, &error| error.max(most)),
        squared_logit_error,
        ..Divergence::default()
    };
    if let Some(target) = target {
        let model_log = f64::from(model[target]) - model_max - model_norm;
        let reference_log = reference[target].into() - reference_max - reference_norm;
        divergence.model_nll = -model_log;
        divergence.reference_nll = -reference_log;
        divergence.delta_p = model_log.exp() - reference_log.exp();
    }
    divergence
}

/// Sums over the vocabulary, in lanes.
#[derive(Default)]
struct Sums {
    /// exp(model - its largest).
    model: [f64; LANES],
    /// exp(reference - its largest).
    reference: [f64; LANES],
    /// exp(reference - its largest) times (reference - its largest) - (model - its largest).
    excess: [f64; LANES],
    /// (model - reference)^2.
    squared: [f64; LANES],
    /// The largest |model - reference|.
    largest: [f64; LANES],
}

impl Sums {
    #[inline(always)]
    fn add(&mut self, model: [f64; LANES], reference: [f64; LANES], model_max: f64, reference_max: f64) {
        let q = exp(model.map(|logit| logit - model_max));
        let p = exp(reference.map(|logit| logit - reference_max));
        for lane in 0..LANES {
            let error = model[lane] - reference[lane];
            self.model[lane] += q[lane];
            self.reference[lane] += p[lane];
            self.excess[lane] += p[lane] * ((reference[lane] - reference_max) - (model[lane] - model_max));
            self.squared[lane] += error * error;
            self.largest[lane] =
                if error.abs() > self.largest[lane] { error.abs() } else { self.largest[lane] };
        }
    }

    /// The first `len` lanes of a block.
    fn add_rest(
        &mut self,
        model: [f64; LANES],
        reference: [f64; LANES],
        len: usize,
        model_max: f64,
        reference_max: f64,
    ) {
        let mut block = Sums::default();
        block.add(model, reference, model_max, reference_max);
        for lane in 0..len {
            self.model[lane] += block.model[lane];
            self.reference[lane] += block.reference[lane];
            self.excess[lane] += block.excess[lane];
            self.squared[lane] += block.squared[lane];
            self.largest[lane] = self.largest[lane].max(block.largest[lane]);
        }
    }
}

/// The largest logit and the first place that has it.
fn top<R: Copy + Into<f64> + PartialOrd>(logits: &[R]) -> (usize, f64) {
    let Some(&first) = logits.first() else { return (0, 0.0) };
    let (blocks, rest) = logits.as_chunks::<LANES>();
    let mut most = [first; LANES];
    for block in blocks {
        for (most, &logit) in most.iter_mut().zip(block) {
            *most = if logit > *most { logit } else { *most };
        }
    }
    let most = most.iter().chain(rest).fold(first, |most, &logit| if logit > most { logit } else { most });
    (logits.iter().position(|&logit| logit == most).unwrap_or(0), most.into())
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

    #[test]
    fn logits_that_are_no_numbers_are_infinitely_far() {
        let reference = [1.0f32; 40];
        for (at, bad) in
            [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].into_iter().flat_map(|bad| [(3, bad), (37, bad)])
        {
            let mut model = reference;
            model[at] = bad;
            for d in [
                compare(&model, &reference, Some(0)),
                compare(&reference, &model, Some(0)),
                compare(&model, &model, None),
            ] {
                assert_eq!(
                    (d.kld, d.max_logit_error, d.same_top),
                    (f64::INFINITY, f64::INFINITY, false),
                    "{bad} at {at}"
                );
            }
        }
    }

    /// The textbook sum, term by term, with the standard library's functions.
    fn plain(model: &[f32], reference: &[f64]) -> f64 {
        let norm = |logits: &[f64]| logits.iter().map(|x| x.exp()).sum::<f64>().ln();
        let model: Vec<f64> = model.iter().map(|&x| f64::from(x)).collect();
        let (q, p) = (norm(&model), norm(reference));
        let terms = model.iter().zip(reference).map(|(m, r)| (r - p).exp() * ((r - p) - (m - q)));
        terms.sum()
    }

    #[test]
    fn as_the_textbook_sum_at_every_length() {
        let reference: Vec<f64> = (0..1003).map(|i| 9.0 * (f64::from(i) * 0.7).sin() - 4.0).collect();
        let model: Vec<f32> =
            reference.iter().enumerate().map(|(i, r)| (r + 0.1 * (i as f64 * 1.3).cos()) as f32).collect();
        for len in (1..40).chain([1000, 1001, 1003]) {
            let d = compare(&model[..len], &reference[..len], Some(len - 1));
            let expected = plain(&model[..len], &reference[..len]);
            assert!((d.kld - expected).abs() < 1e-13 + 1e-11 * expected, "{len}: {} {expected}", d.kld);
            let errors = model[..len].iter().zip(&reference).map(|(&m, r)| (f64::from(m) - r).abs());
            assert_eq!(d.max_logit_error, errors.fold(0.0, f64::max));
            assert_eq!(compare(&model[..len], &model[..len], None).kld, 0.0);
        }
    }

    #[test]
    fn logits_far_below_the_largest_count_for_nothing() {
        let d = compare(&[0.0f32, -3e5, -3e38], &[0.0f32, -1e5, -3e38], Some(0));
        assert!(d.kld < 1e-200 && d.model_nll == 0.0 && d.same_top, "{d:?}");
    }
}
