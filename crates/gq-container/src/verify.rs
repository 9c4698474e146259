//! Recomputes what the table says.

use crate::digest::Hasher;
use crate::entry::TensorEntry;
use crate::error::{Damage, VerifyError};
use crate::layout::slice;
use crate::rule::FormatError;
use crate::text_kind::TextKind;
use crate::validate::Layout;

/// Bytes between two calls of the progress callback.
const STEP_BYTES: usize = 8 << 20;

impl Layout {
    /// Recomputes every tensor's digest in `file`, the bytes that were validated, and reads every text of a known
    /// kind. `progress` gets the bytes of each step and the tensor they are of.
    ///
    /// # Errors
    /// All damaged tensors, or else the first text that cannot be read.
    pub fn verify(
        &self,
        file: &[u8],
        mut progress: impl FnMut(&TensorEntry, u64),
    ) -> Result<(), VerifyError> {
        let mut damaged = Vec::new();
        for tensor in self.tensors() {
            let mut hasher = Hasher::default();
            for step in slice(file, tensor.offset, tensor.bytes).chunks(STEP_BYTES) {
                hasher.update(step);
                progress(tensor, step.len() as u64);
            }
            let (limit, actual) = (tensor.sha256, hasher.finish());
            if limit != actual {
                damaged.push(Damage { name: tensor.name.clone(), limit, actual });
            }
        }
        if !damaged.is_empty() {
            return Err(VerifyError::Payloads { tensors: self.tensors().len(), damaged });
        }
        // Texts of other kinds need not be texts at all.
        for text in self.texts().iter().filter(|text| TextKind::from_code(text.kind).is_some()) {
            text.decode(file).map_err(|source| FormatError::Text { kind: text.kind, source })?;
        }
        self.provenance(file)?;
        Ok(())
    }
}
