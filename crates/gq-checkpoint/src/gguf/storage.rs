//! How a tensor of a model stands in a GGUF, and back to a checkpoint's values.

use super::GgmlType;
use super::transform::Transform;

/// Type in the file, and what a converter changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storage {
    pub(crate) kind: GgmlType,
    pub(crate) transform: Transform,
}

impl serde::Serialize for Storage {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.kind.name())
    }
}

impl Storage {
    /// Type in the file.
    pub fn kind(self) -> GgmlType {
        self.kind
    }

    /// Bytes of a row in the file.
    pub(crate) fn row_bytes(self, cols: usize) -> usize {
        self.kind.row_bytes(cols).unwrap_or(0) // blocks divide it: checked when the file was opened
    }

    /// Whether the bytes are a checkpoint's values in order.
    pub(crate) fn is_plain(self) -> bool {
        gq_tensor::ggml::plain(self.kind).is_some() && self.transform == Transform::None
    }

    /// Rows reordered among themselves: a head.
    pub(crate) fn row_unit(self, rows: usize) -> usize {
        match self.transform {
            Transform::Interleave { heads } => (rows / heads.max(1)).max(1),
            Transform::None | Transform::PlusOne => 1,
        }
    }

    /// Where row `row` of `rows` stands in the file.
    pub(crate) fn stored_row(self, row: usize, rows: usize) -> usize {
        self.transform.stored_row(row, rows)
    }

    /// Decodes the bytes of rows to a checkpoint's values; a vector is one row.
    pub(crate) fn decode(self, is_vector: bool, bytes: &[u8], out: &mut [f32]) {
        gq_tensor::ggml::decode_blocks(self.kind, bytes, out);
        match self.transform {
            Transform::None => {}
            Transform::PlusOne => out.iter_mut().for_each(|value| *value -= 1.0),
            // A bias: its elements are reordered as the rows of its matrix are.
            Transform::Interleave { .. } if is_vector => {
                let stored = out.to_vec();
                for (at, value) in out.iter_mut().enumerate() {
                    *value = stored[self.stored_row(at, stored.len())];
                }
            }
            Transform::Interleave { .. } => {}
        }
    }
}
