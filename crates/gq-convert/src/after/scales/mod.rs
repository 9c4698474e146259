//! After rounding: scales of rows and weights of norms are tuned to the reference's logits while codes stay as they
//! are.
//!
//! The loss is the divergence from the reference, the gradients are exact, the optimizer is Adam (arXiv 1412.6980),
//! and all arithmetic is fixed: the same text gives the same file on every CPU and thread count. What the tuning is
//! worth is measured on sequences that it never saw, and a file that did not get better there is left alone.

mod adam;
mod rewrite;

use super::finite::{NotFinite, check, teacher};
use adam::Adam;
use gq_calibrate::{FactorGradients, Factors};
use gq_checkpoint::Role;
use gq_container::{Container, ContainerError, ProvenanceError, WriteError, WriteRule};
use gq_model::{Model, ModelError};
pub use rewrite::ScalesTuned;

/// How to tune.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScalesOptions {
    /// Steps of the optimizer.
    pub steps: usize,
    /// Sequences per step.
    pub batch: usize,
    /// Largest relative change of a row's scale per step.
    pub rate: f64,
}

impl Default for ScalesOptions {
    fn default() -> ScalesOptions {
        ScalesOptions { steps: 32, batch: 2, rate: 3e-3 }
    }
}

/// What the norms' rate is of the rows': their weights reach every row that follows.
const NORM_RATE: f64 = 0.3;

/// One sequence in so many is held out, up to [`HELD_OUT_MOST`].
const HELD_OUT: usize = 8;
const HELD_OUT_MOST: usize = 12;

/// What happens meanwhile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ScalesEvent {
    /// Sequences of all that are looked at, forward or both ways.
    Sequences {
        /// Done.
        done: usize,
        /// Of so many.
        of: usize,
    },
}

/// New factors and what they are worth.
#[derive(Clone, Debug, PartialEq)]
pub struct TunedScales {
    /// As the file can hold them.
    pub factors: Factors,
    /// Mean divergence on the held-out sequences before, in nats per token.
    pub before: f64,
    /// The same after.
    pub after: f64,
    /// Tokens of the sequences tuned on, each counted as often as it was seen.
    pub tokens: usize,
    /// Tokens held out.
    pub held_out_tokens: usize,
}

/// A tuning that failed; nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum ScalesError {
    /// Another vocabulary.
    #[error("the reference has a vocabulary of {limit} entries, the file of {actual}")]
    Vocabulary {
        /// Of the reference.
        limit: usize,
        /// Of the file.
        actual: usize,
    },
    /// Too few sequences.
    #[error("the text gives {actual} sequences, at least {limit} are needed")]
    TooShort {
        /// Needed.
        limit: usize,
        /// There are.
        actual: usize,
    },
    /// The file has nothing to tune.
    #[error("no tensor has one scale per row")]
    Nothing,
    /// A model that computes what is no finite number.
    #[error(transparent)]
    NotFinite(#[from] NotFinite),
    /// A forward pass that failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A file that cannot be read.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// A text inside the file that cannot be read.
    #[error("{0}")]
    Text(#[from] gq_container::FormatError),
    /// A file that cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A text that cannot be stored.
    #[error(transparent)]
    Rule(#[from] WriteRule),
    /// Provenance that cannot be stored.
    #[error(transparent)]
    Provenance(#[from] ProvenanceError),
    /// A payload that is not what its entry says.
    #[error("tensor {tensor:?} is not what its entry says")]
    Payload {
        /// The tensor.
        tensor: String,
    },
}

/// Tunes the factors of `container`, whose model is `model`, toward `reference` on `sequences`; some are held out. Memory is that of one sequence's gradient and of the held-out sequences' last hidden states.
///
/// # Errors
/// When the vocabularies differ, there are too few sequences, nothing can be tuned, or one of the models computes what
/// is no finite number.
pub fn tune_scales(
    reference: &Model,
    model: &Model,
    container: &Container,
    sequences: &[Vec<u32>],
    options: ScalesOptions,
    progress: &mut dyn FnMut(ScalesEvent),
) -> Result<TunedScales, ScalesError> {
    let (limit, actual) = (reference.vocab_size(), model.vocab_size());
    if limit != actual {
        return Err(ScalesError::Vocabulary { limit, actual });
    }
    if sequences.len() < 2 {
        return Err(ScalesError::TooShort { limit: 2, actual: sequences.len() });
    }
    let scattered = scattered(sequences);
    let (held_out, train) = scattered.split_at((sequences.len() / HELD_OUT).clamp(1, HELD_OUT_MOST));
    let start = tunable(model, container);
    if start.is_empty() {
        return Err(ScalesError::Nothing);
    }
    let seen = options.steps * options.batch;
    let (mut done, of) = (0, seen + 2 * held_out.len());
    let mut advance = || {
        done += 1;
        progress(ScalesEvent::Sequences { done, of });
    };
    let teacher = |tokens: &&Vec<u32>| teacher::<ScalesError>(reference, (*tokens).clone());
    let teachers = held_out.iter().map(teacher).collect::<Result<Vec<_>, _>>()?;
    let mean = |factors: &Factors, advance: &mut dyn FnMut()| {
        let mut sum = 0.0;
        for teacher in &teachers {
            sum += teacher.divergence(model, factors)?;
            advance();
        }
        Ok::<f64, ScalesError>(sum / teachers.len() as f64)
    };
    let before = mean(&start, &mut advance)?;
    if !before.is_finite() {
        held_out.iter().try_for_each(|tokens| check::<ScalesError>(reference, model, tokens))?;
    }
    let mut factors = start.clone();
    let is_norm = |name: &str| container.tensor(name).is_some_and(|entry| entry.shape.len() == 1);
    let rate = |name: &str| if is_norm(name) { options.rate * NORM_RATE } else { options.rate };
    let mut adam = Adam::new();
    for step in 0..options.steps {
        let mut gradients = FactorGradients::new();
        for index in 0..options.batch {
            let tokens = &train[(step * options.batch + index) % train.len()];
            let divergence = teacher(tokens)?.gradient(model, &factors, &mut gradients)?;
            if !divergence.is_finite() {
                // Where both compute as they are, the factors lead astray: what is held out says so.
                check::<ScalesError>(reference, model, tokens)?;
            }
            advance();
        }
        adam.step(&mut factors, &gradients, schedule(step, options.steps), &rate);
    }
    let factors = rewrite::storable(container, model, factors)?;
    let after = mean(&factors, &mut advance)?;
    let tokens = |sequences: &[&Vec<u32>]| sequences.iter().map(|tokens| tokens.len()).sum::<usize>();
    let each = tokens(train) / train.len();
    Ok(TunedScales { factors, before, after, tokens: seen * each, held_out_tokens: tokens(held_out) })
}

/// The sequences in an order that has some of every text early and late: by a multiplicative hash of their index.
fn scattered(sequences: &[Vec<u32>]) -> Vec<&Vec<u32>> {
    let mut order: Vec<(u64, &Vec<u32>)> = (1u64..)
        .zip(sequences)
        .map(|(index, tokens)| (index.wrapping_mul(0x9E37_79B9_7F4A_7C15), tokens))
        .collect();
    order.sort_by_key(|(hash, _)| *hash);
    order.into_iter().map(|(_, tokens)| tokens).collect()
}

/// Rises over the first steps and falls to nothing at the end.
fn schedule(step: usize, steps: usize) -> f64 {
    const RISE: f64 = 5.0;
    let (at, done) = (step as f64 + 1.0, step as f64 / steps.max(1) as f64);
    (at / RISE).min(1.0) * (1.0 - done * done * (3.0 - 2.0 * done))
}

/// Ones for all that can be tuned: coded matrices of the layers with one scale per row, and norms.
/// Vocabularies and routers stay as they are, and so do experts.
fn tunable(model: &Model, container: &Container) -> Factors {
    let mut factors = Factors::new();
    for tensor in model.spec().expected_tensors() {
        let Some(entry) = container.tensor(&tensor.name) else { continue };
        let rows = tensor.shape.first().copied().unwrap_or(0);
        let tuned = match tensor.role {
            Role::Norm => tensor.shape.len() == 1 && entry.encoding.is_exact(),
            Role::Query
            | Role::Key
            | Role::Value
            | Role::Output
            | Role::Gate
            | Role::Up
            | Role::Down
            | Role::PerLayerGate
            | Role::PerLayerProjection => tensor.shape.len() == 2 && rewrite::has_row_scales(entry),
            _ => false,
        };
        if tuned {
            factors.insert(tensor.name.clone(), vec![1.0; rows]);
        }
    }
    factors
}

impl TunedScales {
    /// Whether the held-out text is closer to the reference than before.
    pub fn helps(&self) -> bool {
        self.after < self.before
    }

    /// The same without any change.
    pub fn unchanged(mut self) -> TunedScales {
        self.factors.clear();
        self.after = self.before;
        self
    }
}
