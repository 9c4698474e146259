//! A budget spent over block types.

use crate::plan::{Choices, default_sensitivities, hull, spend};
use gq_calibrate::Measurements;
use gq_checkpoint::Checkpoint;
use std::collections::BTreeMap;

/// Tensors that have one type, which is to be chosen: most often a single one.
#[derive(Clone, Debug)]
pub struct TypedUnit<K> {
    /// Canonical names.
    pub tensors: Vec<String>,
    /// Types that their widths allow, at least one.
    pub options: Vec<TypeOption<K>>,
}

/// One type that tensors may have.
#[derive(Clone, Debug)]
pub struct TypeOption<K> {
    /// The type.
    pub kind: K,
    /// Bytes in the file of all of them, alignment included.
    pub bytes: u64,
    /// Squared error of the outputs of each, relative to what rounding errors as large as the weights would make.
    pub errors: Vec<f64>,
}

/// A budget over types that cannot be spent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChooseError {
    /// The smallest types take more than the budget.
    #[error("the smallest types take {actual} bytes, the budget leaves {limit} for them")]
    TooSmall {
        /// Bytes for these tensors.
        limit: u64,
        /// Bytes of the smallest types.
        actual: u64,
    },
    /// No type has finite errors.
    #[error("{tensor}: its errors are not finite in any type")]
    NotFinite {
        /// Canonical name.
        tensor: String,
    },
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
/// [`ChooseError`].
pub fn choose_types<K: Copy>(
    units: &[TypedUnit<K>],
    sensitivities: &Measurements,
    limit: u64,
) -> Result<BTreeMap<String, K>, ChooseError> {
    let corrections = sensitivities.corrections.as_ref();
    let cost = |tensor: &String| {
        let factor = corrections.map_or(1.0, |corrections| corrections.factor(tensor));
        Some(factor * sensitivities.tensors.get(tensor)?.nearest_sensitivity)
    };
    let known = units.iter().flat_map(|unit| &unit.tensors).filter_map(cost);
    let dearest = known.max_by(f64::total_cmp).unwrap_or(1.0);
    let (mut spent, mut expected) = (0, 0.0);
    let mut choices = Vec::new();
    for TypedUnit { tensors, options } in units {
        let costs: Vec<f64> = tensors.iter().map(|tensor| cost(tensor).unwrap_or(dearest)).collect();
        let loss = |option: &TypeOption<K>| -> f64 {
            costs.iter().zip(&option.errors).map(|(cost, error)| cost * error).sum()
        };
        let finite = options.iter().filter(|option| option.errors.iter().all(|error| error.is_finite()));
        let options = hull(finite.map(|option| (option.bytes, loss(option), option.kind)).collect());
        let Some(first) = options.first() else {
            return Err(ChooseError::NotFinite { tensor: tensors.first().cloned().unwrap_or_default() });
        };
        (spent, expected) = (spent + first.0, expected + first.1);
        choices.push((tensors, Choices { options, chosen: 0 }));
    }
    if spent > limit {
        return Err(ChooseError::TooSmall { limit, actual: spent });
    }
    let (names, mut choices): (Vec<_>, Vec<_>) = choices.into_iter().unzip();
    spend(&mut choices, limit, 0.0, &mut spent, &mut expected);
    let chosen = names.into_iter().zip(&choices);
    let of_unit = |(tensors, choice): (&Vec<String>, &Choices<K>)| {
        let kind = choice.options[choice.chosen].2;
        tensors.iter().map(|tensor| (tensor.clone(), kind)).collect::<Vec<_>>()
    };
    Ok(chosen.flat_map(of_unit).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gq_calibrate::TensorMeasured;
    use gq_tensor::ggml::GgmlType;

    #[test]
    fn bytes_go_where_errors_cost_more() {
        let option = |kind: GgmlType, error| TypeOption {
            kind,
            bytes: (100.0 * kind.bits()) as u64,
            errors: vec![error],
        };
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
            .map(|name| TypedUnit { tensors: vec![(*name).to_owned()], options: options.clone() })
            .collect();
        let mut measured = Measurements::empty();
        for (name, cost) in [("dear", 10.0), ("cheap", 0.1)] {
            let cost = TensorMeasured { inputs: Vec::new(), sensitivity: 0.0, nearest_sensitivity: cost };
            measured.tensors.insert(name.to_owned(), cost);
        }
        let kinds =
            |limit| choose_types(&tensors, &measured, limit).map(|kinds| names.map(|name| kinds[name]));
        assert_eq!(kinds(1349), Err(ChooseError::TooSmall { limit: 1349, actual: 3 * 450 }));
        assert_eq!(kinds(1350), Ok([GgmlType::IQ4_NL; 3]));
        assert_eq!(kinds(1550), Ok([GgmlType::Q5_0, GgmlType::IQ4_NL, GgmlType::Q5_0]));
        assert_eq!(kinds(2150), Ok([GgmlType::Q8_0, GgmlType::IQ4_NL, GgmlType::Q8_0]));
        assert_eq!(kinds(1 << 20), Ok([GgmlType::F16; 3]));
        // Not left out, which would exceed the budget.
        let none =
            TypedUnit { tensors: vec!["n".to_owned()], options: vec![option(GgmlType::F16, f64::NAN)] };
        let refused = choose_types(&[none], &measured, 1 << 20);
        assert_eq!(refused, Err(ChooseError::NotFinite { tensor: "n".to_owned() }));
    }

    #[test]
    fn tensors_of_a_unit_get_one_type_by_what_all_of_them_cost() {
        let unit = |names: [&str; 2], errors: [f64; 2]| TypedUnit {
            tensors: names.map(str::to_owned).to_vec(),
            options: vec![
                TypeOption { kind: 4, bytes: 100, errors: errors.to_vec() },
                TypeOption { kind: 8, bytes: 200, errors: vec![0.0; 2] },
            ],
        };
        let mut measured = Measurements::empty();
        for (name, cost) in [("q", 1.0), ("k", 5.0), ("gate", 2.0), ("up", 2.0)] {
            let cost = TensorMeasured { inputs: Vec::new(), sensitivity: 0.0, nearest_sensitivity: cost };
            measured.tensors.insert(name.to_owned(), cost);
        }
        // 0.1 + 0.5 against 0.2 + 0.2.
        let units = [unit(["q", "k"], [0.1, 0.1]), unit(["gate", "up"], [0.1, 0.1])];
        let kinds = choose_types(&units, &measured, 300).unwrap();
        assert_eq!(["q", "k", "gate", "up"].map(|name| kinds[name]), [8, 8, 4, 4]);
        assert_eq!(
            choose_types(&units, &measured, 199),
            Err(ChooseError::TooSmall { limit: 199, actual: 200 })
        );
    }
}
