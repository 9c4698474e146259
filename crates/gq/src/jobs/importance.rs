//! Importance matrices of llama.cpp, from measurements and as a weak form of them.

use crate::failure::{Exit, Failure};
use gq_calibrate::MeasurementsDir;
use gq_checkpoint::gguf::{Imatrix, SquaredInputs};
use gq_checkpoint::gguf_model::gguf_names;
use gq_checkpoint::{Checkpoint, SourceTensor};
use gq_convert::Importances;
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

/// Reads an importance matrix for a checkpoint.
///
/// # Errors
/// When it is none, has another width or another number of experts than a tensor of the checkpoint, or says nothing of any.
pub fn read(checkpoint: &Checkpoint, path: &Path) -> Result<Importances, Failure> {
    let imatrix = Imatrix::open(path)?;
    let mut importances = Importances::default();
    for tensor in checkpoint.tensors().iter().filter(|tensor| tensor.role.is_used() && tensor.shape.len() > 1)
    {
        let names = gguf_names(checkpoint.spec(), &tensor.name, &tensor.shape);
        let Some((name, inputs)) = names.iter().find_map(|name| Some((name, imatrix.tensors.get(name)?)))
        else {
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
        importances.insert(tensor.name.clone(), (0..count).map(|matrix| inputs.means(matrix)).collect());
    }
    match importances.is_empty() {
        false => Ok(importances),
        true => {
            let message = format!("{}: has no tensor of this checkpoint", path.display());
            let failure = Failure::new(Exit::Input, "imatrix.tensors", message).at(path.display());
            Err(failure.limit("names of this model's matrices in a GGUF").actual("none of them"))
        }
    }
}
