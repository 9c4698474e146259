//! Spends a budget where the model's output distribution cares.

use super::error::PlanError;
use super::greedy::{Choices, hull, spend, step_back};
use super::grid::Grids;
use super::policy::{Budget, Codes};
use super::step::Step;
use crate::round;
use gq_calibrate::Measurements;
use gq_codec::code_of;
use gq_tensor::{Encoding, RotationSpec, ScaleGroup, States, Storage};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// What reasons that a budget decided begin with.
pub(crate) const BUDGET: &str = "budget:";

/// Encodings that compete, in ascending order of bits.
fn candidates(codes: Codes) -> Vec<Encoding> {
    let scalar = |bits| Encoding::Turbo { bits, group: ScaleGroup::Row };
    let trellis =
        |states| (2..=6).map(move |bits| Encoding::Trellis { bits, states }).chain([scalar(7), scalar(8)]);
    match codes {
        Codes::Scalar => (2..=8).map(scalar).collect(),
        Codes::Trellis => trellis(States::S10).collect(),
        Codes::TrellisLarge => trellis(States::S12).collect(),
        Codes::TrellisLargest => trellis(States::S14).collect(),
    }
}

/// Divergence in nats per token that a tensor is expected to cost in an encoding, corrected by what trials found;
/// `None` where nothing was measured.
fn damage(measurements: &Measurements, tensor: &str, encoding: Encoding) -> Option<f64> {
    let factor = measurements.corrections.as_ref().map_or(1.0, |corrections| corrections.factor(tensor));
    Some(factor * predicted(measurements, tensor, encoding)?)
}

/// The same from sensitivities alone.
pub(crate) fn predicted(measurements: &Measurements, tensor: &str, encoding: Encoding) -> Option<f64> {
    let measured = measurements.tensors.get(tensor)?;
    let code = code_of(Storage::unrotated(encoding)).ok()?;
    let distortion = code.distortion()?;
    let sensitivity = match code.columns().is_some() {
        true => measured.sensitivity,
        false => measured.nearest_sensitivity,
    };
    Some(sensitivity * distortion)
}

/// Of all steps together that were measured; `None` where one of those is in an encoding that nothing is known of.
pub(crate) fn expected_divergence(measurements: &Measurements, steps: &[Step]) -> Option<f64> {
    let measured = steps.iter().filter(|step| measurements.tensors.contains_key(&step.tensor));
    let sum = measured.map(|step| damage(measurements, &step.tensor, step.encoding)).sum::<Option<f64>>()?;
    Some(measurements.expected(sum))
}

/// Which steps are meant.
pub(crate) type Part<'a> = &'a dyn Fn(&Step) -> bool;

/// What is spent, and on what.
pub(crate) struct Spending<'a> {
    pub(crate) budget: Budget,
    /// Codes that compete.
    pub(crate) codes: Codes,
    /// What the file takes next to payloads.
    pub(crate) fixed_bytes: u64,
    /// Steps that mean bits are a budget for.
    pub(crate) takes_part: Part<'a>,
    /// Those of them whose encodings are chosen.
    pub(crate) free: Part<'a>,
    /// Grids that compete as well.
    pub(crate) grids: Option<&'a Grids>,
}

/// Chooses encodings so that the whole stays within the budget and the expected divergence is least.
///
/// Greedy along the lower convex hulls: optimal for the budget it stops at. What is left then buys the best
/// steps that still fit.
///
/// # Errors
/// [`PlanError::Budget`] when the smallest choice of all is above the budget; of a limit on the divergence,
/// [`PlanError::UnknownDivergence`] when a tensor that was measured is to be in an encoding that nothing is known of.
pub(crate) fn allocate(
    steps: &mut [Step],
    measurements: &Measurements,
    spending: &Spending<'_>,
) -> Result<(), PlanError> {
    let budget = spending.budget;
    let counted = |step: &Step| match budget {
        Budget::FileBytes(_) | Budget::Divergence(_) | Budget::MeanBits { .. } => true,
        Budget::BodyBits(_) => step.body,
    };
    let limit = match budget {
        Budget::FileBytes(bytes) => bytes.saturating_sub(spending.fixed_bytes),
        Budget::BodyBits(bits) => {
            let weights: u64 = steps.iter().filter(|step| step.body).map(Step::elements).sum();
            (bits * weights as f64 / 8.0) as u64
        }
        Budget::Divergence(_) => u64::MAX,
        // What takes no part takes what it takes.
        Budget::MeanBits { body, tables } => {
            let bits = |step: &Step| if step.body { body } else { tables };
            let bytes = |step: &Step| match (spending.takes_part)(step) {
                true => (bits(step) * step.elements() as f64 / 8.0) as u64,
                false => step.bytes,
            };
            steps.iter().map(bytes).sum()
        }
    };
    // Every payload is padded to the container's alignment.
    let stored = |bytes: u64| match budget {
        Budget::FileBytes(_) | Budget::Divergence(_) => {
            bytes.next_multiple_of(gq_container::layout::ALIGNMENT)
        }
        Budget::BodyBits(_) | Budget::MeanBits { .. } => bytes,
    };
    let enough = match budget {
        // There and back rounds.
        Budget::Divergence(limit) if measurements.corrections.is_some() => {
            measurements.sum_at(limit) * (1.0 - 1e-9)
        }
        Budget::Divergence(limit) => limit,
        Budget::FileBytes(_) | Budget::BodyBits(_) | Budget::MeanBits { .. } => 0.0,
    };
    if !matches!(budget, Budget::Divergence(_)) && fits_exactly(steps, &counted, spending, &stored, limit) {
        return Ok(());
    }
    let mut expected = 0.0;
    let mut choices: Vec<Choices<Encoding>> = Vec::new();
    let mut chosen_of: Vec<usize> = Vec::new();
    let mut spent = 0u64;
    for (index, step) in steps.iter().enumerate().filter(|(_, step)| counted(step)) {
        let options = match (spending.free)(step) {
            true => hull(options(measurements, step, spending, &stored)),
            false => Vec::new(),
        };
        match options.first() {
            Some(first) => {
                spent += first.0;
                expected += first.1;
                chosen_of.push(index);
                choices.push(Choices { options, chosen: 0 });
            }
            None => {
                spent += stored(step.bytes);
                let known = damage(measurements, &step.tensor, step.encoding);
                let measured = measurements.tensors.contains_key(&step.tensor);
                if let (None, true, Budget::Divergence(_)) = (known, measured, budget) {
                    let (tensor, actual) = (step.tensor.clone(), step.encoding);
                    return Err(PlanError::UnknownDivergence { tensor, actual });
                }
                expected += known.unwrap_or(0.0);
            }
        }
    }
    if spent > limit {
        let around = if matches!(budget, Budget::FileBytes(_)) { spending.fixed_bytes } else { 0 };
        let chosen: BTreeSet<usize> = chosen_of.into_iter().collect();
        let fixed = steps.iter().enumerate().filter(|(index, step)| counted(step) && !chosen.contains(index));
        let mut by_role: BTreeMap<&str, u64> = BTreeMap::new();
        fixed.for_each(|(_, step)| *by_role.entry(&step.role).or_default() += stored(step.bytes));
        let mut fixed: Vec<_> = by_role.into_iter().map(|(role, bytes)| (role.to_owned(), bytes)).collect();
        fixed.sort_by_key(|(_, bytes)| Reverse(*bytes));
        return Err(PlanError::Budget { limit, actual: spent, around, fixed });
    }
    spend(&mut choices, limit, enough, &mut spent, &mut expected);
    if matches!(budget, Budget::Divergence(_)) {
        step_back(&mut choices, enough, &mut expected);
    }
    if let Budget::Divergence(limit) = budget
        && (expected > enough || expected.is_nan() || enough.is_nan())
    {
        return Err(PlanError::Divergence { limit, actual: measurements.expected(expected) });
    }
    for (choice, index) in choices.iter().zip(chosen_of) {
        let (_, damage, encoding) = choice.options[choice.chosen];
        let step = &mut steps[index];
        step.encoding = encoding;
        step.bytes = step.matrix().payload_bytes(encoding).unwrap_or(step.bytes);
        step.reason = match encoding.is_grid() {
            true => format!("{BUDGET} on this grid already, no loss"),
            false => format!("{BUDGET} expected to cost {damage:.2e} nats"),
        };
        if encoding.is_grid() {
            step.rotation = RotationSpec::NONE;
        }
        let inputs =
            measurements.tensors.get(&step.tensor).is_some_and(|measured| !measured.inputs.is_empty());
        step.calibrated = inputs && round::rounds_columns(encoding);
    }
    Ok(())
}

/// Stores every step whose encoding nobody fixed as it is, where the budget has room for all of them so.
fn fits_exactly(
    steps: &mut [Step],
    counted: Part<'_>,
    spending: &Spending<'_>,
    stored: &dyn Fn(u64) -> u64,
    limit: u64,
) -> bool {
    let exact = |step: &Step| step.matrix().payload_bytes(Encoding::Exact(step.source_dtype));
    let bytes = |step: &Step| match (spending.takes_part)(step) {
        true => exact(step).map(stored),
        false => Some(stored(step.bytes)),
    };
    let all = steps.iter().filter(|step| counted(step)).map(bytes);
    let fits = all.sum::<Option<u64>>().is_some_and(|bytes| bytes <= limit);
    if fits {
        for step in steps.iter_mut().filter(|step| counted(step) && (spending.takes_part)(step)) {
            step.encoding = Encoding::Exact(step.source_dtype);
            (step.rotation, step.calibrated) = (RotationSpec::NONE, false);
            step.bytes = exact(step).unwrap_or(step.bytes);
            step.reason = format!("{BUDGET} room for every weight as it is, no loss");
        }
    }
    fits
}

fn options(
    measurements: &Measurements,
    step: &Step,
    spending: &Spending<'_>,
    stored: &dyn Fn(u64) -> u64,
) -> Vec<(u64, f64, Encoding)> {
    let shape = step.matrix();
    let option = |encoding: Encoding| {
        let bytes = shape.payload_bytes(encoding)?;
        Some((stored(bytes), damage(measurements, &step.tensor, encoding)?, encoding))
    };
    let grid = spending.grids.and_then(|grids| grids.get(&step.tensor));
    candidates(spending.codes)
        .into_iter()
        .chain(grid)
        .filter(|encoding| encoding.supports_cols(shape.cols))
        .filter_map(option)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gq_calibrate::{Corrections, GroupTrial, TensorMeasured, WholeTrial};
    use gq_tensor::{DType, RotationSpec};

    /// Matrices of 30 layers 576 wide, with sensitivities that differ a hundredfold.
    fn body() -> (Vec<Step>, Measurements) {
        let mut measurements = Measurements::empty();
        let mut steps = Vec::new();
        let shapes = [(576, 576), (192, 576), (192, 576), (576, 576), (1536, 576), (1536, 576), (576, 1536)];
        for (index, (rows, cols)) in (0..30).flat_map(|_| shapes).enumerate() {
            let tensor = format!("t{index}");
            let sensitivity = 0.02 * f64::from((index as u32 * 37) % 101 + 1) / 101.0;
            let measured =
                TensorMeasured { inputs: Vec::new(), sensitivity, nearest_sensitivity: 2.0 * sensitivity };
            measurements.tensors.insert(tensor.clone(), measured);
            let encoding = Encoding::Turbo { bits: 4, group: ScaleGroup::Row };
            steps.push(Step {
                tensor,
                role: String::new(),
                shape: vec![rows, cols],
                source_dtype: DType::BF16,
                source_bytes: 2 * rows * cols,
                encoding,
                rotation: RotationSpec::NONE,
                bytes: 0,
                reason: String::new(),
                body: true,
                calibrated: false,
                row_unit: 1,
            });
        }
        (steps, measurements)
    }

    /// Trellis codes of all steps.
    fn spend(
        steps: &mut [Step],
        measurements: &Measurements,
        budget: Budget,
        fixed_bytes: u64,
    ) -> Result<(), PlanError> {
        let (all, codes): (Part<'_>, _) = (&|_| true, Codes::Trellis);
        let spending = Spending { budget, codes, fixed_bytes, takes_part: all, free: all, grids: None };
        allocate(steps, measurements, &spending)
    }

    fn spent(steps: &[Step]) -> u64 {
        steps.iter().map(|step| step.bytes.next_multiple_of(gq_container::layout::ALIGNMENT)).sum()
    }

    #[test]
    fn budgets_are_met_within_a_thousandth() {
        let mut last = f64::INFINITY;
        for budget in (30_000_000..100_000_000).step_by(4_321_987) {
            let (mut steps, measurements) = body();
            spend(&mut steps, &measurements, Budget::FileBytes(budget), 10_000).unwrap();
            let bytes = spent(&steps) + 10_000;
            assert!(bytes <= budget && bytes as f64 >= 0.999 * budget as f64, "{bytes} of {budget}");
            let expected = expected_divergence(&measurements, &steps).unwrap();
            assert!(expected < last, "{expected} {last}");
            last = expected;
        }
    }

    #[test]
    fn the_smallest_file_that_stays_close_has_no_step_to_spare() {
        for limit in [0.003, 0.011, 0.037, 0.12] {
            let (mut steps, measurements) = body();
            spend(&mut steps, &measurements, Budget::Divergence(limit), 0).unwrap();
            let expected = expected_divergence(&measurements, &steps).unwrap();
            assert!(expected <= limit && expected > 0.99 * limit, "{expected} of {limit}");
            for step in &steps {
                let candidates = candidates(Codes::Trellis);
                let at = candidates.iter().position(|encoding| *encoding == step.encoding).unwrap();
                let Some(lower) = at.checked_sub(1) else { continue };
                let more = damage(&measurements, &step.tensor, candidates[lower]).unwrap()
                    - damage(&measurements, &step.tensor, step.encoding).unwrap();
                assert!(expected + more > limit, "{} could be {}", step.tensor, candidates[lower]);
            }
        }
    }

    /// As `body`, with the first ten layers found four times as costly as predicted.
    fn corrected() -> (Vec<Step>, Measurements) {
        let (steps, mut measurements) = body();
        let trial = |name: &str, range: std::ops::Range<usize>, factor: f64| GroupTrial {
            name: name.to_owned(),
            tensors: range.map(|index| format!("t{index}")).collect(),
            predicted: 0.01,
            measured: 0.01 * factor,
            standard_error: 0.0,
            factor,
        };
        let whole = WholeTrial { share: 1.0, predicted: 0.1, measured: 0.15, standard_error: 0.0 };
        measurements.corrections = Some(Corrections {
            format: 1,
            asked_tokens: 1,
            tokens: 1,
            encoding: "tt3".to_owned(),
            mean_factor: 2.0,
            groups: vec![trial("first", 0..70, 4.0), trial("others", 70..210, 1.0)],
            whole: vec![whole],
        });
        (steps, measurements)
    }

    #[test]
    fn what_nothing_is_known_of_is_not_taken_for_lossless() {
        let (mut steps, measurements) = body();
        let of = |steps: &[Step]| expected_divergence(&measurements, steps);
        let encode = |steps: &mut [Step], name: &str| {
            steps.iter_mut().for_each(|step| step.encoding = Encoding::from_name(name).unwrap());
        };
        encode(&mut steps, "tq4");
        let row = of(&steps).unwrap();
        encode(&mut steps, "tq4-g32");
        assert_eq!(of(&steps), Some(row));
        encode(&mut steps[..1], "tqp4");
        assert_eq!(of(&steps), None);
        let (budget, codes) = (Budget::Divergence(0.05), Codes::Trellis);
        let free: Part<'_> = &|step| step.tensor != "t0";
        let spending = Spending { budget, codes, fixed_bytes: 0, takes_part: free, free, grids: None };
        let refused = allocate(&mut steps, &measurements, &spending);
        assert!(matches!(refused, Err(PlanError::UnknownDivergence { tensor, .. }) if tensor == "t0"));
        encode(&mut steps[..1], "tq4-g32");
        allocate(&mut steps, &measurements, &spending).unwrap();
    }

    #[test]
    fn bytes_go_where_trials_found_more_damage() {
        let bytes = |(mut steps, measurements): (Vec<Step>, Measurements)| {
            spend(&mut steps, &measurements, Budget::FileBytes(60_000_000), 0).unwrap();
            let first: u64 = steps[..70].iter().map(|step| step.bytes).sum();
            (first, spent(&steps), expected_divergence(&measurements, &steps).unwrap())
        };
        let (plain, with) = (bytes(body()), bytes(corrected()));
        // A factor of four is a bit per weight more than the others get, in part paid for by them.
        assert!(with.0 as f64 > 1.1 * plain.0 as f64, "{plain:?} {with:?}");
        assert!(with.1 <= 60_000_000 && with.2 > plain.2, "{plain:?} {with:?}");
    }

    #[test]
    fn a_limit_is_on_what_is_expected_of_the_whole() {
        for limit in [0.01, 0.05] {
            let (mut steps, measurements) = corrected();
            spend(&mut steps, &measurements, Budget::Divergence(limit), 0).unwrap();
            let expected = expected_divergence(&measurements, &steps).unwrap();
            assert!(expected <= limit && expected > 0.99 * limit, "{expected} of {limit}");
            let sum: f64 =
                steps.iter().filter_map(|step| damage(&measurements, &step.tensor, step.encoding)).sum();
            assert!((expected - 1.5 * sum).abs() < 1e-9, "{expected} {sum}");
        }
    }
}
