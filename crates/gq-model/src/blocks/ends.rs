//! Before the first layer and after the last: embedding, last norm and head.

use crate::LoadError;
use crate::linear::Linear;
use crate::ops::{Norm, Ops};
use crate::weight_source::Source;
use gq_checkpoint::{ModelSpec, Part};

#[derive(Debug)]
pub(crate) struct Ends {
    embedding: Linear,
    embed_scale: Option<f32>,
    pub(crate) norm: Norm,
    /// `None`: the embedding is the head.
    head: Option<Linear>,
    softcap: Option<f32>,
}

impl Ends {
    pub(crate) fn load(spec: &ModelSpec, source: &mut Source) -> Result<Ends, LoadError> {
        Ok(Ends {
            embedding: source.matrix(Part::Embedding, None)?,
            embed_scale: spec.embed_scale,
            norm: source.norm(Part::FinalNorm, None)?,
            head: match spec.tied_head {
                true => None,
                false => Some(source.matrix(Part::Head, None)?),
            },
            softcap: spec.final_softcap,
        })
    }

    pub(crate) fn embed<O: Ops>(&self, ops: &mut O, tokens: &[u32]) -> O::Value {
        let x = ops.embed(&self.embedding, tokens); // [tokens, hidden]
        match self.embed_scale {
            Some(scale) => ops.scale(x, scale), // [tokens, hidden]
            None => x,
        }
    }

    /// Rows of the residual stream as the head takes them: `[rows, hidden]` to the same shape.
    pub(crate) fn head_input<O: Ops>(&self, ops: &mut O, x: &O::Value) -> O::Value {
        ops.rms_norm(x, &self.norm) // [rows, hidden]
    }

    pub(crate) fn head(&self) -> &Linear {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    pub(crate) fn logits<O: Ops>(&self, ops: &mut O, x: &O::Value) -> O::Value {
        let x = self.head_input(ops, x); // [rows, hidden]
        let [logits] = ops.linear(&x, [self.head()]); // [rows, vocab]
        match self.softcap {
            Some(cap) => ops.softcap(logits, cap), // [rows, vocab]
            None => logits,
        }
    }
}
