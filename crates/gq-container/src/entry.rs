//! Tensors in the table: what is declared before the payload is written, and what is known after.

use crate::digest::{Digest, Hasher};
use crate::limits;
use crate::rule::TensorRule;
use gq_tensor::{
    CodedRows, DType, Encoding, MatrixShape, RotationKind, RotationSpec, ShapeMismatch, Storage,
};
use serde::{Deserialize, Serialize};

/// Bytes of a table entry before its name.
pub(crate) const FIXED_BYTES: usize = 96;

/// A tensor to be stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorSpec {
    /// Name, as in the source.
    pub name: String,
    /// `[rows, cols]`, `[experts, rows, cols]`, a vector `[n]`, or `[]` for one value.
    pub shape: Vec<u64>,
    /// How elements are stored.
    pub encoding: Encoding,
    /// The basis the elements are in.
    pub rotation: RotationSpec,
    /// Element type in the source.
    pub source_dtype: DType,
}

/// A stored tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorEntry {
    /// Name, as in the source.
    pub name: String,
    /// `[rows, cols]`, `[experts, rows, cols]`, a vector `[n]`, or `[]` for one value.
    pub shape: Vec<u64>,
    /// How elements are stored.
    pub encoding: Encoding,
    /// The basis the elements are in.
    pub rotation: RotationSpec,
    /// Element type in the source.
    pub source_dtype: DType,
    /// Where the payload begins in the file.
    pub offset: u64,
    /// Length of the payload.
    pub bytes: u64,
    /// Digest of the payload.
    pub sha256: Digest,
}

impl TensorSpec {
    /// The payload's matrix: leading dimensions multiplied are its rows, the last one its columns.
    ///
    /// # Errors
    /// When a rule of the format is broken.
    pub fn matrix_shape(&self) -> Result<MatrixShape, TensorRule> {
        matrix_shape(&self.shape)
    }

    /// The payload's length, once every rule of the format is checked.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn payload_bytes(&self) -> Result<u64, TensorRule> {
        check_name(self.name.len())?;
        check_basis(self.encoding, self.rotation)?;
        if self.encoding.code() == 0 {
            return Err(TensorRule::Encoding { actual: 0 });
        }
        payload_bytes(&self.shape, self.encoding)
    }

    pub(crate) fn into_entry(self, offset: u64, bytes: u64, sha256: Digest) -> TensorEntry {
        let TensorSpec { name, shape, encoding, rotation, source_dtype } = self;
        TensorEntry { name, shape, encoding, rotation, source_dtype, offset, bytes, sha256 }
    }
}

impl TensorEntry {
    /// What was declared before the payload was written.
    pub fn spec(&self) -> TensorSpec {
        TensorSpec {
            name: self.name.clone(),
            shape: self.shape.clone(),
            encoding: self.encoding,
            rotation: self.rotation,
            source_dtype: self.source_dtype,
        }
    }

    /// Encoding and basis.
    pub fn storage(&self) -> Storage {
        Storage::new(self.encoding, self.rotation)
    }

    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().fold(1, |elements, d| elements.saturating_mul(*d))
    }

    /// Views `payload` as the tensor's matrix: leading dimensions multiplied are its rows, and each matrix of the last
    /// two dimensions is coded by itself.
    ///
    /// # Errors
    /// When the payload is another tensor's.
    pub fn matrix<'a>(&self, payload: &'a [u8]) -> Result<CodedRows<'a>, ShapeMismatch> {
        let actual = payload.len() as u64;
        let shape = matrix_shape(&self.shape).map_err(|_| ShapeMismatch { expected: None, actual })?;
        CodedRows::of_payload(self.encoding, shape, payload)
    }

    /// The entry's bytes in the table.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let dimension = |i: usize| self.shape.get(i).copied().unwrap_or(0);
        out.extend(self.offset.to_le_bytes());
        out.extend(self.bytes.to_le_bytes());
        out.extend(self.rotation.seed.to_le_bytes());
        (0..limits::RANK).for_each(|i| out.extend(dimension(i).to_le_bytes()));
        out.extend(self.sha256.0);
        out.extend(self.encoding.code().to_le_bytes());
        out.extend([self.rotation.kind.code(), dtype_code(self.source_dtype), self.shape.len() as u8, 0]);
        out.extend((self.name.len() as u16).to_le_bytes());
        out.extend(self.name.as_bytes());
    }

    /// Takes one entry off the front of `table`, every rule checked that concerns the entry alone.
    pub(crate) fn read(table: &mut &[u8]) -> Result<TensorEntry, (String, TensorRule)> {
        let nameless = |rule| (String::new(), rule);
        let Some((fixed, rest)) = table.split_first_chunk::<FIXED_BYTES>() else {
            let (limit, actual) = (FIXED_BYTES as u64, table.len() as u64);
            return Err(nameless(TensorRule::Truncated { limit, actual }));
        };
        let mut fields = Fields(fixed);
        let (offset, bytes, seed) = (fields.u64(), fields.u64(), fields.u64());
        let dimensions: [u64; limits::RANK] = std::array::from_fn(|_| fields.u64());
        let sha256 = Digest(fields.take());
        let code = fields.u16();
        let [kind, dtype, rank, reserved] = fields.take();
        let name_bytes = usize::from(fields.u16());
        check_name(name_bytes).map_err(nameless)?;
        let Some((name, rest)) = rest.split_at_checked(name_bytes) else {
            let (limit, actual) = (name_bytes as u64, rest.len() as u64);
            return Err(nameless(TensorRule::Truncated { limit, actual }));
        };
        *table = rest;
        let name = std::str::from_utf8(name)
            .map_err(|error| nameless(TensorRule::NameUtf8 { at: error.valid_up_to() }))?;
        let checked = || {
            if reserved != 0 {
                return Err(TensorRule::Reserved { actual: reserved });
            }
            let rank = usize::from(rank);
            let Some((shape, unused)) = dimensions.split_at_checked(rank) else {
                return Err(TensorRule::Rank { limit: limits::RANK, actual: rank });
            };
            if let Some(actual) = unused.iter().find(|d| **d != 0) {
                return Err(TensorRule::UnusedDimension { actual: *actual });
            }
            let encoding = Encoding::from_code(code).ok_or(TensorRule::Encoding { actual: code })?;
            let kind = RotationKind::from_code(kind).ok_or(TensorRule::Rotation { actual: kind })?;
            let rotation = RotationSpec { kind, seed };
            check_basis(encoding, rotation)?;
            let source_dtype = dtype_of(dtype).ok_or(TensorRule::SourceDType { actual: dtype })?;
            let limit = payload_bytes(shape, encoding)?;
            if bytes != limit {
                return Err(TensorRule::Bytes { limit, actual: bytes });
            }
            Ok(TensorEntry {
                name: name.to_owned(),
                shape: shape.to_vec(),
                encoding,
                rotation,
                source_dtype,
                offset,
                bytes,
                sha256,
            })
        };
        checked().map_err(|rule| (name.to_owned(), rule))
    }
}

/// The digest of all tensors: entries by ascending name (bytewise), each with its offset as zero.
pub(crate) fn payload_digest(entries: &[TensorEntry]) -> Digest {
    let mut by_name: Vec<&TensorEntry> = entries.iter().collect();
    by_name.sort_unstable_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
    let mut hasher = Hasher::default();
    let mut bytes = Vec::new();
    for entry in by_name {
        bytes.clear();
        entry.write(&mut bytes);
        if let Some(offset) = bytes.first_chunk_mut::<8>() {
            offset.fill(0);
        }
        hasher.update(&bytes);
    }
    hasher.finish()
}

fn check_name(actual: usize) -> Result<(), TensorRule> {
    match actual {
        1..=limits::NAME_BYTES => Ok(()),
        _ => Err(TensorRule::NameLength { limit: limits::NAME_BYTES, actual }),
    }
}

/// Exact elements and grids are the source's: no rotation, and nothing that a seed could select.
fn check_basis(encoding: Encoding, rotation: RotationSpec) -> Result<(), TensorRule> {
    match (encoding.is_exact() || encoding.is_grid(), rotation) {
        (false, _) | (true, RotationSpec::NONE) => Ok(()),
        (true, RotationSpec { kind: RotationKind::None, seed }) => Err(TensorRule::Seed { actual: seed }),
        (true, RotationSpec { kind, .. }) => Err(TensorRule::RotatedExact { actual: kind }),
    }
}

fn matrix_shape(shape: &[u64]) -> Result<MatrixShape, TensorRule> {
    if shape.len() > limits::RANK {
        return Err(TensorRule::Rank { limit: limits::RANK, actual: shape.len() });
    }
    if let Some(actual) = shape.iter().find(|d| !(1..=limits::DIMENSION).contains(*d)) {
        return Err(TensorRule::Dimension { limit: limits::DIMENSION, actual: *actual });
    }
    MatrixShape::of_tensor(shape).ok_or_else(|| TensorRule::Overflow { shape: shape.to_vec() })
}

fn payload_bytes(shape: &[u64], encoding: Encoding) -> Result<u64, TensorRule> {
    let matrix = matrix_shape(shape)?;
    if !encoding.supports_cols(matrix.cols) {
        return Err(TensorRule::Width { encoding, actual: matrix.cols });
    }
    matrix.payload_bytes(encoding).ok_or_else(|| TensorRule::Overflow { shape: shape.to_vec() })
}

/// The number of a source dtype in `formats/container.md`.
fn dtype_code(dtype: DType) -> u8 {
    match dtype {
        DType::F32 => 1,
        DType::F16 => 2,
        DType::BF16 => 3,
        DType::F8E4M3 => 4,
        DType::F8E5M2 => 5,
        DType::F64 => 6,
        DType::I64 => 7,
        DType::I32 => 8,
        DType::I16 => 9,
        DType::I8 => 10,
        DType::U8 => 11,
        DType::Bool => 12,
    }
}

fn dtype_of(code: u8) -> Option<DType> {
    DType::ALL.into_iter().find(|dtype| dtype_code(*dtype) == code)
}

/// Little-endian fields taken off the front; zeros once nothing is left.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl Fields<'_> {
    pub(crate) fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk::<N>() {
            Some((field, rest)) => {
                self.0 = rest;
                *field
            }
            None => [0; N],
        }
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}
