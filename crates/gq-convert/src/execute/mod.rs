//! Does what plans say: reads, codes and writes three blocks of rows at a time, in order.
//!
//! Results do not depend on threads: a block's rows are coded in parallel, each row by itself,
//! and blocks follow each other in the order of the source's files. Nor do they depend on what else is made in the
//! same pass: each output has its own codes, journal and file, and only what is read is shared.

mod coder;
mod error;
mod journal;
mod options;
mod output;
mod report;
mod source_reader;

pub(crate) use coder::{Coder, Coding};
pub use error::ConvertError;
pub use journal::JournalError;
pub use options::{Check, CheckError, ExecuteOptions, Origin};
pub(crate) use output::stored_text_bytes;
pub use report::{Report, TensorReport};

use crate::plan::{Plan, Shared, Step, shared};
use crate::round::{Coded, Factors, StripBuffer};
use gq_calibrate::MeasurementsDir;
use gq_checkpoint::{Checkpoint, ReadError, TensorReader};
use gq_codec::Coders;
use gq_tensor::Isa;
use output::{Output, discard};
use source_reader::{Piece, SourceReader, Use, pieces};
use std::path::Path;

/// What is reported while executing.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// An interrupted conversion is taken up.
    Resumed {
        /// Tensors that are done.
        tensors: usize,
    },
    /// An output has its name.
    Finished {
        /// Which one.
        path: &'a Path,
    },
    /// More of the source has been read.
    Advanced {
        /// Bytes of tensors so far.
        bytes: u64,
        /// The tensor being read.
        tensor: &'a str,
    },
}

/// A piece on its way: source bytes in, payload bytes out for each output.
#[derive(Default)]
struct Slot {
    source: Vec<u8>,
    coded: Vec<Coded>,
    /// Digest of the source file up to here; only after a tensor's last rows.
    source_sha256: String,
}

/// Executes `plan` on its checkpoint and writes `path`, which appears only when it is complete.
///
/// Next to it lie `path.partial` and `path.journal` until then: run again after an interruption, the finished
/// tensors are kept and the file's bytes are the same.
///
/// # Errors
/// [`ConvertError`]: a source that cannot be read or holds values that are no numbers, an output that cannot be
/// written, or an interrupted conversion that was begun differently.
pub fn execute(
    plan: &Plan,
    checkpoint: &Checkpoint,
    path: &Path,
    options: ExecuteOptions<'_>,
    progress: &mut (dyn FnMut(Event<'_>) + Send),
) -> Result<Report, ConvertError> {
    Ok(execute_all(&[(plan, path)], checkpoint, options, progress)?.remove(0))
}

/// Executes several plans on one checkpoint in one pass over it: every byte of the source is read once, and what
/// calibration takes from its measurements is prepared once for all outputs that share it.
///
/// Each file has the bytes that [`execute`] gives it. Which outputs a pass can make within a memory limit,
/// [`passes`](crate::passes) says. After an interruption each output is taken up where it stopped.
///
/// # Errors
/// Those of [`execute`]; outputs that were finished before stay.
pub fn execute_all(
    outputs: &[(&Plan, &Path)],
    checkpoint: &Checkpoint,
    options: ExecuteOptions<'_>,
    progress: &mut (dyn FnMut(Event<'_>) + Send),
) -> Result<Vec<Report>, ConvertError> {
    let threads = outputs.iter().map(|(plan, _)| plan.memory.threads).max().unwrap_or(1);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let outcome = pool.install(|| run(outputs, checkpoint, options, progress));
    // A file that changed is the reason for whatever was found wrong in it.
    let outcome = outcome.map_err(|error| match checkpoint.check_unchanged() {
        Err(changed @ ReadError::Changed { .. }) => ConvertError::Values(changed),
        _ => error,
    });
    if let Err(ConvertError::Values(ReadError::NotFinite { .. } | ReadError::Changed { .. })) = &outcome {
        // Running the same again would end the same, or with parts of two states: nothing is left to take up.
        outputs.iter().try_for_each(|(_, path)| discard(path))?;
    }
    outcome
}

fn run(
    outputs: &[(&Plan, &Path)],
    checkpoint: &Checkpoint,
    options: ExecuteOptions<'_>,
    progress: &mut (dyn FnMut(Event<'_>) + Send),
) -> Result<Vec<Report>, ConvertError> {
    let plans: Vec<&Plan> = outputs.iter().map(|(plan, _)| *plan).collect();
    let foreign = plans.iter().flat_map(|plan| &plan.steps);
    if let Some(step) = foreign.into_iter().find(|step| checkpoint.tensor(&step.tensor).is_none()) {
        return Err(ConvertError::OtherSource { tensor: step.tensor.clone() });
    }
    let shared = shared(&plans, checkpoint);
    let block = plans.iter().map(|plan| plan.memory.block).min().unwrap_or(1);
    let pieces = pieces(&shared, checkpoint.tensors(), checkpoint.files(), block);
    let (mut files_of, mut works) = (Vec::new(), Vec::new());
    for (plan, path) in outputs {
        let output = Output::open(plan, checkpoint, path, options.restart)?;
        let finished = output.finished();
        if finished > 0 {
            progress(Event::Resumed { tensors: finished });
        }
        works.push(Work { finished, steps: steps(plan, checkpoint, finished, options.measurements)? });
        files_of.push(output);
    }
    let work = Pass { checkpoint, level: options.level, shared, works, factors: Factors::default() };
    let mut reader = SourceReader::new(checkpoint);
    // The three stages of a piece, one iteration apart: `reading` k, `coding` k - 1, `writing` k - 2.
    let (mut reading, mut coding, mut writing) = (Slot::default(), Slot::default(), Slot::default());
    for slot in [&mut reading, &mut coding, &mut writing] {
        slot.coded.resize_with(outputs.len(), Coded::default);
    }
    let (mut bytes, mut buffer) = (0, StripBuffer::default());
    for k in 0..pieces.len() + 2 {
        let to_read = pieces.get(k);
        let to_code = k.checked_sub(1).and_then(|k| pieces.get(k));
        let to_write = k.checked_sub(2).and_then(|k| pieces.get(k));
        let (read, (coded, written)) = rayon::join(
            || to_read.map_or(Ok(()), |piece| read(&mut reader, piece, &mut reading)),
            || {
                rayon::join(
                    || to_code.map_or(Ok(()), |piece| code(&work, piece, &mut coding, &mut buffer)),
                    || to_write.map_or(Ok(()), |piece| write(&mut files_of, &work.shared, piece, &writing)),
                )
            },
        );
        // The earliest piece's failure is the one to tell.
        written?;
        coded?;
        read?;
        if let Some((Use::Rows { tensor, .. }, piece)) = to_read.map(|piece| (&piece.use_, piece)) {
            bytes += piece.bytes as u64;
            progress(Event::Advanced { bytes, tensor: &work.shared[*tensor].tensor });
        }
        std::mem::swap(&mut writing, &mut coding);
        std::mem::swap(&mut coding, &mut reading);
        // Two buffers of a kind suffice: source rows are free once coded, codes once written.
        std::mem::swap(&mut reading.source, &mut writing.source);
        std::mem::swap(&mut coding.coded, &mut reading.coded);
    }
    // Texts are compressed at the end: the blocks' memory is free by then.
    drop((reading, coding, writing, work, buffer));
    let digests = reader.finish();
    checkpoint.check_unchanged()?;
    let mut reports = Vec::new();
    for (output, (_, path)) in files_of.into_iter().zip(outputs) {
        reports.push(output.finish(&digests, options)?);
        progress(Event::Finished { path });
    }
    Ok(reports)
}

/// What coding a piece takes.
struct Pass<'a> {
    checkpoint: &'a Checkpoint,
    level: Isa,
    shared: Vec<Shared>,
    works: Vec<Work<'a>>,
    factors: Factors,
}

/// What coding a piece for one output takes.
struct Work<'a> {
    finished: usize,
    /// What reads each step's source, and what codes it.
    steps: Vec<(TensorReader<'a>, Coder<'a>)>,
}

/// Sources and coders of the steps, in order; coders are shared among equals.
fn steps<'a>(
    plan: &Plan,
    checkpoint: &'a Checkpoint,
    finished: usize,
    measurements: Option<&'a MeasurementsDir>,
) -> Result<Vec<(TensorReader<'a>, Coder<'a>)>, ConvertError> {
    let mut coders = Coders::default();
    let work = |(index, step): (usize, &Step)| {
        let tensor = || step.tensor.clone();
        let source = checkpoint.tensor(&step.tensor);
        let source = source.ok_or_else(|| ConvertError::OtherSource { tensor: tensor() })?;
        let reader = TensorReader::new(checkpoint, source);
        if index < finished || step.encoding.is_exact() {
            return Ok((reader, Coder::Exact));
        }
        let measurements = measurements.filter(|_| step.calibrated);
        Ok((reader, Coder::new(source, step.storage(), step.matrix(), measurements, &mut coders)?))
    };
    plan.steps.iter().enumerate().map(work).collect()
}

fn read(reader: &mut SourceReader<'_>, piece: &Piece, slot: &mut Slot) -> Result<(), ConvertError> {
    reader.read(piece, &mut slot.source).map_err(|error| match error {
        ReadError::Io { path, source } => ConvertError::Read { path, source },
        other => ConvertError::Values(other),
    })?;
    if let Use::Rows { last: true, .. } = piece.use_ {
        slot.source_sha256 = reader.prefix_digest();
    }
    Ok(())
}

fn code(
    pass: &Pass<'_>,
    piece: &Piece,
    slot: &mut Slot,
    buffer: &mut StripBuffer,
) -> Result<(), ConvertError> {
    let Use::Rows { tensor: index, rows, .. } = &piece.use_ else { return Ok(()) };
    let Pass { checkpoint, level, shared, works, factors } = pass;
    let Slot { source, coded, .. } = slot;
    let mut ordered = false;
    for ((work, step), coded) in works.iter().zip(&shared[*index].steps).zip(coded) {
        let Some((reader, coder)) = step.filter(|step| *step >= work.finished).map(|step| &work.steps[step])
        else {
            continue;
        };
        let tensor = reader.tensor();
        if !std::mem::replace(&mut ordered, true) {
            tensor.order_rows(source);
        }
        let how = Coding { level: *level, factors, checkpoint };
        coder.code(how, *reader, source, rows, coded, buffer)?;
    }
    Ok(())
}

fn write(
    outputs: &mut [Output<'_>],
    shared: &[Shared],
    piece: &Piece,
    slot: &Slot,
) -> Result<(), ConvertError> {
    let Use::Rows { tensor, rows, last } = &piece.use_ else { return Ok(()) };
    for ((output, step), coded) in outputs.iter_mut().zip(&shared[*tensor].steps).zip(&slot.coded) {
        if let Some(step) = *step {
            output.rows(step, rows.start == 0, *last, coded, &slot.source_sha256)?;
        }
    }
    Ok(())
}
