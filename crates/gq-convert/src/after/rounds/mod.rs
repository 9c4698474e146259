//! A second rounding, layer after layer and product after product: each weight is rounded toward the original's outputs
//! with the inputs that it really gets, those behind what was rounded before it.
//!
//! Codes made from the original's inputs do not know of the errors before them. Here the original and the file run
//! side by side; a product's weights are rounded again once all that precedes them is final, so that what is
//! corrected are the errors that the file has. Encodings and sizes stay. Of the old and the new codes of every tensor
//! those are kept that are closer on tokens that were held out.

mod objective;
mod rewrite;
mod strength;

use super::finite::{NotFinite, Side, check, teacher};
use crate::round::{self, CoderError, ColumnCoder, RowCoder};
use gq_calibrate::{
    CalibrateError, DualObservation, DualPass, Factors, MeasurementsDir, MeasurementsError, MeasuringMemory,
    MeasuringSize, choose_damping, compared, is_held_out,
};
use gq_checkpoint::{Checkpoint, ReadError, Role};
use gq_codec::{Coders, Factor, NotPositive};
use gq_container::{
    Container, ContainerError, FormatError, ProvenanceError, RoundedAgain, TensorEntry, WriteError,
    WriteRule, partial_path, put_in_place,
};
use gq_model::{Linear, LoadError, Model, ModelError};
use gq_tensor::{Isa, RotationSpec};
use objective::{Form, Joint};
use rewrite::Payloads;
pub use rewrite::check_source;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use strength::Rounding;

/// How to round again.
#[derive(Clone, Debug)]
pub struct RoundAgainOptions<'a> {
    /// Kernels; the result is the same on all.
    pub level: Isa,
    /// Measurements whose gradients weigh the rows of a strip; without them, all count the same.
    pub measurements: Option<&'a MeasurementsDir>,
    /// Digest of the text.
    pub text_sha256: String,
    /// Most bytes of memory; the result does not depend on it.
    pub max_memory: Option<u64>,
}

/// What is reported meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoundAgainEvent {
    /// So many layers are done; comparing the finished file counts as one.
    Layers {
        /// Done.
        done: usize,
        /// To do.
        of: usize,
    },
}

/// What came of one tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorAgain {
    /// Its name.
    pub name: String,
    /// Part of the correction of its inputs that was best on the held-out tokens.
    pub strength: f64,
    /// Squared output error over squared norm with the inputs that the file gives, on the held-out tokens: as it was,
    /// and rounded again.
    pub held_out: (f64, f64),
    /// Rounded again, on the tokens that decided the codes.
    pub in_sample: f64,
    /// Squared error over squared norm of the weights themselves, rounded again.
    pub relative_mse: f64,
    /// Whether the new codes were taken.
    pub taken: bool,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct RoundedAgainOutcome {
    /// Tensors in the order in which they were rounded.
    pub tensors: Vec<TensorAgain>,
    /// Mean divergence on `compared_tokens` before, in nats per token.
    pub before: f64,
    /// The same after.
    pub after: f64,
    /// Tokens measured on.
    pub tokens: usize,
    /// Tokens held out: damping, strength and each tensor's codes are chosen on them.
    pub held_out_tokens: usize,
    /// Those of them that the divergences were measured on.
    pub compared_tokens: usize,
}

impl RoundedAgainOutcome {
    /// Whether the held-out text is closer to the original than before.
    pub fn helps(&self) -> bool {
        self.after < self.before
    }
}

/// A second rounding that failed; nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum RoundAgainError {
    /// Too little text, or memory.
    #[error(transparent)]
    Measure(#[from] CalibrateError),
    /// The file was not made from this checkpoint.
    #[error("the file was made from another source: {what} is {actual}, this checkpoint has {limit}")]
    OtherSource {
        /// What differs.
        what: String,
        /// Of the checkpoint.
        limit: String,
        /// Of the file.
        actual: String,
    },
    /// The file has nothing that feedback can round.
    #[error("no matrix of the layers has an encoding that is rounded with its inputs in view")]
    Nothing,
    /// Inputs that overflowed or were not numbers.
    #[error("inputs of {tensor:?}: {source}")]
    Moment {
        /// The first tensor that they meet.
        tensor: String,
        /// Where the factorization stopped.
        source: NotPositive,
    },
    /// A payload that is not what its entry says.
    #[error("tensor {tensor:?} is not what its entry says")]
    Payload {
        /// The tensor.
        tensor: String,
    },
    /// A file next to the output, or of the source, cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A model that computes what is no finite number.
    #[error(transparent)]
    NotFinite(#[from] NotFinite),
    /// Sums of inputs that overflow, though the inputs are finite.
    #[error("inputs of {tensor:?} are so large that their squares overflow")]
    Overflow {
        /// The first tensor that they meet.
        tensor: String,
    },
    /// A forward pass that failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The new file cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Weights that cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Measurements that cannot be read.
    #[error(transparent)]
    Measurements(#[from] MeasurementsError),
    /// A coder that cannot be made.
    #[error(transparent)]
    Coder(#[from] CoderError),
    /// A file that cannot be opened.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// A text inside the file that cannot be read.
    #[error("{0}")]
    Text(#[from] FormatError),
    /// A file that cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A text that cannot be stored.
    #[error(transparent)]
    Rule(#[from] WriteRule),
    /// Provenance that cannot be stored.
    #[error(transparent)]
    Provenance(#[from] ProvenanceError),
    /// A report of ours that has no JSON form; a defect of gq.
    #[error("report as JSON: {source}")]
    Json {
        /// Why.
        #[from]
        source: serde_json::Error,
    },
}

/// The original and what was made from it.
#[derive(Clone, Copy, Debug)]
pub struct RoundAgain<'a> {
    /// The source.
    pub checkpoint: &'a Checkpoint,
    /// The source's model.
    pub reference: &'a Model,
    /// The file.
    pub container: &'a Container,
    /// The file's model.
    pub model: &'a Model,
}

impl RoundAgain<'_> {
    /// Rounds the layers' matrices again on `sequences` and writes the file to `path`, which may be the container's own.
    /// What does not get closer on the held-out sequences is not written over; the outcome says so.
    ///
    /// Memory: [`MeasuringMemory::rounding_again`]; states that do not fit, and new codes, are in files next to `path`.
    ///
    /// # Errors
    /// [`RoundAgainError`]; `path` is then untouched.
    pub fn run(
        self,
        sequences: &[Vec<u32>],
        options: &RoundAgainOptions<'_>,
        path: &Path,
        progress: &mut dyn FnMut(RoundAgainEvent),
    ) -> Result<RoundedAgainOutcome, RoundAgainError> {
        if sequences.len() < 2 {
            return Err(CalibrateError::TooFew { limit: 2, actual: sequences.len() }.into());
        }
        check_source(self.container, self.checkpoint)?;
        let size = MeasuringSize {
            sequences: sequences.len(),
            ctx: sequences.iter().map(Vec::len).max().unwrap_or(0),
            gradients: false,
            trial_tokens: 0,
            threads: rayon::current_num_threads(),
            held: self.checkpoint.held_bytes(rayon::current_num_threads()),
        };
        let memory = MeasuringMemory::rounding_again(self.reference.spec(), size, options.max_memory)?;
        let sibling = |suffix: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        let files = WorkFiles {
            states: sibling(".states.partial"),
            spilled: memory.spilled > 0,
            codes: sibling(".codes.partial"),
            trial: sibling(".trial"),
        };
        let outcome = self.write_trial(sequences, options, &files, progress);
        let outcome = outcome.and_then(|outcome| {
            self.checkpoint.check_unchanged()?;
            self.container.check_unchanged()?;
            Ok(outcome)
        });
        // What is left of them after a failure is of no use; another process's stays.
        for stale in [&files.states, &files.codes] {
            let _ = gq_files::remove_begun(stale);
        }
        let trial = files.trial;
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                for stale in [&trial, &partial_path(&trial)] {
                    let _ = gq_files::remove_begun(stale);
                }
                return Err(error);
            }
        };
        match outcome.helps() {
            true => put_in_place(&trial, path)?,
            false => gq_files::remove_begun(&trial)
                .map_err(|source| RoundAgainError::Io { path: trial.clone(), source })?,
        }
        Ok(outcome)
    }

    /// Rounds again and writes the new file under the name of a trial.
    fn write_trial(
        self,
        sequences: &[Vec<u32>],
        options: &RoundAgainOptions<'_>,
        files: &WorkFiles,
        progress: &mut dyn FnMut(RoundAgainEvent),
    ) -> Result<RoundedAgainOutcome, RoundAgainError> {
        let WorkFiles { states, trial, .. } = files;
        let of_states = |source| RoundAgainError::Io { path: states.clone(), source };
        let mut pass = DualPass::new(self.reference, self.model, sequences.to_vec())?;
        if files.spilled {
            pass = pass.spilled_to(gq_files::begin(states).map_err(of_states)?);
        }
        let payloads = Payloads::create(&files.codes)?;
        let mut made = Made { coders: Coders::default(), tensors: Vec::new(), payloads };
        let of = pass.layers() + 1;
        for layer in 0..pass.layers() {
            for (index, weights) in pass.products().map_err(of_states)?.into_iter().enumerate() {
                let wanted = weights.into_iter().filter(|weight| self.is_wanted(weight)).collect::<Vec<_>>();
                if wanted.is_empty() {
                    continue;
                }
                let product = Product { index, weights: &wanted };
                let inputs = self.observe(&pass, product, options.level).map_err(of_states)??;
                self.product(&mut pass, product, &inputs, options, &mut made)?;
            }
            pass.advance().map_err(of_states)?;
            progress(RoundAgainEvent::Layers { done: layer + 1, of });
        }
        drop(pass);
        let Made { tensors, payloads, .. } = made;
        if tensors.is_empty() {
            return Err(RoundAgainError::Nothing);
        }
        let total = |keep: bool| -> usize {
            let some = sequences.iter().enumerate();
            let some = some.filter(|(index, _)| is_held_out(*index, sequences.len()) == keep);
            some.map(|(_, sequence)| sequence.len()).sum()
        };
        let (tokens, held_out_tokens) = (total(false), total(true));
        let what = RoundedAgain {
            payload_sha256: self.container.payload_sha256(),
            text_sha256: options
                .text_sha256
                .parse()
                .map_err(|_| RoundAgainError::Payload { tensor: "text".to_owned() })?,
            ctx: sequences.first().map_or(0, |sequence| sequence.len() as u64),
            tokens: (tokens + held_out_tokens) as u64,
            measurements_sha256: options
                .measurements
                .and_then(|measurements| measurements.value().sha256().parse().ok()),
        };
        rewrite::write(self.container, &payloads, &tensors, what, trial)?;
        let (before, after, compared_tokens) = self.compare(sequences, trial)?;
        progress(RoundAgainEvent::Layers { done: of, of });
        Ok(RoundedAgainOutcome { tensors, before, after, tokens, held_out_tokens, compared_tokens })
    }

    /// Whether a weight of a layer is rounded again: a matrix coded column by column, no router.
    fn is_wanted(self, weight: &Linear) -> bool {
        let (entry, tensor) = (self.container.tensor(weight.name()), self.checkpoint.tensor(weight.name()));
        entry.zip(tensor).is_some_and(|(entry, tensor)| {
            let product = !matches!(tensor.role, Role::Router | Role::Embedding | Role::Head);
            product && entry.shape.len() == 2 && round::rounds_columns(entry.encoding)
        })
    }

    /// Moments of a product's inputs in both models. The outer error is of the file of hidden states.
    fn observe(
        self,
        pass: &DualPass<'_>,
        product: Product<'_>,
        level: Isa,
    ) -> std::io::Result<Result<Moments, NotFinite>> {
        let n = product.weights.first().map_or(0, |weight| weight.shape().cols);
        let of = pass.sequences();
        let (mut train, mut held) = (Joint::new(n), Joint::new(n));
        let mut broken: Option<NotFinite> = None;
        pass.observe(product.index, &mut |seen| {
            broken = broken.take().or_else(|| not_finite(product.weights, &seen));
            let joint = if is_held_out(seen.sequence, of) { &mut held } else { &mut train };
            joint.add(level, &seen);
        })?;
        Ok(broken.map_or(Ok(Moments { n, train, held }), Err))
    }

    /// Rounds the weights of one product again.
    fn product(
        self,
        pass: &mut DualPass<'_>,
        product: Product<'_>,
        moments: &Moments,
        options: &RoundAgainOptions<'_>,
        made: &mut Made,
    ) -> Result<(), RoundAgainError> {
        let (level, n) = (options.level, moments.n);
        let mut inputs: Option<Input> = None;
        for weight in product.weights {
            let payload = || RoundAgainError::Payload { tensor: weight.name().to_owned() };
            let entry: &TensorEntry = self.container.tensor(weight.name()).ok_or_else(payload)?;
            let tensor = self.checkpoint.tensor(weight.name()).ok_or_else(payload)?;
            let rows = RowCoder::new(&mut made.coders, entry.storage(), n)?;
            let Some(code) = ColumnCoder::new(&rows.encoder, options.measurements, tensor)? else { continue };
            // Weights that share an input share its basis, in files that `gq` makes.
            let input = match inputs.take().filter(|input| input.rotation == entry.rotation) {
                Some(input) => input,
                None => Input::new(level, moments, &rows.rotation, entry.rotation, weight.name())?,
            };
            let rounding = Rounding { level, checkpoint: self.checkpoint, tensor, rows: &rows, code: &code };
            let old = self.container.matrix(entry).map_err(|_| payload())?;
            let (outcome, new) = rounding.run(&input, &old)?;
            if outcome.taken {
                if !pass.replace(weight, &new) {
                    return Err(payload());
                }
                made.payloads.add(weight.name(), &new)?;
            }
            made.tensors.push(outcome);
            inputs = Some(input);
        }
        Ok(())
    }

    /// Mean divergence on held-out sequences of the file as it was and of the one at `trial`, and their tokens.
    fn compare(self, sequences: &[Vec<u32>], trial: &Path) -> Result<(f64, f64, usize), RoundAgainError> {
        let new = Model::from_container(Arc::new(Container::open(trial)?), self.model.options())?;
        let (mut before, mut after, mut count, mut tokens) = (0.0, 0.0, 0, 0);
        for sequence in compared(sequences) {
            tokens += sequence.len();
            let teacher = teacher::<RoundAgainError>(self.reference, sequence)?;
            let was = teacher.divergence(self.model, &Factors::new())?;
            if !was.is_finite() {
                check::<RoundAgainError>(self.reference, self.model, teacher.tokens())?;
            }
            before += was;
            after += teacher.divergence(&new, &Factors::new())?;
            count += 1;
        }
        let count = f64::from(count.max(1));
        Ok((before / count, after / count, tokens))
    }
}

/// Which model's input to a product is not finite, if one is.
fn not_finite(weights: &[Linear], seen: &DualObservation<'_>) -> Option<NotFinite> {
    let tensor = weights.first()?.name();
    let of = |side, input: &gq_model::Matrix| {
        Some(NotFinite { side, source: ModelError::of_input(tensor, input)? })
    };
    of(Side::Reference, seen.original).or_else(|| of(Side::File, seen.rounded))
}

/// Files next to the output while it is made.
struct WorkFiles {
    /// Hidden states, where memory is too little for them.
    states: PathBuf,
    /// Whether it is.
    spilled: bool,
    /// New codes.
    codes: PathBuf,
    /// The whole new file, until it has proved better.
    trial: PathBuf,
}

/// What was made so far.
struct Made {
    coders: Coders,
    tensors: Vec<TensorAgain>,
    payloads: Payloads,
}

/// Moments of a product's inputs, n columns wide, in both models.
struct Moments {
    n: usize,
    train: Joint,
    held: Joint,
}

/// A product of a layer and the weights that its input meets.
#[derive(Clone, Copy)]
struct Product<'a> {
    index: usize,
    weights: &'a [Linear],
}

/// What is known of a product's inputs, in the basis of the codes.
struct Input {
    rotation: RotationSpec,
    train: Form,
    held: Form,
    factor: Factor,
    /// E of the best rows without rounding, `w + w E`.
    correction: Vec<f32>,
}

impl Input {
    fn new(
        level: Isa,
        moments: &Moments,
        transform: &gq_codec::Rotation,
        rotation: RotationSpec,
        tensor: &str,
    ) -> Result<Input, RoundAgainError> {
        let form = |joint: &Joint| joint.form(level, transform);
        let (train, held) = (form(&moments.train), form(&moments.held));
        if !(train.is_finite() && held.is_finite()) {
            return Err(RoundAgainError::Overflow { tensor: tensor.to_owned() });
        }
        let n = transform.cols();
        let factor = choose_damping(level, &train.h, &held.h, n)
            .and_then(|chosen| Factor::new(level, &train.h, n, chosen.damping));
        let factor =
            factor.map_err(|source| RoundAgainError::Moment { tensor: tensor.to_owned(), source })?;
        let correction = train.correction(&factor);
        Ok(Input { rotation, train, held, factor, correction })
    }
}
