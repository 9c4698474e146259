//! What was done, as a value: written into the file and shown.
//!
//! Only what the source and the recipe decide is in it (no times, no threads), so that the file's bytes are too.

use crate::plan::{Dropped, LeftOut, Plan, Step};
use crate::round::OutputSums;
use gq_tensor::{DType, Encoding};
use serde::{Deserialize, Serialize};

/// One stored tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TensorReport {
    /// Its name.
    pub name: String,
    /// Its part in the graph.
    pub role: String,
    /// Its shape.
    pub shape: Vec<u64>,
    /// The source's dtype.
    pub source_dtype: DType,
    /// How it is stored.
    pub encoding: Encoding,
    /// Bytes stored, scales included.
    pub bytes: u64,
    /// Bits per element, scales included.
    pub bits: f64,
    /// Squared error over squared norm, in the rotated basis; 0 for exact tensors.
    pub relative_mse: f64,
    /// Squared error over squared norm of the outputs, on the tokens that decided the codes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_error: Option<f64>,
    /// The same on tokens that were held out, over a sample of rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out_error: Option<f64>,
    /// Why it is stored so, and who won where ways of rounding competed.
    pub reason: String,
}

/// A conversion's outcome.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Bytes of all tensors of the source.
    pub source_bytes: u64,
    /// Bytes of all payloads.
    pub payload_bytes: u64,
    /// Bytes of the payloads of the body: all but embedding tables, the head and towers.
    pub body_bytes: u64,
    /// Elements stored.
    pub elements: u64,
    /// Elements of the body.
    pub body_elements: u64,
    /// Bits per element over all payloads.
    pub bits: f64,
    /// Bits per element over the body.
    pub body_bits: f64,
    /// Squared error over squared norm, over all coded tensors together.
    pub relative_mse: f64,
    /// Stored tensors, in file order.
    pub tensors: Vec<TensorReport>,
    /// Tensors left out.
    pub dropped: Vec<Dropped>,
    /// The same, summed up by reason.
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
}

/// Sums of squared errors and squared weights of one tensor.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sums {
    pub error: f64,
    pub energy: f64,
    pub outputs: OutputSums,
}

impl Sums {
    fn relative_mse(self) -> f64 {
        if self.error == 0.0 { 0.0 } else { self.error / self.energy }
    }
}

impl Report {
    /// Puts together a plan and the sums of its steps, in the steps' order.
    pub(crate) fn new(plan: &Plan, sums: &[Sums]) -> Report {
        let tensor = |(step, sums): (&Step, &Sums)| TensorReport {
            name: step.tensor.clone(),
            role: step.role.clone(),
            shape: step.shape.clone(),
            source_dtype: step.source_dtype,
            encoding: step.encoding,
            bytes: step.bytes,
            bits: per_element(step.bytes, step.elements()),
            relative_mse: sums.relative_mse(),
            output_error: ratio(sums.outputs.error, sums.outputs.energy),
            held_out_error: ratio(sums.outputs.held_out_error, sums.outputs.held_out_energy),
            reason: reason(step, &sums.outputs),
        };
        let total = sums.iter().fold(Sums::default(), |total, sums| Sums {
            error: total.error + sums.error,
            energy: total.energy + sums.energy,
            outputs: OutputSums::default(),
        });
        let body = || plan.steps.iter().filter(|step| step.body);
        let elements = plan.steps.iter().map(Step::elements).sum();
        let (body_bytes, body_elements) = (body().map(|s| s.bytes).sum(), body().map(Step::elements).sum());
        Report {
            source_bytes: plan.source_bytes,
            payload_bytes: plan.payload_bytes,
            body_bytes,
            elements,
            body_elements,
            bits: per_element(plan.payload_bytes, elements),
            body_bits: per_element(body_bytes, body_elements),
            relative_mse: total.relative_mse(),
            tensors: plan.steps.iter().zip(sums).map(tensor).collect(),
            dropped: plan.dropped.clone(),
            left_out: plan.left_out.clone(),
        }
    }
}

/// The plan's reason, and who won where candidates competed.
fn reason(step: &Step, outputs: &OutputSums) -> String {
    match outputs.verdict(step.matrix().rows) {
        Some(verdict) => format!("{}; {verdict}", step.reason),
        None => step.reason.clone(),
    }
}

fn ratio(error: f64, energy: f64) -> Option<f64> {
    (energy > 0.0).then(|| error / energy)
}

fn per_element(bytes: u64, elements: u64) -> f64 {
    if elements == 0 { 0.0 } else { 8.0 * bytes as f64 / elements as f64 }
}
