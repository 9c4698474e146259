//! What happens to one tensor of the source.

use gq_tensor::{DType, Encoding, MatrixShape, RotationSpec, Storage};
use serde::{Deserialize, Serialize};

/// What happens to one tensor of the source that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The tensor's name.
    pub tensor: String,
    /// Its part in the graph, in words.
    pub role: String,
    /// Its shape in the source.
    pub shape: Vec<u64>,
    /// Its dtype in the source.
    pub source_dtype: DType,
    /// Its bytes in the source.
    pub source_bytes: u64,
    /// How it will be stored.
    pub encoding: Encoding,
    /// The basis it will be stored in.
    pub rotation: RotationSpec,
    /// Bytes of the payload, alignment aside.
    pub bytes: u64,
    /// Why it is stored so.
    pub reason: String,
    /// Whether the tensor counts as body: everything but embedding tables, the head and towers.
    pub body: bool,
    /// Whether it is rounded with its inputs in view.
    #[serde(default)]
    pub calibrated: bool,
    /// Rows that the source keeps in another order among themselves, read together; 1 but for heads in a GGUF.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub row_unit: usize,
}

fn one() -> usize {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde calls it
fn is_one(unit: &usize) -> bool {
    *unit == 1
}

impl Step {
    /// Elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// The payload's matrices: those of experts are stacked; a vector is one row.
    pub fn matrix(&self) -> MatrixShape {
        // A tensor of the source is in memory by its shape: its numbers fit in a usize.
        MatrixShape::of_tensor(&self.shape).unwrap_or(MatrixShape::new(0, 0))
    }

    /// Encoding and basis.
    pub fn storage(&self) -> Storage {
        Storage::new(self.encoding, self.rotation)
    }

    /// Rows that cannot be cut apart when the source is read: whole strips of whole units.
    pub(crate) fn whole_rows(&self) -> usize {
        let (strip, unit) = (self.encoding.strip_rows(), self.row_unit.max(1));
        (1..=unit).map(|n| n * strip).find(|rows| rows.is_multiple_of(unit)).unwrap_or(strip * unit)
    }
}

/// A tensor of the source that is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// The tensor's name.
    pub tensor: String,
    /// Its bytes in the source.
    pub source_bytes: u64,
    /// Why.
    pub reason: String,
}

/// Tensors left out for one reason, summed up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Why.
    pub reason: String,
    /// How many.
    pub tensors: usize,
    /// Their bytes in the source: what is saved by not storing them.
    pub source_bytes: u64,
}

impl LeftOut {
    /// Sums by reason, in the order of the first tensor of each.
    pub(crate) fn sums(dropped: &[Dropped]) -> Vec<LeftOut> {
        let mut sums: Vec<LeftOut> = Vec::new();
        for tensor in dropped {
            let at = sums.iter().position(|sum| sum.reason == tensor.reason).unwrap_or_else(|| {
                sums.push(LeftOut { reason: tensor.reason.clone(), tensors: 0, source_bytes: 0 });
                sums.len() - 1
            });
            sums[at].tensors += 1;
            sums[at].source_bytes += tensor.source_bytes;
        }
        sums
    }
}
