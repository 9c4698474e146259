//! Factors of parameters that are not a module's weight: the stacks of experts that `target_parameters` names.

use super::factors::{Factors, Layout, both, check_shape};
use super::named_module::NamedModule;
use super::{Adapter, AdapterError};
use crate::SourceTensor;
use crate::declared::Layout as InFiles;
use crate::family::{matrix_of_stack, stacks_of_experts};
use crate::names::canonical;
use std::collections::HashMap;
use std::ops::Range;

/// Canonical name, name of the parameter to the adapter, and the tensor.
pub(super) type Parameter<'a> = (String, String, &'a SourceTensor);

/// The parameter that a module's factors are for, where the module has several and no weight: PEFT wraps them one
/// around the other in the order of the module, so that the last one is outermost and the others are
/// `base_layer` once, twice, ….
pub(super) fn parameter<'a>(
    adapter: &Adapter,
    name: &str,
    tensors: &HashMap<&str, &'a SourceTensor>,
) -> Result<Option<Parameter<'a>>, AdapterError> {
    let (mut module, mut depth) = (name, 0);
    while let Some(inner) = module.strip_suffix(".base_layer") {
        (module, depth) = (inner, depth + 1);
    }
    let there = |parameter: &str| {
        let key = format!("{module}.{parameter}");
        let tensor = canonical(&key);
        let source = *tensors.get(tensor.as_str())?;
        Some((tensor, key, source))
    };
    let there: Vec<Parameter<'a>> = stacks_of_experts().into_iter().filter_map(there).collect();
    if there.is_empty() {
        return Ok(None);
    }
    let targeted: Vec<_> =
        there.into_iter().filter(|(_, key, _)| adapter.config.targets.names_parameter(key)).collect();
    let place = targeted.len().checked_sub(1 + depth);
    match place.and_then(|place| targeted.into_iter().nth(place)) {
        Some(found) => Ok(Some(found)),
        None => Err(AdapterError::Untargeted {
            module: name.to_owned(),
            why: "target_parameters does not name its parameter",
        }),
    }
}

/// A matrix of one expert in a stack.
pub(super) struct ExpertPart {
    /// Its rows in the stack.
    pub rows: Range<usize>,
    /// The same as a tensor by itself, of which shape and role count.
    pub matrix: SourceTensor,
}

/// The stack that has the matrix of one expert under this canonical name, as adapters of single experts call it.
pub(super) fn of_expert(
    weight: &str,
    tensors: &HashMap<&str, &SourceTensor>,
) -> Option<(String, ExpertPart)> {
    matrix_of_stack(weight).into_iter().find_map(|found| {
        let stack = *tensors.get(found.stack.as_str())?;
        let &[experts, rows, cols] = stack.shape.as_slice() else { return None };
        let rows_per_matrix = rows / found.of.max(1);
        let first =
            (found.expert < experts).then_some(found.expert * rows + found.index * rows_per_matrix)?;
        let matrix = SourceTensor { shape: vec![rows_per_matrix, cols], pieces: Vec::new(), ..stack.clone() };
        Some((found.stack, ExpertPart { rows: first..first + rows_per_matrix, matrix }))
    })
}

/// Factors of a stack of experts.
pub(super) fn of_parameter(
    NamedModule { adapter, name, module }: NamedModule<'_>,
    key: &str,
    source: &SourceTensor,
    declared: InFiles,
) -> Result<Factors, AdapterError> {
    let incomplete = AdapterError::Incomplete { module: name.to_owned(), missing: "A" };
    let (a, b) = both(name, module)?.ok_or(incomplete)?;
    if adapter.config.dora {
        return Err(AdapterError::Option {
            option: "use_dora".to_owned(),
            value: format!("true with target_parameters on {name}"),
            supported: "DoRA on linear layers",
        });
    }
    let &[experts, first, second] = source.shape.as_slice() else {
        return Err(AdapterError::Shape {
            name: a.name,
            actual: source.shape.clone(),
            expected: vec![0, 0, 0],
        });
    };
    let (rank, scale) = adapter.config.rank_and_scale(key);
    let rank = usize::try_from(rank).unwrap_or(usize::MAX);
    let all = rank.saturating_mul(experts);
    if let InFiles::Transposed { alternating, .. } = declared {
        // The library's own graph has outputs last, so that there is one order alone.
        check_shape(&a, &[all, second])?;
        check_shape(&b, &[first, all])?;
        let layout = if alternating { Layout::ExpertsInTurn(experts) } else { Layout::Experts(experts) };
        let scale = scale * adapter.weight();
        return Ok(Factors { a, b, magnitude: None, rank, scale, layout, rows: None });
    }
    let fits = |inputs: usize, outputs: usize| a.shape == [all, inputs] && b.shape == [outputs, all];
    let layout = match (fits(second, first), fits(first, second), adapter.config.outputs_first) {
        (true, false, _) | (true, true, Some(true)) => Layout::Experts(experts),
        (false, true, _) | (true, true, Some(false)) => Layout::ExpertsInputsFirst(experts),
        (true, true, None) => return Err(AdapterError::AmbiguousOrder { module: name.to_owned() }),
        (false, false, _) => {
            check_shape(&a, &[all, second])?;
            check_shape(&b, &[first, all])?;
            return Err(AdapterError::AmbiguousOrder { module: name.to_owned() });
        }
    };
    Ok(Factors { a, b, magnitude: None, rank, scale: scale * adapter.weight(), layout, rows: None })
}
