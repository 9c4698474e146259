//! A model that runs: weights, specification and options.

use crate::cache::{KvCache, KvType};
use crate::cpu::{ActivationMode, Batch, Sums};
use crate::cuda::{self, DevicePlan, GpuFacts};
use crate::family::Graph;
use crate::matrix::Matrix;
use crate::ops::Ops;
use crate::weight_source::{Decoded, Source};
use crate::{DeviceError, LoadError, ModelError};
use gq_checkpoint::{Checkpoint, ModelSpec, parse_config};
use gq_container::{Container, TextKind};
use gq_tensor::Isa;
use gq_text::ModelTexts;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Tokens that pass through the layers together; longer inputs are cut.
pub(crate) const BATCH: usize = 512;

/// How a model computes. Threads are those of rayon's current pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// Instructions of the kernels.
    pub level: Isa,
    /// What codes are multiplied by.
    pub activations: ActivationMode,
    /// Storage of keys and values.
    pub kv: KvType,
}

impl Default for RunOptions {
    fn default() -> RunOptions {
        let (activations, kv) = (ActivationMode::default(), KvType::default());
        RunOptions { level: Isa::detect(), activations, kv }
    }
}

/// Which of the given tokens' logits are computed; the head is a large part of the work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogitRows {
    /// Every token's.
    All,
    /// The last token's.
    Last,
    /// Those of a range of the tokens given.
    Range(Range<usize>),
}

/// A language model whose weights stay where they are: in the mapped files of a checkpoint, or in a container.
#[derive(Debug)]
pub struct Model {
    spec: ModelSpec,
    graph: Graph,
    texts: ModelTexts,
    options: RunOptions,
    /// Where it runs; `None`: on the CPU.
    device: Option<Mutex<(cuda::Steps, cuda::Runner)>>,
}

impl Model {
    /// A checkpoint's weights as they are: the reference. Those whose bytes are no values by themselves are held as f32,
    /// 4 bytes each.
    ///
    /// # Errors
    /// When files cannot be mapped or read, or a tensor is not what the graph needs.
    pub fn from_checkpoint(checkpoint: Arc<Checkpoint>, options: RunOptions) -> Result<Model, LoadError> {
        Model::of_checkpoint(checkpoint, options, Decoded::Held)
    }

    /// The same model without a copy of any weights in memory: those whose bytes are no values by themselves (F8 codes
    /// with scales, blocks of a GGUF, what adapters change) are decoded by rows whenever they are used. The same bits;
    /// slow for one token at a time, as good as free for hundreds.
    ///
    /// # Errors
    /// As [`from_checkpoint`](Model::from_checkpoint).
    pub fn from_checkpoint_unheld(
        checkpoint: Arc<Checkpoint>,
        options: RunOptions,
    ) -> Result<Model, LoadError> {
        Model::of_checkpoint(checkpoint, options, Decoded::AsUsed)
    }

    fn of_checkpoint(
        checkpoint: Arc<Checkpoint>,
        options: RunOptions,
        decoded: Decoded,
    ) -> Result<Model, LoadError> {
        let spec = checkpoint.spec().clone();
        let texts = ModelTexts::from_checkpoint(&checkpoint)?;
        let mut source = Source::checkpoint(checkpoint, decoded)?;
        let graph = Graph::load(&spec, &mut source)?;
        Ok(Model { spec, graph, texts, options, device: None })
    }

    /// A container's codes, multiplied as they are.
    ///
    /// # Errors
    /// When there is no usable configuration inside, or a tensor is not what the graph needs.
    pub fn from_container(container: Arc<Container>, options: RunOptions) -> Result<Model, LoadError> {
        let texts = ModelTexts::from_container(&container)?;
        let config = texts.config.as_deref();
        let config = config.ok_or(LoadError::MissingText { kind: TextKind::Config })?;
        let spec = parse_config(config).map_err(LoadError::Config)?;
        let mut source = Source::container(container, &spec);
        let graph = Graph::load(&spec, &mut source)?;
        Ok(Model { spec, graph, texts, options, device: None })
    }

    /// What the model is.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Texts that came with the weights.
    pub fn texts(&self) -> &ModelTexts {
        &self.texts
    }

    /// How it computes.
    pub fn options(&self) -> RunOptions {
        self.options
    }

    /// The same weights, computed otherwise.
    pub fn set_options(&mut self, options: RunOptions) {
        self.options = options;
    }

    /// Brings the weights to the GPU of this number, with room for keys and values of `context` tokens; from here on
    /// [`forward`](Model::forward) runs there, on caches made after this. Weights stay where they are for everything else.
    ///
    /// # Errors
    /// Without such a GPU, when the model does not fit there, and for f32 activations of codes. The model is as before.
    pub fn move_to_gpu(&mut self, number: usize, context: usize) -> Result<DevicePlan, DeviceError> {
        let mut wanted = cuda::Collect::default();
        self.graph.hidden(&mut wanted, &[0]);
        self.graph.logits(&mut wanted, &());
        let RunOptions { level, activations, kv } = self.options;
        let asked = cuda::Asked { context, kv, activations, level };
        let runner = cuda::bring(number, &self.spec, &wanted, asked)?;
        let plan = runner.plan();
        self.device = Some(Mutex::new((cuda::Steps::default(), runner)));
        Ok(plan)
    }

    /// The GPU that it runs on, and what was planned for it; `None` on the CPU.
    pub fn gpu(&self) -> Option<(GpuFacts, DevicePlan)> {
        let device = self.device.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, runner) = &*device;
        Some((runner.facts().clone(), runner.plan()))
    }

    /// Why single tokens are queued on the GPU launch by launch; `None` where they are captured, or were not run yet.
    pub fn gpu_uncaptured(&self) -> Option<DeviceError> {
        let device = self.device.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        device.0.uncaptured().cloned()
    }

    /// Kernels that were queued on the GPU so far.
    pub fn gpu_launches(&self) -> Option<u64> {
        Some(self.device.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner).1.launches)
    }

    /// Bytes of weights on the GPU, and bytes that were planned for them.
    pub fn gpu_weights(&self) -> Option<(u64, Option<u64>)> {
        Some(self.device.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner).1.weights_filled())
    }

    /// Most bytes of the GPU's scratch memory that were in use so far, and bytes of it.
    pub fn gpu_scratch(&self) -> Option<(u64, u64)> {
        Some(self.device.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner).1.scratch_used())
    }

    /// Entries of a row of logits.
    pub fn vocab_size(&self) -> usize {
        self.spec.vocab_size
    }

    /// An empty cache for one sequence of up to `max_tokens` tokens.
    pub fn new_cache(&self, max_tokens: usize) -> KvCache {
        self.new_cache_of(max_tokens, self.options.kv)
    }

    /// An empty cache that stores keys and values as `kv`, whatever the options say.
    pub fn new_cache_of(&self, max_tokens: usize, kv: KvType) -> KvCache {
        match self.device {
            Some(_) => KvCache::on_device(&self.spec, max_tokens, kv, cuda::BATCH),
            None => KvCache::new(&self.spec, max_tokens, kv),
        }
    }

    /// Runs `tokens` after those in `cache`, adds them to it, and replaces `out` by logits `[rows, vocab_size]`.
    ///
    /// One token multiplies codes directly; many pass through matrix products. Both agree to rounding.
    ///
    /// # Errors
    /// For tokens beyond the vocabulary, more tokens than the cache holds, rows beyond the tokens, and when a logit is
    /// not finite. The cache is unchanged except in the last case, and has the tokens that it had after a device failed;
    /// where that wrote over what they need, the cache says so until it is cleared.
    pub fn forward(
        &self,
        tokens: &[u32],
        cache: &mut KvCache,
        logits: LogitRows,
        out: &mut Vec<f32>,
    ) -> Result<(), ModelError> {
        let rows = self.check(tokens, cache, self.device.is_some(), logits)?;
        out.clear();
        if let Some(device) = &self.device {
            let mut device = device.lock().unwrap_or_else(PoisonError::into_inner);
            let (steps, runner) = &mut *device;
            let (mut done, before) = (0, cache.len());
            for batch in tokens.chunks(cuda::BATCH) {
                let wanted = part_of(&rows, done..done + batch.len());
                match self.device_batch(steps, runner, batch, cache, wanted) {
                    Ok(logits) => out.extend(logits),
                    Err(error) => {
                        out.clear();
                        cache.take_back(before, cache.len() + batch.len(), cuda::BATCH);
                        return Err(error.into());
                    }
                }
                cache.advance(batch.len());
                done += batch.len();
            }
            return self.check_logits(out);
        }
        // From inside the pool, a parallel region costs a microsecond; from outside, two thread switches.
        rayon::scope(|_| {
            let mut done = 0;
            for batch in tokens.chunks(BATCH) {
                let wanted = part_of(&rows, done..done + batch.len());
                let logits = self.batch(batch, cache, wanted);
                match out.is_empty() {
                    true => *out = logits.data,
                    false => out.extend_from_slice(&logits.data),
                }
                done += batch.len();
            }
        });
        self.check_logits(out)
    }

    /// Runs new tokens of several sequences after those in their caches, and gives logits `[sequences, vocab_size]` of
    /// each one's last token, in deterministic arithmetic: the same on every CPU and thread count, and whatever else is run.
    /// The options' activations and storage do not matter here.
    ///
    /// # Errors
    /// As [`forward`](Model::forward).
    pub fn forward_deterministic(
        &self,
        mut sequences: Vec<(&[u32], &mut KvCache)>,
    ) -> Result<Matrix, ModelError> {
        for (tokens, cache) in &sequences {
            self.check(tokens, cache, false, LogitRows::Last)?;
        }
        let mut logits = Matrix { width: self.spec.vocab_size, data: Vec::new() };
        while let Some((new, cache)) = sequences.first_mut() {
            if new.len() > BATCH {
                let (head, rest) = new.split_at(BATCH);
                let mut ops = self.ops(Sums::Deterministic, vec![(BATCH, &mut **cache)]);
                self.graph.hidden(&mut ops, head);
                ops.advance();
                *new = rest;
                continue;
            }
            // Sequences with no more tokens together than a batch of one sequence has.
            let ends = sequences.iter().scan(0, |end, (new, _)| {
                *end += new.len();
                Some(*end)
            });
            let fitting = ends.take_while(|end| *end <= BATCH).count();
            let (mut tokens, mut batch) = (Vec::new(), Vec::new());
            for (new, cache) in sequences.drain(..fitting) {
                tokens.extend_from_slice(new);
                batch.push((new.len(), cache));
            }
            let mut ops = self.ops(Sums::Deterministic, batch);
            let hidden = self.graph.hidden(&mut ops, &tokens);
            let hidden = ops.last_rows(&hidden);
            logits.data.extend(self.graph.logits(&mut ops, &hidden).data);
            ops.advance();
        }
        self.check_logits(&logits.data)?;
        Ok(logits)
    }

    pub(crate) fn check_logits(&self, logits: &[f32]) -> Result<(), ModelError> {
        match logits.iter().position(|logit| !logit.is_finite()) {
            None => Ok(()),
            Some(at) => Err(ModelError::NotFinite {
                row: at / self.spec.vocab_size,
                index: at % self.spec.vocab_size,
                value: logits.get(at).map(f32::to_string).unwrap_or_default(),
            }),
        }
    }

    /// What the graph runs on: so many new tokens of each sequence.
    pub(crate) fn ops<'a>(&self, sums: Sums, sequences: Vec<(usize, &'a mut KvCache)>) -> Batch<'a> {
        Batch::new(self.options.level, sums, &self.spec.ropes, sequences)
    }

    fn batch(&self, tokens: &[u32], cache: &mut KvCache, rows: Range<usize>) -> Matrix {
        let mut ops = self.ops(Sums::Fastest(self.options.activations), vec![(tokens.len(), cache)]);
        let hidden = self.graph.hidden(&mut ops, tokens);
        let logits = match rows.is_empty() {
            true => Matrix::default(),
            false => {
                let hidden = ops.rows(hidden, rows);
                self.graph.logits(&mut ops, &hidden)
            }
        };
        ops.advance();
        logits
    }

    /// New tokens on the device, and logits `[wanted.len(), vocab_size]` of some of them.
    fn device_batch(
        &self,
        steps: &mut cuda::Steps,
        runner: &mut cuda::Runner,
        tokens: &[u32],
        cache: &KvCache,
        wanted: Range<usize>,
    ) -> Result<Vec<f32>, DeviceError> {
        if let [token] = *tokens {
            let graph = |ops: &mut cuda::Batch<'_>| {
                let hidden = self.graph.hidden(ops, tokens);
                (!wanted.is_empty()).then(|| self.graph.logits(ops, &hidden))
            };
            return steps.run(runner, &self.spec, cache, token, !wanted.is_empty(), &graph);
        }
        let mut ops = cuda::Batch::begin(runner, &self.spec, cache, tokens.len())?;
        let hidden = self.graph.hidden(&mut ops, tokens);
        let mut out = Vec::with_capacity(wanted.len() * self.spec.vocab_size);
        for first in wanted.clone().step_by(cuda::LOGIT_ROWS) {
            let some = ops.rows(hidden.clone(), first..(first + cuda::LOGIT_ROWS).min(wanted.end));
            let logits = self.graph.logits(&mut ops, &some);
            out.extend(ops.read(&logits)?.data);
        }
        ops.end()?;
        Ok(out)
    }

    /// Its weights, in the order of its graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Whether all tokens are in the vocabulary, and there are some.
    ///
    /// # Errors
    /// [`ModelError::Token`] and [`ModelError::NoTokens`].
    pub fn check_tokens(&self, tokens: &[u32]) -> Result<(), ModelError> {
        let per_layer = self.spec.per_layer_embedding.as_ref();
        let limit = per_layer.map_or(usize::MAX, |ple| ple.vocab_size).min(self.spec.vocab_size);
        match tokens.iter().enumerate().find(|(_, token)| **token as usize >= limit) {
            Some((index, &token)) => Err(ModelError::Token { token, index, limit }),
            None if tokens.is_empty() => Err(ModelError::NoTokens),
            None => Ok(()),
        }
    }

    pub(crate) fn check(
        &self,
        tokens: &[u32],
        cache: &KvCache,
        on_device: bool,
        logits: LogitRows,
    ) -> Result<Range<usize>, ModelError> {
        let last = tokens.len().checked_sub(1).ok_or(ModelError::NoTokens)?;
        self.check_tokens(tokens)?;
        if !cache.fits(&self.spec) || cache.token().is_some() != on_device {
            return Err(ModelError::ForeignCache);
        }
        if cache.is_spoilt() {
            return Err(ModelError::SpoiltCache);
        }
        let (needed, limit) = (cache.len() + tokens.len(), cache.max_tokens());
        if needed > limit {
            return Err(ModelError::CacheFull { needed, limit });
        }
        let rows = match logits {
            LogitRows::All => 0..tokens.len(),
            LogitRows::Last => last..last + 1,
            LogitRows::Range(rows) => rows,
        };
        match rows.start <= rows.end && rows.end <= tokens.len() {
            true => Ok(rows),
            false => Err(ModelError::Rows { rows, actual: tokens.len() }),
        }
    }
}

/// Which of the rows `range` are among `rows`, counted from its start.
fn part_of(rows: &Range<usize>, range: Range<usize>) -> Range<usize> {
    let wanted = rows.start.clamp(range.start, range.end)..rows.end.min(range.end);
    wanted.start - range.start..wanted.end.max(wanted.start) - range.start
}
