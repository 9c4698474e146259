//! A weight matrix in place: in a checkpoint's mapped files or in a container.

use crate::LoadError;
use crate::decoded::DecodedRows;
use crate::ids::WeightId;
use crate::input::Input;
use gq_checkpoint::{MappedWeights, SourceTensor};
use gq_codec::{Decoder, Rotation};
use gq_container::{Container, TensorEntry};
use gq_tensor::{CodedRows, Encoding, Isa, MatrixShape, RotationKind, RotationSpec, Storage};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// A stored matrix `[rows, cols]` with its decoder, and the bias of the projection it belongs to.
///
/// A 3-D tensor `[experts, rows, cols]` is a matrix of `experts * rows` rows.
#[derive(Clone, Debug)]
pub struct Linear {
    pub(crate) id: WeightId,
    pub(crate) name: String,
    pub(crate) bytes: Bytes,
    /// Matrices stacked are those of experts.
    pub(crate) shape: MatrixShape,
    pub(crate) rotation: RotationSpec,
    pub(crate) decoder: Decoder,
    /// `None` where rows are stored as they are.
    pub(crate) transform: Option<Arc<Rotation>>,
    pub(crate) bias: Option<Vec<f32>>,
    /// Whether inputs stay f32 in every mode: a router, where a small error chooses another expert.
    pub(crate) precise: bool,
    /// `eps` of the RMS norm over all outputs of a token that comes right after, where one does.
    pub(crate) normed: Option<f32>,
}

/// Where a payload is.
#[derive(Clone, Debug)]
pub(crate) enum Bytes {
    /// In a mapped file of a checkpoint.
    Mapped(Arc<MappedWeights>, SourceTensor),
    /// In a container.
    Contained(Arc<Container>, TensorEntry),
    /// In memory.
    Owned(Arc<[u8]>),
    /// In mapped files of a checkpoint, each expert's matrices by themselves.
    Stacked(Arc<MappedWeights>, SourceTensor),
    /// In a mapped file, decoded as it is read.
    Decoded(Arc<DecodedRows>),
}

impl Linear {
    /// A matrix, or several that are stacked, in memory: a payload as a container stores it.
    ///
    /// # Errors
    /// When the encoding or the rotation does not exist at this width, or the payload has another length.
    pub fn in_memory(
        name: &str,
        storage: Storage,
        shape: MatrixShape,
        payload: Vec<u8>,
    ) -> Result<Linear, LoadError> {
        let (rotation, cols) = (storage.rotation, shape.cols);
        if CodedRows::of_payload(storage.encoding, shape, &payload).is_err() {
            let (actual, expected) = (vec![payload.len()], vec![shape.rows, cols]);
            return Err(LoadError::Shape { name: name.to_owned(), actual, expected });
        }
        let decoder = Decoder::new(storage, cols);
        let decoder = decoder.map_err(|source| LoadError::Codec { name: name.to_owned(), source })?;
        let transform = match rotation.kind {
            RotationKind::None => None,
            _ => {
                let transform = Rotation::new(rotation, cols);
                Some(transform.map_err(|source| LoadError::Rotation { name: name.to_owned(), source })?)
            }
        };
        Ok(Linear {
            id: WeightId::unique(),
            name: name.to_owned(),
            bytes: Bytes::Owned(payload.into()),
            shape,
            rotation,
            decoder,
            transform: transform.map(Arc::new),
            bias: None,
            precise: false,
            normed: None,
        })
    }

    /// The same weights with a bias `[rows]`, or without one.
    #[must_use]
    pub fn with_bias(self, bias: Option<Vec<f32>>) -> Linear {
        Linear { bias, ..self }
    }

    /// These weights in the place of `other` in a graph: with its bias, and followed by what follows it.
    #[must_use]
    pub fn in_place_of(&self, other: &Linear) -> Linear {
        Linear { bias: other.bias.clone(), precise: other.precise, normed: other.normed, ..self.clone() }
    }

    /// The same matrix with another payload of the same encoding; `None` when it is not one.
    pub fn with_payload(&self, payload: &[u8]) -> Option<Linear> {
        CodedRows::of_payload(self.encoding(), self.shape, payload).ok()?;
        Some(Linear { id: WeightId::unique(), bytes: Bytes::Owned(payload.into()), ..self.clone() })
    }

    /// Its number: the same for every clone, another one for another payload.
    pub fn id(&self) -> WeightId {
        self.id
    }

    /// Canonical name of the tensor.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Outputs and inputs.
    pub fn shape(&self) -> MatrixShape {
        self.shape
    }

    /// `eps` of the RMS norm over all outputs of a token that comes right after, where one does.
    pub fn normed(&self) -> Option<f32> {
        self.normed
    }

    /// How elements are stored.
    pub fn encoding(&self) -> Encoding {
        self.decoder.encoding()
    }

    /// Added to the outputs, `[rows]`.
    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
    }

    /// The basis that rows are stored in.
    pub fn rotation(&self) -> RotationSpec {
        self.rotation
    }

    /// Decodes rows to `out [rows.len(), cols]`, as they were before they were rotated.
    ///
    /// # Panics
    /// When rows are out of range or `out` has another length.
    pub fn read_rows(&self, level: Isa, rows: Range<usize>, out: &mut [f32]) {
        self.read_rotated_rows(level, rows, out);
        if let Some(transform) = &self.transform {
            transform.inverse(level, out, &mut Vec::new());
        }
    }

    /// Decodes rows to `out [rows.len(), cols]`, in the basis they are stored in.
    pub(crate) fn read_rotated_rows(&self, level: Isa, rows: Range<usize>, out: &mut [f32]) {
        assert_eq!(out.len(), rows.len() * self.shape.cols, "rows to read");
        if let Bytes::Decoded(decoded) = &self.bytes {
            return decoded.read(rows, out);
        }
        if let Bytes::Stacked(weights, tensor) = &self.bytes {
            return self.in_pieces(weights.pieces_of_rows(tensor, rows), out, |matrix, rows, part| {
                self.decoder.decode_rows(level, matrix, rows, part);
            });
        }
        let matrix = self.matrix();
        self.decoder.decode_rows(level, &matrix, rows, out);
    }

    /// `out[i]` = inner product of row `rows.start + i` and an input in the same basis.
    pub(crate) fn dot_rows(&self, level: Isa, rows: Range<usize>, input: &Input, out: &mut [f32]) {
        if let Bytes::Decoded(decoded) = &self.bytes {
            return decoded.dot(level, &self.decoder, rows, input, out);
        }
        let dot = |matrix: &CodedRows<'_>, rows: Range<usize>, out: &mut [f32]| match &input.int8 {
            Some(int8) => self.decoder.dot_rows(level, matrix, rows, int8, out),
            None => self.decoder.dot_rows_f32(level, matrix, rows, &input.values, out),
        };
        match &self.bytes {
            Bytes::Stacked(weights, tensor) => {
                self.in_pieces(weights.pieces_of_rows(tensor, rows), out, dot);
            }
            _ => dot(&self.matrix(), rows, out),
        }
    }

    /// `work(matrix, its rows, their part of out)` for the rows of each piece.
    fn in_pieces(
        &self,
        pieces: Vec<&[u8]>,
        out: &mut [f32],
        mut work: impl FnMut(&CodedRows<'_>, Range<usize>, &mut [f32]),
    ) {
        let row_bytes = self.encoding().codes_row_bytes(self.shape.cols).max(1);
        let total = pieces.iter().map(|piece| piece.len() / row_bytes).sum::<usize>();
        let (each, mut rest) = (out.len() / total.max(1), out);
        for piece in pieces {
            let shape = MatrixShape { matrices: 1, rows: piece.len() / row_bytes, cols: self.shape.cols };
            let (part, behind) = std::mem::take(&mut rest).split_at_mut(shape.rows * each);
            match CodedRows::of_payload(self.encoding(), shape, piece) {
                Ok(matrix) => work(&matrix, 0..shape.rows, part),
                Err(_) => unreachable!("{} was checked when it was loaded", self.name),
            }
            rest = behind;
        }
    }

    /// The payload, in one piece; `None` where there is none, but values that are made as they are read.
    pub(crate) fn stored_bytes(&self) -> Option<Cow<'_, [u8]>> {
        match &self.bytes {
            Bytes::Mapped(weights, tensor) => Some(weights.bytes(tensor).into()),
            Bytes::Contained(container, entry) => Some(container.payload(entry).into()),
            Bytes::Owned(bytes) => Some(Cow::Borrowed(bytes)),
            Bytes::Stacked(weights, tensor) => {
                Some(weights.pieces_of_rows(tensor, 0..self.shape.rows).concat().into())
            }
            Bytes::Decoded(_) => None,
        }
    }

    /// Payload as a matrix, of weights that have one.
    pub(crate) fn matrix(&self) -> CodedRows<'_> {
        let bytes = match &self.bytes {
            Bytes::Mapped(weights, tensor) => weights.bytes(tensor),
            Bytes::Contained(container, entry) => container.payload(entry),
            Bytes::Owned(bytes) => bytes,
            Bytes::Decoded(_) | Bytes::Stacked(..) => unreachable!("{} has no payload", self.name),
        };
        match CodedRows::of_payload(self.encoding(), self.shape, bytes) {
            Ok(matrix) => matrix,
            Err(_) => unreachable!("{} was checked when it was loaded", self.name),
        }
    }
}
