//! Attention, and what goes to its caches first.

use super::Batch;
use crate::cuda::plan::{self, queries};
use crate::cuda::value::{Before, Value};
use crate::error::DeviceError;
use crate::ops::Attention;
use gq_checkpoint::AttentionSpec;
use gq_cuda as kernels;
use gq_cuda::{CacheRows, HeadsIn, HeadsTo, Span};

/// Cosines and sines.
type Turns = Option<[Span; 2]>;

impl Batch<'_> {
    /// Queries, which grow with their position in some models: no kernel has a factor for each token.
    fn grown(&mut self, q: &Value, spec: &AttentionSpec) -> Result<Value, DeviceError> {
        if spec.query_growth.is_none() {
            return self.whole(q);
        }
        let mut rows = self.host(q)?;
        for (position, row) in (self.inputs.start..).zip(rows.data.chunks_exact_mut(rows.width.max(1))) {
            let factor = spec.scale_at(position) / spec.scale;
            row.iter_mut().for_each(|x| *x *= factor);
        }
        self.runner.bring(&rows)
    }

    /// Heads as they are, or with what is left to do to them.
    fn heads_in(&mut self, x: &Value, dim: usize) -> Result<(Value, HeadsIn, Turns), DeviceError> {
        let (x, norm, turns) = match x.before {
            None => (x.clone(), None, None),
            Some(Before::Heads { dim: of, norm, turns }) if of == dim => (x.clone(), norm, turns),
            Some(_) => (self.plain(x)?, None, None),
        };
        let heads = HeadsIn { x: x.all_parts(), width: x.width, first: x.first(), norm };
        Ok((x, heads, turns))
    }

    /// New keys and values to their caches; gives queries as they are, or those that went the same way.
    fn store(
        &mut self,
        q: &Value,
        k: Value,
        v: Value,
        [keys, values]: [CacheRows; 2],
        spec: &AttentionSpec,
    ) -> Result<Value, DeviceError> {
        let (positions, dim, tokens) = (self.inputs.positions, spec.head_dim, k.rows);
        let [(_q, of_q, q_turns), (k, of_k, k_turns), (v, of_v, v_turns)] =
            [self.heads_in(q, dim)?, self.heads_in(&k, dim)?, self.heads_in(&v, dim)?];
        if q_turns == k_turns && v_turns.is_none() {
            let rows = self.runner.value(tokens, spec.heads * dim, 1)?;
            let all = kernels::AllHeads {
                q: of_q,
                k: of_k,
                v: of_v,
                turns: q_turns,
                rows: rows.span(),
                keys,
                values,
                positions,
                tokens,
                heads: spec.heads,
                kv_heads: spec.kv_heads,
                dim,
            };
            self.runner.launch(all.launch())?;
            return Ok(rows);
        }
        for (x, norm, turns, cache) in [(k, of_k.norm, k_turns, keys), (v, of_v.norm, v_turns, values)] {
            self.heads(&x, dim, norm, turns, HeadsTo::Cache { cache, positions })?;
        }
        Ok(q.clone())
    }

    pub(super) fn attend(
        &mut self,
        q: &Value,
        new: Option<(Value, Value)>,
        layer: usize,
        attention: &Attention,
    ) -> Result<Value, DeviceError> {
        let spec = &attention.spec;
        let cached = self.runner.cached(self.place)?.layer(layer);
        let caches @ [keys, values] = cached.ok_or(DeviceError::Missing)?;
        let positions = self.inputs.positions;
        let q = match new {
            Some((k, v)) => self.store(q, k, v, caches, spec)?,
            None => q.clone(),
        };
        let q = self.grown(&q, spec)?;
        let y = self.runner.value(q.rows, q.width, 1)?;
        let longest = plan::longest(spec, self.context);
        let sinks = match &attention.sinks {
            Some(sinks) => Some(self.runner.weights.constant(&self.runner.gpu, sinks)?),
            None => None,
        };
        let (step, each) = queries(spec, longest);
        for first in (0..q.rows).step_by(step) {
            let tokens = step.min(q.rows - first);
            let partial = self.runner.take(each * tokens as u64)?;
            let part = |value: &Value| Span {
                address: value.address + 4 * (first * q.width) as u64,
                bytes: 4 * (tokens * q.width) as u64,
            };
            let some = kernels::Attention {
                q: part(&q),
                keys,
                values,
                positions: Span { address: positions.address + 4 * first as u64, bytes: 4 * tokens as u64 },
                partial: self.runner.span(&partial),
                sinks,
                y: part(&y),
                tokens,
                heads: spec.heads,
                kv_heads: spec.kv_heads,
                dim: spec.head_dim,
                window: spec.window.filter(|window| *window < self.context),
                longest,
                scale: spec.scale,
                softcap: spec.softcap,
            };
            for launch in some.launches()? {
                self.runner.launch(Ok(launch))?;
            }
        }
        Ok(y)
    }
}
