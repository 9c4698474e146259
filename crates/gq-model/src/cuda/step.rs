//! What a batch brings to a device, and single tokens, whose launches are captured once and queued together from then on.

use super::arena::GRAIN;
use super::batch::Batch;
use super::runner::Runner;
use super::value::Value;
use crate::arithmetic::{RopeTable, stored};
use crate::cache::{KvCache, Token};
use crate::error::DeviceError;
use crate::linear::Linear;
use gq_checkpoint::ModelSpec;
use gq_cuda::{Captured, Span};
use std::sync::Weak;

/// What a batch brings: in one range that holds nothing else, so that it lies in the same places every time.
pub(super) struct Inputs {
    /// u32 `[tokens]`.
    pub(super) positions: Span,
    /// Cosines and sines of each rotary embedding, f32 `[tokens, dim / 2]`.
    pub(super) turns: Vec<[Span; 2]>,
    /// Whether something was computed on the host.
    pub(super) leaves_device: bool,
    /// Where rows of tables may begin.
    next: usize,
    /// Rows that are brought later: launches are being captured.
    later: Option<Vec<Table>>,
}

/// A table of which every token has a row.
struct Table {
    table: Linear,
    at: usize,
}

impl Inputs {
    /// Positions `start..` and their angles.
    pub(super) fn new(
        runner: &mut Runner,
        spec: &ModelSpec,
        start: usize,
        tokens: usize,
    ) -> Result<Inputs, DeviceError> {
        let (bytes, inputs) = Inputs::head(runner, spec, start, tokens);
        runner.gpu.write(&mut runner.inputs, 0, &bytes)?;
        Ok(inputs)
    }

    /// What comes first, and where it lies.
    fn head(runner: &Runner, spec: &ModelSpec, start: usize, tokens: usize) -> (Vec<u8>, Inputs) {
        let from = runner.inputs.span().address;
        let mut bytes = Vec::new();
        let mut put = |words: &mut dyn Iterator<Item = [u8; 4]>| {
            let at = bytes.len().next_multiple_of(GRAIN as usize);
            bytes.resize(at, 0);
            bytes.extend(words.flatten());
            Span { address: from + at as u64, bytes: (bytes.len() - at) as u64 }
        };
        let positions = put(&mut (start..start + tokens).map(|position| (position as u32).to_le_bytes()));
        let turns = spec.ropes.iter().map(|rope| {
            let table = RopeTable::new(rope, start, tokens);
            let [cosines, sines] = table.parts();
            [cosines, sines].map(|part| put(&mut part.iter().map(|x| x.to_le_bytes())))
        });
        let turns = turns.collect();
        let next = bytes.len().next_multiple_of(GRAIN as usize);
        (bytes, Inputs { positions, turns, leaves_device: false, next, later: None })
    }

    /// Rows of a table that stays on the host: `[tokens, width]`.
    pub(super) fn rows(
        &mut self,
        runner: &mut Runner,
        table: &Linear,
        tokens: &[u32],
    ) -> Result<Value, DeviceError> {
        let (at, width) = (self.next, table.shape.cols);
        let bytes = 4 * tokens.len() * width;
        let range = runner.inputs.span();
        self.next = (at + bytes).next_multiple_of(GRAIN as usize);
        if (at + bytes) as u64 > range.bytes {
            return Err(DeviceError::Scratch { needed: bytes as u64, limit: range.bytes });
        }
        match &mut self.later {
            Some(later) => later.push(Table { table: table.clone(), at }),
            None => bring_rows(runner, table, at, tokens)?,
        }
        let address = range.address + at as u64;
        Ok(Value { address, hold: None, rows: tokens.len(), width, parts: 1, view: None })
    }
}

fn bring_rows(runner: &mut Runner, table: &Linear, at: usize, tokens: &[u32]) -> Result<(), DeviceError> {
    let rows = stored::embed(runner.level, table, tokens);
    let bytes: Vec<u8> = rows.data.iter().flat_map(|x| x.to_le_bytes()).collect();
    Ok(runner.gpu.write(&mut runner.inputs, at, &bytes)?)
}

/// A single token's way through the graph, for one cache.
pub(super) struct Step {
    token: Weak<Token>,
    /// Whether logits are made.
    logits: bool,
    kept: Kept,
}

enum Kept {
    /// It ran once, and all of it on the device: every kernel is loaded, every vector is there.
    Warm,
    /// Some of it is computed on the host.
    Never,
    Graph(Box<Graph>),
}

struct Graph {
    captured: Captured,
    tables: Vec<Table>,
    /// Where logits are.
    result: Option<Value>,
}

impl Step {
    pub(super) fn is_of_a_cache_in_use(&self) -> bool {
        self.token.strong_count() > 0
    }

    fn is_of(&self, cache: &KvCache, logits: bool) -> bool {
        let token = cache.token().map(std::sync::Arc::as_ptr);
        token == Some(self.token.as_ptr()) && self.logits == logits
    }
}

impl Runner {
    /// Runs one token: `graph` calls the operators and gives its logits, where some are wanted.
    ///
    /// # Errors
    /// When the device was lost, or there is no room.
    pub(crate) fn step(
        &mut self,
        spec: &ModelSpec,
        cache: &KvCache,
        token: u32,
        logits: bool,
        graph: &dyn Fn(&mut Batch<'_>) -> Option<Value>,
    ) -> Result<Vec<f32>, DeviceError> {
        let place = self.cache(cache)?;
        let known = self.steps.iter().position(|step| step.is_of(cache, logits));
        let Some(known) = known else {
            let (out, leaves_device) = self.step_plainly(spec, (cache, place), graph)?;
            let kept = if leaves_device { Kept::Never } else { Kept::Warm };
            let token = cache.token().map(std::sync::Arc::downgrade).unwrap_or_default();
            self.steps.push(Step { token, logits, kept });
            return Ok(out);
        };
        match self.steps.get(known).map(|step| &step.kept) {
            Some(Kept::Never) => return Ok(self.step_plainly(spec, (cache, place), graph)?.0),
            Some(Kept::Graph(_)) => {}
            Some(Kept::Warm) | None => {
                let captured = self.capture(spec, (cache, place), graph)?;
                if let Some(step) = self.steps.get_mut(known) {
                    step.kept = captured.map_or(Kept::Never, |graph| Kept::Graph(Box::new(graph)));
                }
            }
        }
        let mut steps = std::mem::take(&mut self.steps);
        let out = match steps.get_mut(known).map(|step| &mut step.kept) {
            Some(Kept::Graph(graph)) => self.replay(spec, cache, token, graph),
            _ => self.step_plainly(spec, (cache, place), graph).map(|(out, _)| out),
        };
        self.steps = steps;
        out
    }

    fn step_plainly(
        &mut self,
        spec: &ModelSpec,
        (cache, place): (&KvCache, usize),
        graph: &dyn Fn(&mut Batch<'_>) -> Option<Value>,
    ) -> Result<(Vec<f32>, bool), DeviceError> {
        let mut ops = Batch::new(self, spec, place, cache, 1)?;
        let logits = graph(&mut ops);
        let out = match logits {
            Some(logits) => ops.read(&logits)?.data,
            None => Vec::new(),
        };
        ops.end()?;
        Ok((out, ops.inputs.leaves_device))
    }

    fn capture(
        &mut self,
        spec: &ModelSpec,
        (cache, place): (&KvCache, usize),
        graph: &dyn Fn(&mut Batch<'_>) -> Option<Value>,
    ) -> Result<Option<Graph>, DeviceError> {
        let (_, mut inputs) = Inputs::head(self, spec, cache.len(), 1);
        inputs.later = Some(Vec::new());
        self.gpu.begin_capture()?;
        let mut ops = Batch::of_inputs(self, spec, place, cache, inputs);
        let result = graph(&mut ops);
        let result = result.map(|logits| ops.whole(&logits)).transpose();
        let (failed, tables) = (ops.failed(), ops.inputs.later.take().unwrap_or_default());
        let captured = self.gpu.end_capture();
        failed?;
        // Between steps nobody has scratch memory: what is read right after a step need not be kept from others.
        let result = result?.map(|logits| Value { hold: None, ..logits });
        Ok(captured?.map(|captured| Graph { captured, tables, result }))
    }

    fn replay(
        &mut self,
        spec: &ModelSpec,
        cache: &KvCache,
        token: u32,
        graph: &mut Graph,
    ) -> Result<Vec<f32>, DeviceError> {
        let (bytes, _) = Inputs::head(self, spec, cache.len(), 1);
        self.gpu.write(&mut self.inputs, 0, &bytes)?;
        for Table { table, at } in &graph.tables {
            bring_rows(self, table, *at, &[token])?;
        }
        self.gpu.replay(&mut graph.captured)?;
        match &graph.result {
            Some(logits) => {
                let bytes = self.read(logits.address, logits.span().bytes)?;
                Ok(bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect())
            }
            None => {
                self.gpu.wait()?;
                Ok(Vec::new())
            }
        }
    }
}
