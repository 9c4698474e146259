//! Importance matrices of llama.cpp, from measurements and as a weak form of them.

use crate::failure::{Exit, Failure};
use crate::output::Output;
use gq_calibrate::MeasurementsDir;
use gq_checkpoint::gguf::{Imatrix, SquaredInputs};
use gq_checkpoint::gguf_model::gguf_names;
use gq_checkpoint::{Checkpoint, Role, SourceTensor};
use gq_convert::Importances;
use std::collections::BTreeMap;
use std::path::Path;

/// Matrices that a tensor is a stack of.
fn matrices(tensor: &SourceTensor) -> usize {
    tensor.shape.iter().rev().skip(2).product()
}

/// Writes what was measured as llama.cpp's importance matrix: of every matrix that has inputs and a name in a GGUF.
pub fn write(checkpoint: &Checkpoint, measured: &MeasurementsDir, path: &Path) -> Result<u64, Failure> {
    let value = measured.value();
    let chunks = u32::try_from(value.tokens / value.ctx.max(1)).unwrap_or(u32::MAX);
    let mut imatrix = Imatrix {
        datasets: vec![format!("text of gq calibrate, sha256 {}", value.text_sha256)],
        chunks,
        chunk_size: u32::try_from(value.ctx).unwrap_or(u32::MAX),
        ..Imatrix::default()
    };
    for (name, of_tensor) in &value.tensors {
        let Some(tensor) = checkpoint.tensor(name) else { continue };
        let mut inputs = SquaredInputs::default();
        for matrix in 0..matrices(tensor) {
            let Some(input) = of_tensor.inputs.get(matrix).or(of_tensor.inputs.last()) else { break };
            let tokens = value.inputs.get(input).map_or(0, |input| input.tokens) as f32;
            // One input for all matrices of a stack is read once.
            if matrix < of_tensor.inputs.len() {
                let moment = measured.moment(input)?;
                let squares = moment.iter().step_by(tensor.cols() + 1);
                inputs.sums.extend(squares.map(|square| square * tokens));
            } else {
                let first = inputs.sums.len() - tensor.cols();
                inputs.sums.extend_from_within(first..);
            }
            inputs.counts.push(tokens);
        }
        if !inputs.counts.is_empty() {
            let names = gguf_names(checkpoint.spec(), name, &tensor.shape).into_iter();
            imatrix.tensors.extend(names.map(|name| (name, inputs.clone())));
        }
    }
    Ok(imatrix.write(path)?)
}

/// Reads an importance matrix for a checkpoint; matrices that it says nothing of are noted, but embedding and head, which
/// llama.cpp's have not.
///
/// # Errors
/// When it is none, has another width or another number of experts than a tensor of the checkpoint, says nothing of any,
/// or of none of a layer.
pub fn read(checkpoint: &Checkpoint, path: &Path, output: Output) -> Result<Importances, Failure> {
    let imatrix = Imatrix::open(path)?;
    let mut importances = Importances::default();
    // Matrices of each layer that it has, and those that it lacks.
    let mut layers: BTreeMap<Option<usize>, (usize, Vec<&str>)> = BTreeMap::new();
    for tensor in checkpoint.tensors().iter().filter(|tensor| tensor.role.is_used() && tensor.shape.len() > 1)
    {
        let names = gguf_names(checkpoint.spec(), &tensor.name, &tensor.shape);
        let layer = checkpoint.spec().declaration(&tensor.name).and_then(|(_, layer)| layer);
        let (known, lacking) = layers.entry(layer).or_default();
        let Some((name, inputs)) = names.iter().find_map(|name| Some((name, imatrix.tensors.get(name)?)))
        else {
            let by_rows = matches!(tensor.role, Role::Embedding | Role::PerLayerTable | Role::Head);
            lacking.extend((!by_rows && !names.is_empty()).then_some(tensor.name.as_str()));
            continue;
        };
        let (cols, count) = (tensor.cols(), matrices(tensor));
        if inputs.cols() != cols || inputs.counts.len() != count {
            let actual = format!("{} x {}", inputs.counts.len(), inputs.cols());
            let message = format!(
                "{}: {name} has inputs of {actual}, this checkpoint's are of {count} x {cols}: it is of another model",
                path.display()
            );
            let failure = Failure::new(Exit::Input, "imatrix.shape", message).at(path.display());
            return Err(failure.limit(format!("{count} x {cols}")).actual(actual));
        }
        *known += 1;
        importances.insert(tensor.name.clone(), (0..count).map(|matrix| inputs.means(matrix)).collect());
    }
    if importances.is_empty() {
        let message = format!("{}: has no tensor of this checkpoint", path.display());
        let failure = Failure::new(Exit::Input, "imatrix.tensors", message).at(path.display());
        return Err(failure.limit("names of this model's matrices in a GGUF").actual("none of them"));
    }
    if let Some((Some(layer), (_, lacking))) =
        layers.iter().find(|(layer, (known, lacking))| layer.is_some() && *known == 0 && !lacking.is_empty())
    {
        let message = format!(
            "{}: has no matrix of layer {layer}, of which this checkpoint has {}: it is of another model, or not whole",
            path.display(),
            lacking.len()
        );
        let failure = Failure::new(Exit::Input, "imatrix.tensors", message).at(path.display());
        return Err(failure.limit("matrices of every layer").actual(format!("none of layer {layer}")));
    }
    let lacking: Vec<&str> = layers.values().flat_map(|(_, lacking)| lacking.iter().copied()).collect();
    if let Some(first) = lacking.first() {
        let (count, rest) = (lacking.len(), if lacking.len() > 1 { " and others" } else { "" });
        output.note(&format!(
            "{}: says nothing of {count} of this model's matrices, whose columns count alike: {first}{rest}",
            path.display()
        ));
    }
    Ok(importances)
}
