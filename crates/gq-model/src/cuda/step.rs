//! Single tokens, whose launches are captured once and queued together from then on.

use super::batch::Batch;
use super::inputs::{Inputs, Table, bring_rows};
use super::runner::Runner;
use super::value::Value;
use crate::cache::{KvCache, Token};
use crate::error::DeviceError;
use gq_checkpoint::ModelSpec;
use gq_cuda::Captured;
use std::sync::Weak;

/// A single token's way through the graph, for one cache.
struct Step {
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
    /// Kernels in it.
    launches: u64,
    tables: Vec<Table>,
    /// Where logits are.
    result: Option<Value>,
}

impl Step {
    fn is_of(&self, cache: &KvCache, logits: bool) -> bool {
        let token = cache.token().map(std::sync::Arc::as_ptr);
        token == Some(self.token.as_ptr()) && self.logits == logits
    }
}

/// What is known of single tokens on a device.
#[derive(Default)]
pub(crate) struct Steps {
    steps: Vec<Step>,
    /// Why launches are not captured: the driver refused once.
    uncaptured: Option<DeviceError>,
}

impl std::fmt::Debug for Steps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Steps").field(&self.steps.len()).finish()
    }
}

impl Steps {
    /// Why single tokens are queued launch by launch, where the driver refused to capture them.
    pub(crate) fn uncaptured(&self) -> Option<&DeviceError> {
        self.uncaptured.as_ref()
    }

    /// Runs one token: `graph` calls the operators and gives its logits, where some are wanted. A capture that the driver
    /// refuses costs time, not the run.
    ///
    /// # Errors
    /// When the device was lost, or there is no room.
    pub(crate) fn run(
        &mut self,
        runner: &mut Runner,
        spec: &ModelSpec,
        cache: &KvCache,
        token: u32,
        logits: bool,
        graph: &dyn Fn(&mut Batch<'_>) -> Option<Value>,
    ) -> Result<Vec<f32>, DeviceError> {
        let place = runner.cache(cache)?;
        let known = self.steps.iter().position(|step| step.is_of(cache, logits));
        let Some(step) = known.and_then(|known| self.steps.get_mut(known)) else {
            self.steps.retain(|step| step.token.strong_count() > 0);
            let (out, leaves_device) = step_plainly(runner, spec, cache, place, graph)?;
            let kept = if leaves_device { Kept::Never } else { Kept::Warm };
            let token = cache.token().map(std::sync::Arc::downgrade).unwrap_or_default();
            self.steps.push(Step { token, logits, kept });
            return Ok(out);
        };
        let refused = |error: DeviceError| if error.is_lost() { Err(error) } else { Ok(error) };
        if let Kept::Warm = step.kept {
            step.kept = Kept::Never;
            if self.uncaptured.is_none() {
                match capture(runner, spec, cache, place, graph) {
                    Ok(Some(graph)) => step.kept = Kept::Graph(Box::new(graph)),
                    Ok(None) => {}
                    Err(error) => self.uncaptured = Some(refused(error)?),
                }
            }
        }
        if let Kept::Graph(graph) = &mut step.kept {
            match replay(runner, spec, cache, token, graph) {
                Ok(out) => return Ok(out),
                Err(error) => self.uncaptured = Some(refused(error)?),
            }
            step.kept = Kept::Never;
        }
        Ok(step_plainly(runner, spec, cache, place, graph)?.0)
    }
}

fn step_plainly(
    runner: &mut Runner,
    spec: &ModelSpec,
    cache: &KvCache,
    place: usize,
    graph: &dyn Fn(&mut Batch<'_>) -> Option<Value>,
) -> Result<(Vec<f32>, bool), DeviceError> {
    let mut ops = Batch::new(runner, spec, place, cache, 1)?;
    let logits = graph(&mut ops);
    let out = match logits {
        Some(logits) => ops.read(&logits)?.data,
        None => Vec::new(),
    };
    ops.end()?;
    Ok((out, ops.inputs.leaves_device))
}

fn capture(
    runner: &mut Runner,
    spec: &ModelSpec,
    cache: &KvCache,
    place: usize,
    graph: &dyn Fn(&mut Batch<'_>) -> Option<Value>,
) -> Result<Option<Graph>, DeviceError> {
    let (_, mut inputs) = Inputs::head(runner, spec, cache, 1);
    inputs.later = Some(Vec::new());
    let before = runner.launches;
    runner.gpu.begin_capture()?;
    let mut ops = Batch::of_inputs(runner, spec, place, cache, inputs);
    let result = graph(&mut ops);
    let result = result.map(|logits| ops.whole(&logits)).transpose();
    let (failed, tables) = (ops.failed(), ops.inputs.later.take().unwrap_or_default());
    let captured = runner.gpu.end_capture();
    let launches = std::mem::replace(&mut runner.launches, before) - before;
    failed?;
    // Between steps nobody has scratch memory: what is read right after a step need not be kept from others.
    let result = result?.map(|logits| Value { hold: None, ..logits });
    Ok(captured?.map(|captured| Graph { captured, launches, tables, result }))
}

fn replay(
    runner: &mut Runner,
    spec: &ModelSpec,
    cache: &KvCache,
    token: u32,
    graph: &mut Graph,
) -> Result<Vec<f32>, DeviceError> {
    let (bytes, _) = Inputs::head(runner, spec, cache, 1);
    runner.gpu.write(&mut runner.inputs, 0, &bytes)?;
    for Table { table, at } in &graph.tables {
        bring_rows(runner, table, *at, &[token])?;
    }
    runner.gpu.replay(&mut graph.captured)?;
    runner.launches += graph.launches;
    match &graph.result {
        Some(logits) => {
            let bytes = runner.read(logits.address, logits.span().bytes)?;
            Ok(bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect())
        }
        None => {
            runner.gpu.wait()?;
            Ok(Vec::new())
        }
    }
}
