//! Rows and bytes of tensors by positioned reads.

use crate::read_at::read_exact_at;
use crate::tensor::Span;
use crate::{Checkpoint, MappedWeights, ReadError, SourceTensor};
use gq_tensor::decode_f32;
use std::ops::Range;

/// Bytes read at once: large enough for a disk, small enough to stay in a cache.
const CHUNK_BYTES: usize = 1 << 18;

impl Checkpoint {
    /// Reads rows as f32 into `out`, `[rows.len(), cols]`; F8 scales are applied and adapters merged.
    ///
    /// Rows of a 3-D tensor are those of all its matrices in turn. Any number of threads may read.
    ///
    /// # Errors
    /// When rows are out of range, `out` has another length, the disk fails, or a value is not finite in f32.
    pub fn read_rows_f32(
        &self,
        tensor: &SourceTensor,
        rows: Range<usize>,
        out: &mut [f32],
    ) -> Result<(), ReadError> {
        check_rows(tensor, &rows, out.len())?;
        let (row_bytes, cols) = (tensor.row_bytes(), tensor.cols());
        if out.is_empty() {
            return Ok(());
        }
        let step = (CHUNK_BYTES / row_bytes).max(1);
        let mut buffer = vec![0; step.min(rows.len()) * row_bytes];
        for (first, part) in (rows.start..rows.end).step_by(step).zip(out.chunks_mut(step * cols)) {
            let now = part.len() / cols;
            let bytes = buffer.get_mut(..now * row_bytes).unwrap_or_default();
            let start = |row: usize| row as u64 * row_bytes as u64;
            if tensor.row_unit() == 1 {
                self.read_bytes(tensor, start(first)..start(first + now), bytes)?;
            } else {
                for (row, bytes) in (first..).zip(bytes.chunks_exact_mut(row_bytes)) {
                    let stored = tensor.stored_row(row);
                    self.read_bytes(tensor, start(stored)..start(stored + 1), bytes)?;
                }
            }
            self.decode_rows_f32(tensor, first..first + now, bytes, part)?;
        }
        Ok(())
    }

    /// Decodes the bytes of rows, each as it is in the file, to f32 `[rows.len(), cols]`; F8 scales are applied
    /// and adapters merged.
    ///
    /// For callers that read files themselves. `rows` says which rows the bytes are; see
    /// [`SourceTensor::order_rows`].
    ///
    /// # Errors
    /// When rows are out of range, a buffer has another length, or a value is not finite in f32.
    pub fn decode_rows_f32(
        &self,
        tensor: &SourceTensor,
        rows: Range<usize>,
        bytes: &[u8],
        out: &mut [f32],
    ) -> Result<(), ReadError> {
        check_rows(tensor, &rows, out.len())?;
        let expected = rows.len() * tensor.row_bytes();
        if bytes.len() != expected {
            let (name, actual) = (tensor.name.clone(), bytes.len());
            return Err(ReadError::WrongBuffer { name, expected, actual });
        }
        match (tensor.gguf, tensor.assembly) {
            (Some(storage), _) => storage.decode(tensor.shape.len() == 1, bytes, out),
            (None, assembly) => {
                let rows = bytes.chunks_exact(tensor.row_bytes().max(1));
                let mut rows = rows.zip(out.chunks_exact_mut(tensor.cols().max(1)));
                let coded =
                    assembly.is_some_and(|assembly| rows.all(|(row, out)| assembly.decode_row(row, out)));
                if !coded {
                    decode_f32(tensor.dtype, bytes, out);
                }
            }
        }
        if let Some(scale) = self.scale(tensor) {
            scale.apply(rows.clone(), tensor.cols(), out);
        }
        if let Some(merge) = self.merge() {
            merge.apply(tensor, rows.clone(), out)?;
        }
        check_finite(tensor, rows.start, out)
    }

    /// Decodes rows of a mapped tensor to f32 `[rows.len(), cols]`, in the tensor's order; F8 scales are applied and
    /// adapters merged. Any number of threads may decode.
    ///
    /// # Errors
    /// When rows are out of range, `out` has another length, an adapter cannot be read, or a value is not finite in
    /// f32.
    pub fn decode_mapped_rows_f32(
        &self,
        weights: &MappedWeights,
        tensor: &SourceTensor,
        rows: Range<usize>,
        out: &mut [f32],
    ) -> Result<(), ReadError> {
        check_rows(tensor, &rows, out.len())?;
        let (row_bytes, cols) = (tensor.row_bytes(), tensor.cols());
        if let Some(assembly) = tensor.assembly {
            let mut bytes = vec![0; rows.len() * row_bytes];
            let fetch = |piece: usize, offset: u64, out: &mut [u8]| {
                let span = tensor.span_of_piece(piece, offset, out.len());
                let read = span.map(|span| weights.span(span)).filter(|read| read.len() == out.len());
                let read = read.ok_or_else(|| outside(tensor))?;
                out.copy_from_slice(read);
                Ok(())
            };
            assembly.gather(tensor.matrices(), rows.clone(), fetch, &mut bytes)?;
            return self.decode_rows_f32(tensor, rows, &bytes, out);
        }
        let spans = |rows: Range<usize>| {
            let bytes = |row: usize| row as u64 * row_bytes as u64;
            tensor.spans(bytes(rows.start)..bytes(rows.end))
        };
        if tensor.row_unit() == 1 {
            let (mut first, mut out) = (rows.start, out);
            for span in spans(rows) {
                // A piece is whole rows.
                let now = span.bytes as usize / row_bytes.max(1);
                let place = (now * cols).min(out.len());
                let (part, rest) = std::mem::take(&mut out).split_at_mut(place);
                self.decode_rows_f32(tensor, first..first + now, weights.span(span), part)?;
                (first, out) = (first + now, rest);
            }
            return Ok(());
        }
        for (row, out) in rows.zip(out.chunks_exact_mut(cols.max(1))) {
            let at = tensor.stored_row(row);
            let bytes = spans(at..at + 1).first().map_or(&[][..], |span| weights.span(*span));
            self.decode_rows_f32(tensor, row..row + 1, bytes, out)?;
        }
        Ok(())
    }

    /// Reads a range of a tensor's bytes, as they stand in the file, into `out`; of a tensor that is put together those of
    /// whole rows.
    ///
    /// # Errors
    /// When the range is out of range or no rows, `out` has another length, or the disk fails.
    pub fn read_bytes(
        &self,
        tensor: &SourceTensor,
        range: Range<u64>,
        out: &mut [u8],
    ) -> Result<(), ReadError> {
        let name = || tensor.name.clone();
        if range.start > range.end || range.end > tensor.bytes {
            return Err(ReadError::BytesOutOfRange { name: name(), range, actual: tensor.bytes });
        }
        let expected = range.end - range.start;
        if out.len() as u64 != expected {
            let expected = usize::try_from(expected).unwrap_or(usize::MAX);
            return Err(ReadError::WrongBuffer { name: name(), expected, actual: out.len() });
        }
        if let Some(assembly) = tensor.assembly {
            let row_bytes = tensor.row_bytes().max(1) as u64;
            if !range.start.is_multiple_of(row_bytes) || !range.end.is_multiple_of(row_bytes) {
                return Err(ReadError::BytesOutOfRange { name: name(), range, actual: tensor.bytes });
            }
            let rows = (range.start / row_bytes) as usize..(range.end / row_bytes) as usize;
            let fetch = |piece: usize, offset: u64, out: &mut [u8]| {
                let span = tensor.span_of_piece(piece, offset, out.len());
                self.read_span(span.ok_or_else(|| outside(tensor))?, out)
                    .unwrap_or_else(|| Err(outside(tensor)))
            };
            return assembly.gather(tensor.matrices(), rows, fetch, out);
        }
        let mut out = out;
        for span in tensor.spans(range.clone()) {
            let now = usize::try_from(span.bytes).unwrap_or(usize::MAX).min(out.len());
            let (part, rest) = std::mem::take(&mut out).split_at_mut(now);
            out = rest;
            let outside =
                || Err(ReadError::BytesOutOfRange { name: name(), range: range.clone(), actual: 0 });
            self.read_span(span, part).unwrap_or_else(outside)?;
        }
        Ok(())
    }

    /// Bytes of a weight file; `None` where there is no such file.
    fn read_span(&self, span: Span, out: &mut [u8]) -> Option<Result<(), ReadError>> {
        let (handle, file) = self.handles().get(span.file).zip(self.files().get(span.file))?;
        let failed = |source| ReadError::Io { path: file.path.clone(), source };
        Some(read_exact_at(handle, out, span.offset).map_err(failed))
    }
}

/// A piece that lies outside its file.
fn outside(tensor: &SourceTensor) -> ReadError {
    ReadError::BytesOutOfRange { name: tensor.name.clone(), range: 0..tensor.bytes, actual: 0 }
}

impl Checkpoint {
    /// Reads bytes of one of its files from `offset` on; those of weight files by the handle that everything else of
    /// them is read by, so that a file that was replaced under its name meanwhile is not mixed with the old one.
    ///
    /// # Errors
    /// When there is no such file, or the disk fails.
    pub fn read_file(&self, file: usize, offset: u64, out: &mut [u8]) -> Result<(), ReadError> {
        let Some(source) = self.files().get(file) else {
            let (name, end) = (format!("file {file}"), offset.saturating_add(out.len() as u64));
            return Err(ReadError::BytesOutOfRange { name, range: offset..end, actual: 0 });
        };
        let read = match self.handles().get(file) {
            Some(handle) => read_exact_at(handle, out, offset),
            None => std::fs::File::open(&source.path).and_then(|file| read_exact_at(&file, out, offset)),
        };
        read.map_err(|error| ReadError::Io { path: source.path.clone(), source: error })
    }
}

fn check_rows(tensor: &SourceTensor, rows: &Range<usize>, out: usize) -> Result<(), ReadError> {
    let name = || tensor.name.clone();
    if rows.start > rows.end || rows.end > tensor.rows() {
        return Err(ReadError::RowsOutOfRange { name: name(), rows: rows.clone(), actual: tensor.rows() });
    }
    let expected = rows.len() * tensor.cols();
    match out == expected {
        true => Ok(()),
        false => Err(ReadError::WrongBuffer { name: name(), expected, actual: out }),
    }
}

fn check_finite(tensor: &SourceTensor, first_row: usize, values: &[f32]) -> Result<(), ReadError> {
    let exponent = f32::INFINITY.to_bits();
    // One pass without a branch per value; the place is only looked for when there is one.
    let bad = values.iter().fold(false, |bad, value| bad | (value.to_bits() & exponent == exponent));
    let at = values.iter().position(|value| bad && !value.is_finite());
    match at {
        Some(at) => {
            let (row, col) = (first_row + at / tensor.cols(), at % tensor.cols());
            Err(ReadError::NotFinite { name: tensor.name.clone(), row, col, value: values[at] })
        }
        None => Ok(()),
    }
}
