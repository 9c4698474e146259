//! A budget spent over block types.

use crate::plan::{Choices, default_sensitivities, hull, spend};
use gq_calibrate::Measurements;
use gq_checkpoint::Checkpoint;
use gq_tensor::ggml::GgmlType;
use std::collections::BTreeMap;

/// A tensor whose type is to be chosen.
#[derive(Clone, Debug)]
pub struct BlockTensor {
    /// Canonical name.
    pub tensor: String,
    /// Types that its width allows, at least one.
    pub options: Vec<BlockOption>,
    /// Others that stand in the same tensor of the file, with what each of the options loses of them.
    pub others: Vec<(String, Vec<f64>)>,
}

/// One type that a tensor may have.
#[derive(Clone, Copy, Debug)]
pub struct BlockOption {
    /// The type.
    pub kind: GgmlType,
    /// Bytes in the file, alignment included.
    pub bytes: u64,
    /// Squared error of its outputs, relative to what rounding errors as large as the weights would make.
    pub error: f64,
}

/// The smallest types take more than the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the smallest block types take {actual} bytes, the budget leaves {limit} for them")]
pub struct TooSmall {
    /// Bytes for these tensors.
    pub limit: u64,
    /// Bytes of the smallest types.
    pub actual: u64,
}

/// What errors in each tensor cost: as measured, or as is typical of its role.
pub fn sensitivities(checkpoint: &Checkpoint, measured: Option<&Measurements>) -> Measurements {
    let assumed = || default_sensitivities(checkpoint.tensors().iter(), checkpoint.spec().tied_head);
    measured.cloned().unwrap_or_else(assumed)
}

/// Types that together take at most `limit` bytes and are expected to cost least; by canonical name.
///
/// A tensor of which `sensitivities` know nothing is taken to cost what the dearest of the others does.
///
/// # Errors
/// [`TooSmall`].
pub fn choose_types(
    tensors: &[BlockTensor],
    sensitivities: &Measurements,
    limit: u64,
) -> Result<BTreeMap<String, GgmlType>, TooSmall> {
    let corrections = sensitivities.corrections.as_ref();
    let cost = |tensor: &str| {
        let factor = corrections.map_or(1.0, |corrections| corrections.factor(tensor));
        Some(factor * sensitivities.tensors.get(tensor)?.nearest_sensitivity)
    };
    let names = |tensor: &BlockTensor| {
        let others = tensor.others.iter().map(|(name, _)| name.clone());
        [tensor.tensor.clone()].into_iter().chain(others).collect::<Vec<_>>()
    };
    let known = tensors.iter().flat_map(names).filter_map(|name| cost(&name));
    let dearest = known.max_by(f64::total_cmp).unwrap_or(1.0);
    let (mut spent, mut expected) = (0, 0.0);
    let mut choices = Vec::new();
    for BlockTensor { tensor, options, others } in tensors {
        let cost = |tensor: &str| cost(tensor).unwrap_or(dearest);
        let priced = options.iter().enumerate().map(|(index, option)| {
            let others = others.iter().filter_map(|(name, errors)| Some(cost(name) * errors.get(index)?));
            (option.bytes, cost(tensor) * option.error + others.sum::<f64>(), option.kind)
        });
        let options = hull(priced.filter(|(_, error, _)| error.is_finite()).collect());
        let Some(first) = options.first() else { continue };
        (spent, expected) = (spent + first.0, expected + first.1);
        choices.push((tensor, Choices { options, chosen: 0 }));
    }
    if spent > limit {
        return Err(TooSmall { limit, actual: spent });
    }
    let (names, mut choices): (Vec<_>, Vec<_>) = choices.into_iter().unzip();
    spend(&mut choices, limit, 0.0, &mut spent, &mut expected);
    let chosen = names.into_iter().zip(&choices);
    Ok(chosen.map(|(name, choice)| (name.clone(), choice.options[choice.chosen].2)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gq_calibrate::TensorMeasured;

    #[test]
    fn bytes_go_where_errors_cost_more() {
        let option = |kind: GgmlType, error| BlockOption { kind, bytes: (100.0 * kind.bits()) as u64, error };
        let options = vec![
            option(GgmlType::IQ4_NL, 0.005),
            option(GgmlType::Q5_0, 0.0015),
            option(GgmlType::Q8_0, 2e-5),
            option(GgmlType::F16, 0.0),
            option(GgmlType::BF16, f64::NAN),
        ];
        let names = ["dear", "cheap", "unknown"];
        let tensors: Vec<_> = names
            .iter()
            .map(|name| BlockTensor {
                tensor: (*name).to_owned(),
                options: options.clone(),
                others: Vec::new(),
            })
            .collect();
        let mut measured = Measurements::empty();
        for (name, cost) in [("dear", 10.0), ("cheap", 0.1)] {
            let cost = TensorMeasured { inputs: Vec::new(), sensitivity: 0.0, nearest_sensitivity: cost };
            measured.tensors.insert(name.to_owned(), cost);
        }
        let kinds =
            |limit| choose_types(&tensors, &measured, limit).map(|kinds| names.map(|name| kinds[name]));
        assert_eq!(kinds(1349), Err(TooSmall { limit: 1349, actual: 3 * 450 }));
        assert_eq!(kinds(1350), Ok([GgmlType::IQ4_NL; 3]));
        assert_eq!(kinds(1550), Ok([GgmlType::Q5_0, GgmlType::IQ4_NL, GgmlType::Q5_0]));
        assert_eq!(kinds(2150), Ok([GgmlType::Q8_0, GgmlType::IQ4_NL, GgmlType::Q8_0]));
        assert_eq!(kinds(1 << 20), Ok([GgmlType::F16; 3]));

        // What stands in one tensor of the file has its price together.
        let errors = vec![0.005, 0.0015, 2e-5, 0.0, 0.0];
        let mut cheap = BlockTensor { tensor: "cheap".to_owned(), options, others: Vec::new() };
        let second = BlockTensor { tensor: "second".to_owned(), ..cheap.clone() };
        measured.tensors.insert("second".to_owned(), measured.tensors["cheap"].clone());
        measured.tensors.get_mut("second").unwrap().nearest_sensitivity = 1.0;
        let kinds = |cheap: &BlockTensor| {
            let kinds = choose_types(&[cheap.clone(), second.clone()], &measured, 1000).unwrap();
            (kinds["cheap"], kinds["second"])
        };
        assert_eq!(kinds(&cheap), (GgmlType::IQ4_NL, GgmlType::Q5_0));
        cheap.others.push(("dear".to_owned(), errors));
        assert_eq!(kinds(&cheap), (GgmlType::Q5_0, GgmlType::IQ4_NL));
    }
}
