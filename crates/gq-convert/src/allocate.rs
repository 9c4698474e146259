//! Spends a budget where the model's output distribution cares.

use crate::calibrated;
use crate::plan::{PlanError, Step};
use crate::policy::{Budget, Codes};
use crate::tune::Tune;
use gq_codec::{Codebook, Trellis};
use gq_tensor::{Encoding, MatrixShape, ScaleGroup, States, stacked_payload_bytes};

/// Encodings that compete, in ascending order of bits.
fn candidates(codes: Codes) -> Vec<Encoding> {
    let scalar = |bits| Encoding::Turbo { bits, group: ScaleGroup::Row };
    let trellis =
        |states| (2..=6).map(move |bits| Encoding::Trellis { bits, states }).chain([scalar(7), scalar(8)]);
    match codes {
        Codes::Scalar => (2..=8).map(scalar).collect(),
        Codes::Trellis => trellis(States::S10).collect(),
        Codes::TrellisLarge => trellis(States::S12).collect(),
    }
}

/// Expected squared error of a coded weight of unit variance, scales aside; `None` where it is not known.
fn distortion(encoding: Encoding) -> Option<f64> {
    match encoding {
        Encoding::Exact(_) => Some(0.0),
        Encoding::Turbo { bits, group: ScaleGroup::Row } => Some(Codebook::of(bits)?.distortion()),
        Encoding::Trellis { .. } => Some(Trellis::of(encoding)?.distortion()),
        _ => None,
    }
}

/// Divergence in nats per token that a tensor is expected to cost in an encoding; `None` where nothing was measured.
fn damage(tune: &Tune, tensor: &str, encoding: Encoding) -> Option<f64> {
    let measured = tune.tensors.get(tensor)?;
    let sensitivity = match calibrated::supports(encoding) {
        true => measured.sensitivity,
        false => measured.nearest_sensitivity,
    };
    Some(sensitivity * distortion(encoding)?)
}

/// The sum over all steps.
pub(crate) fn expected_divergence(tune: &Tune, steps: &[Step]) -> f64 {
    steps.iter().filter_map(|step| damage(tune, &step.tensor, step.encoding)).sum()
}

/// One tensor's choices: bytes and damage, both strictly monotone, on the lower convex hull.
struct Choices {
    step: usize,
    options: Vec<(u64, f64, Encoding)>,
    chosen: usize,
}

/// Chooses encodings of the steps that `free` accepts so that the whole stays within the budget and the expected
/// divergence is least. `fixed_bytes` is what the file takes beside payloads.
///
/// Greedy along the lower convex hulls: optimal for the budget it stops at. What is left then buys the best
/// steps that still fit.
///
/// # Errors
/// [`PlanError::Budget`] when the smallest choice of all is above the budget.
pub(crate) fn allocate(
    steps: &mut [Step],
    tune: &Tune,
    (budget, codes): (Budget, Codes),
    fixed_bytes: u64,
    free: &dyn Fn(&Step) -> bool,
) -> Result<(), PlanError> {
    let counted = |step: &Step| match budget {
        Budget::FileBytes(_) | Budget::Divergence(_) => true,
        Budget::BodyBits(_) => step.body,
    };
    let limit = match budget {
        Budget::FileBytes(bytes) => bytes.saturating_sub(fixed_bytes),
        Budget::BodyBits(bits) => {
            let weights: u64 = steps.iter().filter(|step| step.body).map(Step::elements).sum();
            (bits * weights as f64 / 8.0) as u64
        }
        Budget::Divergence(_) => u64::MAX,
    };
    // Every payload is padded to the container's alignment.
    let stored = |bytes: u64| match budget {
        Budget::FileBytes(_) | Budget::Divergence(_) => {
            bytes.next_multiple_of(gq_container::layout::ALIGNMENT)
        }
        Budget::BodyBits(_) => bytes,
    };
    let enough = match budget {
        Budget::Divergence(limit) => limit,
        Budget::FileBytes(_) | Budget::BodyBits(_) => 0.0,
    };
    let mut expected = 0.0;
    let mut choices: Vec<Choices> = Vec::new();
    let mut spent = 0u64;
    for (index, step) in steps.iter().enumerate().filter(|(_, step)| counted(step)) {
        let options = if free(step) { hull(options(tune, step, codes, &stored)) } else { Vec::new() };
        match options.first() {
            Some(first) => {
                spent += first.0;
                expected += first.1;
                choices.push(Choices { step: index, options, chosen: 0 });
            }
            None => {
                spent += stored(step.bytes);
                expected += damage(tune, &step.tensor, step.encoding).unwrap_or(0.0);
            }
        }
    }
    if spent > limit {
        return Err(PlanError::Budget { limit, actual: spent });
    }
    while expected > enough {
        // The next step down a hull that gains most per byte, of those that fit.
        let next = choices.iter().enumerate().filter_map(|(index, choice)| {
            let (bytes, damage, _) = choice.options[choice.chosen];
            let (more, less, _) = *choice.options.get(choice.chosen + 1)?;
            let (price, gain) = (more - bytes, damage - less);
            (spent + price <= limit).then(|| (index, gain / price as f64, price, gain))
        });
        let best = next.max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
        let Some((index, _, price, gain)) = best else { break };
        choices[index].chosen += 1;
        spent += price;
        expected -= gain;
    }
    if let Budget::Divergence(limit) = budget
        && (expected > limit || expected.is_nan() || limit.is_nan())
    {
        return Err(PlanError::Divergence { limit, actual: expected });
    }
    for choice in choices {
        let (_, damage, encoding) = choice.options[choice.chosen];
        let step = &mut steps[choice.step];
        step.encoding = encoding;
        let (rows, cols) = step.rows_cols();
        let bytes = stacked_payload_bytes(MatrixShape { rows, cols }, step.height(), encoding);
        step.bytes = bytes.unwrap_or(step.bytes);
        step.reason = format!("budget: expected to cost {damage:.2e} nats");
        let inputs = tune.tensors.get(&step.tensor).is_some_and(|measured| !measured.inputs.is_empty());
        step.calibrated = inputs && calibrated::supports(encoding);
    }
    Ok(())
}

fn options(tune: &Tune, step: &Step, codes: Codes, stored: &dyn Fn(u64) -> u64) -> Vec<(u64, f64, Encoding)> {
    let (rows, cols) = step.rows_cols();
    let option = |encoding: Encoding| {
        let bytes = stacked_payload_bytes(MatrixShape { rows, cols }, step.height(), encoding)?;
        Some((stored(bytes), damage(tune, &step.tensor, encoding)?, encoding))
    };
    candidates(codes).into_iter().filter(|encoding| encoding.supports_cols(cols)).filter_map(option).collect()
}

/// The lower convex hull of (bytes, damage), from the smallest on.
fn hull(mut options: Vec<(u64, f64, Encoding)>) -> Vec<(u64, f64, Encoding)> {
    options.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let mut hull: Vec<(u64, f64, Encoding)> = Vec::new();
    for option in options {
        if hull.last().is_some_and(|last| option.1 >= last.1 || option.0 == last.0) {
            continue;
        }
        while let [.., a, b] = hull.as_slice() {
            let slope = |p: &(u64, f64, Encoding), q: &(u64, f64, Encoding)| (p.1 - q.1) / (q.0 - p.0) as f64;
            if slope(a, b) > slope(b, &option) {
                break;
            }
            hull.pop();
        }
        hull.push(option);
    }
    hull
}

#[cfg(test)]
mod tests {
    use super::*;
    use gq_tensor::DType;

    #[test]
    fn hulls_are_convex() {
        let e = Encoding::Exact(DType::F32);
        let points = vec![(10, 8.0, e), (20, 4.0, e), (30, 3.9, e), (40, 1.0, e), (40, 2.0, e), (50, 1.5, e)];
        let bytes: Vec<u64> = hull(points).iter().map(|p| p.0).collect();
        assert_eq!(bytes, [10, 20, 40]);
    }
}
