//! What an error in a row costs, and what it costs in tables that are only looked up.

use super::error::CalibrateError;
use crate::FisherDiagonal;
use crate::measurements::{Measurements, TensorMeasured};
use gq_checkpoint::{Checkpoint, Role};

/// Tables are looked up: an error in a row goes where the row goes, whatever the token.
pub(super) fn lookups(
    measurements: &mut Measurements,
    checkpoint: &Checkpoint,
    wanted: &dyn Fn(&str) -> bool,
    gradients: &FisherDiagonal,
) -> Result<(), CalibrateError> {
    for tensor in checkpoint.tensors().iter().filter(|tensor| wanted(&tensor.name)) {
        let Some(squares) = gradients.lookups.get(&tensor.name) else { continue };
        add_lookup(measurements, checkpoint, &tensor.name, squares / gradients.positions.max(1) as f64)?;
    }
    Ok(())
}

/// Tables that nothing but looking up uses cost their own error, as products cost that of their outputs: trials, which
/// follow, say what that is worth.
pub(super) fn lookups_without_gradients(
    measurements: &mut Measurements,
    checkpoint: &Checkpoint,
) -> Result<(), CalibrateError> {
    let table = |role| matches!(role, Role::Embedding | Role::PerLayerTable);
    for tensor in checkpoint.tensors().iter().filter(|tensor| table(tensor.role)) {
        if !measurements.tensors.contains_key(&tensor.name) {
            add_lookup(measurements, checkpoint, &tensor.name, tensor.cols() as f64)?;
        }
    }
    Ok(())
}

/// `squares`: summed over columns, what a squared error in a row costs.
fn add_lookup(
    measurements: &mut Measurements,
    checkpoint: &Checkpoint,
    name: &str,
    squares: f64,
) -> Result<(), CalibrateError> {
    // Half of the mean squared gradient of a column times the mean squared element of the table.
    let rows = row_costs(checkpoint, name, None)?;
    let mean = rows.iter().sum::<f64>() / rows.len().max(1) as f64;
    let cost = mean * squares;
    let measured = measurements.tensors.entry(name.to_owned()).or_insert_with(|| TensorMeasured {
        inputs: Vec::new(),
        sensitivity: 0.0,
        nearest_sensitivity: 0.0,
    });
    measured.sensitivity += cost;
    measured.nearest_sensitivity += cost;
    Ok(())
}

/// `1/2 g_i^2 ||w_i||^2 / n` of every row: what a unit of relative error costs per unit of the input's cost.
pub(super) fn row_costs(
    checkpoint: &Checkpoint,
    name: &str,
    gradients: Option<&FisherDiagonal>,
) -> Result<Vec<f64>, CalibrateError> {
    let Some(tensor) = checkpoint.tensor(name) else { return Ok(Vec::new()) };
    let cols = tensor.cols();
    let rows = tensor.shape.iter().rev().skip(1).product::<usize>();
    let sums = gradients.and_then(|gradients| gradients.rows.get(name));
    let mut values = vec![0.0; cols];
    let mut costs = Vec::with_capacity(rows);
    for row in 0..rows {
        checkpoint.read_rows_f32(tensor, row..row + 1, &mut values)?;
        let energy: f64 = values.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        let gradient = match sums.and_then(|sums| sums.get(row)) {
            Some(sum) => sum / gradients.map_or(1.0, |gradients| gradients.positions.max(1) as f64),
            None => 1.0,
        };
        costs.push(0.5 * gradient * energy / cols as f64);
    }
    Ok(costs)
}
