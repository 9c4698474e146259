//! Mixture of experts.

use crate::call::{Call, MOST, MOST_OTHER, bytes};
use crate::{Launch, LaunchError, Module, Parts, Span};

/// Which experts each token takes; [`define::choose_experts`](crate::define::choose_experts).
#[derive(Clone, Copy, Debug)]
pub struct ChooseExperts {
    /// `[tokens, experts]`.
    pub scores: Parts,
    /// f32 `[experts]`.
    pub scales: Span,
    /// u32 `[tokens, top]`.
    pub ids: Span,
    /// f32 `[tokens, top]`.
    pub factors: Span,
    /// Tokens.
    pub tokens: usize,
    /// Experts, at most 512.
    pub experts: usize,
    /// Experts of a token, at most 32.
    pub top: usize,
}

impl ChooseExperts {
    /// The launch.
    ///
    /// # Errors
    /// When a range of memory is too short or a number out of range.
    pub fn launch(&self) -> Result<Launch, LaunchError> {
        let mut call = Call::new(Module::Experts, "route");
        let tokens = call.check("tokens", self.tokens, 1, MOST)?;
        call.parts("scores", self.scores, self.tokens, self.experts)?;
        call.span("scales", self.scales, bytes(&[self.experts], 4), 4)?;
        call.number("experts", self.experts, 1, 512)?;
        call.number("experts of a token", self.top, 1, self.experts.min(32))?;
        call.span("ids", self.ids, bytes(&[self.tokens, self.top], 4), 4)?;
        call.span("factors", self.factors, bytes(&[self.tokens, self.top], 4), 4)?;
        Ok(call.on([tokens, 1, 1], 32, 0))
    }
}

/// The sum of the rows of a token's slots times their factors; [`define::mix_experts`](crate::define::mix_experts).
#[derive(Clone, Copy, Debug)]
pub struct MixExperts {
    /// `[tokens * per, width]`.
    pub x: Parts,
    /// f32 `[tokens, per]`.
    pub factors: Span,
    /// f32 `[tokens, width]`.
    pub y: Span,
    /// Tokens.
    pub tokens: usize,
    /// Slots of a token.
    pub per: usize,
    /// Elements of a row.
    pub width: usize,
}

impl MixExperts {
    /// The launch.
    ///
    /// # Errors
    /// When a range of memory is too short or a number out of range.
    pub fn launch(&self) -> Result<Launch, LaunchError> {
        let mut call = Call::new(Module::Experts, "mix_experts");
        let tokens = call.check("tokens", self.tokens, 1, MOST_OTHER)?;
        call.parts("x", self.x, self.tokens.saturating_mul(self.per), self.width)?;
        call.span("factors", self.factors, bytes(&[self.tokens, self.per], 4), 4)?;
        call.number("slots of a token", self.per, 1, 32)?;
        call.span("y", self.y, bytes(&[self.tokens, self.width], 4), 4)?;
        let width = call.number("width", self.width, 1, MOST)?;
        Ok(call.on([width.div_ceil(256), tokens, 1], 256, 0))
    }
}
