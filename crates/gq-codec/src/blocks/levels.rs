//! Which numbers codes stand for.

use gq_tensor::ggml::IQ4_LEVELS;

/// What codes stand for, in units of their sub-block's scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Levels {
    /// All integers of a range.
    Integers { low: f32, high: f32 },
    /// The 16 levels of the IQ4 types.
    Iq4,
}

impl Levels {
    /// The lowest and the highest.
    pub(super) fn ends(self) -> (f32, f32) {
        match self {
            Levels::Integers { low, high } => (low, high),
            Levels::Iq4 => (f32::from(IQ4_LEVELS[0]), f32::from(IQ4_LEVELS[15])),
        }
    }

    /// By how much ends are moved between two scales that are tried.
    pub(super) fn move_of_ends(self) -> f32 {
        match self {
            Levels::Integers { .. } => 0.15,
            Levels::Iq4 => 2.5,
        }
    }
}
