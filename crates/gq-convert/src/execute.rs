//! Does what a plan says: reads, codes and writes three blocks of rows at a time, in order.
//!
//! Results do not depend on threads: a block's rows are coded in parallel, each row by itself,
//! and blocks follow each other in the order of the source's files.

use crate::encode::{Coded, Coders, NotFinite, RowCoder, first_not_finite};
use crate::error::ConvertError;
use crate::output::Output;
use crate::plan::Plan;
use crate::report::Report;
use crate::source::{Piece, SourceFile, SourceReader, Use, pieces};
use gq_checkpoint::Checkpoint;
use gq_tensor::{CpuLevel, DType, decode_f32};
use std::path::Path;

/// How to execute; nothing here changes the output's bytes.
#[derive(Clone, Copy, Debug)]
pub struct ExecuteOptions {
    /// Kernels to code with.
    pub level: CpuLevel,
    /// Discard an interrupted conversion to the same output.
    pub restart: bool,
}

/// What is reported while executing.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// An interrupted conversion is taken up.
    Resumed {
        /// Tensors that are done.
        tensors: usize,
    },
    /// More of the source has been read.
    Advanced {
        /// Bytes of tensors so far.
        bytes: u64,
        /// The tensor being read.
        tensor: &'a str,
    },
}

/// A piece on its way: source bytes in, payload bytes out.
#[derive(Default)]
struct Slot {
    source: Vec<u8>,
    coded: Coded,
    /// Digest of the source file up to here; only after a tensor's last rows.
    source_sha256: String,
}

/// Executes `plan` on its checkpoint and writes `path`, which appears only when it is complete.
///
/// Beside it lie `path.partial` and `path.journal` until then: run again after an interruption, the finished
/// tensors are kept and the file's bytes are the same.
///
/// # Errors
/// [`ConvertError`]: a source that cannot be read or holds values that are no numbers, an output that cannot be
/// written, or an interrupted conversion that was begun differently.
pub fn execute(
    plan: &Plan,
    checkpoint: &Checkpoint,
    path: &Path,
    options: ExecuteOptions,
    progress: &mut (dyn FnMut(Event<'_>) + Send),
) -> Result<Report, ConvertError> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(plan.memory.threads).build()?;
    pool.install(|| run(plan, checkpoint, path, options, progress))
}

fn run(
    plan: &Plan,
    checkpoint: &Checkpoint,
    path: &Path,
    options: ExecuteOptions,
    progress: &mut (dyn FnMut(Event<'_>) + Send),
) -> Result<Report, ConvertError> {
    let files = source_files(checkpoint);
    let pieces = pieces(plan, checkpoint.tensors(), &files);
    let mut output = Output::open(plan, checkpoint, path, options.restart)?;
    if output.finished() > 0 {
        progress(Event::Resumed { tensors: output.finished() });
    }
    let finished = output.finished();
    let coders = coders(plan, finished)?;
    let mut reader = SourceReader::new(files);
    // The three stages of a piece, one iteration apart: `reading` k, `coding` k - 1, `writing` k - 2.
    let (mut reading, mut coding, mut writing) = (Slot::default(), Slot::default(), Slot::default());
    let mut bytes = 0;
    for k in 0..pieces.len() + 2 {
        let to_read = pieces.get(k);
        let to_code = k.checked_sub(1).and_then(|k| pieces.get(k));
        let to_write = k.checked_sub(2).and_then(|k| pieces.get(k));
        let (read, (coded, written)) = rayon::join(
            || to_read.map_or(Ok(()), |piece| read(&mut reader, piece, &mut reading)),
            || {
                rayon::join(
                    || {
                        to_code.map_or(Ok(()), |piece| {
                            code(plan, &coders, piece, finished, options.level, &mut coding)
                        })
                    },
                    || to_write.map_or(Ok(()), |piece| write(&mut output, piece, &writing)),
                )
            },
        );
        // The earliest piece's failure is the one to tell.
        written?;
        coded?;
        read?;
        if let Some((Use::Rows { step, .. }, piece)) = to_read.map(|piece| (&piece.use_, piece)) {
            bytes += piece.bytes as u64;
            progress(Event::Advanced { bytes, tensor: &plan.steps[*step].tensor });
        }
        std::mem::swap(&mut writing, &mut coding);
        std::mem::swap(&mut coding, &mut reading);
    }
    output.finish(&reader.finish())
}

/// The weight files of a checkpoint.
pub(crate) fn source_files(checkpoint: &Checkpoint) -> Vec<SourceFile> {
    checkpoint.files().iter().map(|file| SourceFile { path: file.path.clone(), bytes: file.bytes }).collect()
}

/// One coder per step that is coded, shared among equals.
fn coders(plan: &Plan, finished: usize) -> Result<Vec<Option<RowCoder>>, ConvertError> {
    let mut coders = Coders::default();
    let coder = |(index, step): (usize, &crate::plan::Step)| {
        if index < finished || step.encoding.is_exact() {
            return Ok(None);
        }
        let (_, cols) = step.rows_cols();
        let coder = coders.get(step.encoding, step.rotation, cols);
        coder.map(Some).map_err(|source| ConvertError::Coder { tensor: step.tensor.clone(), source })
    };
    plan.steps.iter().enumerate().map(coder).collect()
}

fn read(reader: &mut SourceReader, piece: &Piece, slot: &mut Slot) -> Result<(), ConvertError> {
    let read = reader.read(piece, &mut slot.source);
    read.map_err(|(path, source)| ConvertError::Read { path, source })?;
    if let Use::Rows { last: true, .. } = piece.use_ {
        slot.source_sha256 = reader.prefix_digest();
    }
    Ok(())
}

fn code(
    plan: &Plan,
    coders: &[Option<RowCoder>],
    piece: &Piece,
    finished: usize,
    level: CpuLevel,
    slot: &mut Slot,
) -> Result<(), ConvertError> {
    let Use::Rows { step: index, rows, .. } = &piece.use_ else { return Ok(()) };
    if *index < finished {
        return Ok(());
    }
    let step = &plan.steps[*index];
    let Slot { source, coded, .. } = slot;
    let outcome = match &coders[*index] {
        Some(coder) => coder.code(level, step.source_dtype, source, rows.start, coded),
        None => copy(step.source_dtype, step.rows_cols().1, source, rows.start, coded),
    };
    outcome.map_err(|NotFinite { row, col }| ConvertError::NotFinite {
        tensor: step.tensor.clone(),
        row,
        col,
    })
}

/// Exact tensors: the source's bytes, once they are seen to be numbers.
fn copy(
    dtype: DType,
    cols: usize,
    source: &mut Vec<u8>,
    first: usize,
    coded: &mut Coded,
) -> Result<(), NotFinite> {
    const ELEMENTS: usize = 4096;
    let mut values = vec![0.0; ELEMENTS];
    for (chunk, bytes) in source.chunks(ELEMENTS * dtype.size()).enumerate() {
        let values = &mut values[..bytes.len() / dtype.size()];
        decode_f32(dtype, bytes, values);
        if let Some(at) = first_not_finite(values) {
            let element = chunk * ELEMENTS + at;
            return Err(NotFinite { row: first + element / cols, col: element % cols });
        }
    }
    std::mem::swap(source, &mut coded.codes);
    coded.scales.clear();
    coded.sums.clear();
    Ok(())
}

fn write(output: &mut Output<'_>, piece: &Piece, slot: &Slot) -> Result<(), ConvertError> {
    match &piece.use_ {
        Use::Rows { step, rows, last } => {
            output.rows(*step, rows.start == 0, *last, &slot.coded, &slot.source_sha256)
        }
        Use::Hash => Ok(()),
    }
}
