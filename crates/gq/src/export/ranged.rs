//! A GGUF whose types hold the weights: what half precision or a block's scale cannot hold gets a wider type.

use super::Weights;
use crate::failure::Failure;
use crate::units;
use gq_checkpoint::ReadError;
use gq_checkpoint::gguf_model::{Beyond, ExportError, ExportOptions, ExportPlan, ExportSource};
use std::ops::Range;
use std::path::Path;

/// A written GGUF.
pub struct Written {
    /// What was planned in the end.
    pub plan: ExportPlan,
    /// Bytes of the file.
    pub bytes: u64,
    /// Tensors with another type than they were to have.
    pub widened: Vec<Beyond>,
}

/// Writes the file, and a second time with wider types where they did not hold the weights.
pub fn write(
    source: ExportSource<'_>,
    mut options: ExportOptions,
    path: &Path,
    weights: &Weights,
    progress: &dyn Fn(u64),
) -> Result<Written, Failure> {
    let mut read = |name: &str, rows: Range<usize>, out: &mut [f32]| -> Result<(), ReadError> {
        weights.read_rows(name, rows, out)
    };
    let mut plan = ExportPlan::new(source, &options)?;
    let mut widened: Vec<Beyond> = Vec::new();
    loop {
        match plan.write(path, &mut read, progress) {
            Ok(bytes) => return Ok(Written { plan, bytes, widened }),
            Err(ExportError::Beyond { tensors })
                if tensors.iter().all(|beyond| !widened.iter().any(|other| other.name == beyond.name)) =>
            {
                options.overrides.extend(tensors.iter().map(|beyond| (beyond.name.clone(), beyond.holds)));
                widened.extend(tensors);
                plan = ExportPlan::new(source, &options)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// A line for each tensor that got another type.
pub fn lines(widened: &[Beyond]) -> String {
    let line = |beyond: &Beyond| {
        format!(
            "{} is {} instead of {}, which does not hold its weights (the largest is {:e})\n",
            units::printable(&beyond.name),
            beyond.holds,
            beyond.kind,
            beyond.largest,
        )
    };
    widened.iter().map(line).collect()
}

/// The same as JSON.
pub fn json(widened: &[Beyond]) -> Vec<serde_json::Value> {
    let one = |beyond: &Beyond| {
        serde_json::json!({
            "tensor": beyond.name, "type": beyond.holds.name(), "instead_of": beyond.kind.name(),
            "largest": beyond.largest,
        })
    };
    widened.iter().map(one).collect()
}
