//! What a batch brings to a device.

use super::arena::GRAIN;
use super::runner::Runner;
use super::value::Value;
use crate::arithmetic::{RopeTable, stored};
use crate::cache::KvCache;
use crate::error::DeviceError;
use crate::linear::Linear;
use gq_checkpoint::ModelSpec;
use gq_cuda::Span;

/// What a batch brings: in one range that holds nothing else, so that it lies in the same places every time.
pub(super) struct Inputs {
    /// The first position.
    pub(super) start: usize,
    /// u32 `[tokens]`.
    pub(super) positions: Span,
    /// Cosines and sines of each rotary embedding, f32 `[tokens, pairs]`.
    pub(super) turns: Vec<[Span; 2]>,
    /// Whether something was computed on the host.
    pub(super) leaves_device: bool,
    /// Where rows of tables may begin.
    next: usize,
    /// Rows that are brought later: launches are being captured.
    pub(super) later: Option<Vec<Table>>,
}

/// A table of which every token has a row.
pub(super) struct Table {
    pub(super) table: Linear,
    pub(super) at: usize,
}

impl Inputs {
    /// Positions after what a cache has, and their angles.
    pub(super) fn new(
        runner: &mut Runner,
        spec: &ModelSpec,
        cache: &KvCache,
        tokens: usize,
    ) -> Result<Inputs, DeviceError> {
        let (bytes, inputs) = Inputs::head(runner, spec, cache, tokens);
        runner.gpu.write(&mut runner.inputs, 0, &bytes)?;
        Ok(inputs)
    }

    /// What comes first, and where it lies.
    pub(super) fn head(
        runner: &Runner,
        spec: &ModelSpec,
        cache: &KvCache,
        tokens: usize,
    ) -> (Vec<u8>, Inputs) {
        let start = cache.len();
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
            let table = RopeTable::new(rope, cache.max_tokens(), start, tokens);
            let [cosines, sines] = table.parts();
            [cosines, sines].map(|part| put(&mut part.iter().map(|x| x.to_le_bytes())))
        });
        let turns = turns.collect();
        let next = bytes.len().next_multiple_of(GRAIN as usize);
        (bytes, Inputs { start, positions, turns, leaves_device: false, next, later: None })
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
        Ok(Value { address, hold: None, rows: tokens.len(), width, parts: 1, view: None, before: None })
    }
}

pub(super) fn bring_rows(
    runner: &mut Runner,
    table: &Linear,
    at: usize,
    tokens: &[u32],
) -> Result<(), DeviceError> {
    let rows = stored::embed(runner.level, table, tokens);
    let bytes: Vec<u8> = rows.data.iter().flat_map(|x| x.to_le_bytes()).collect();
    Ok(runner.gpu.write(&mut runner.inputs, at, &bytes)?)
}
