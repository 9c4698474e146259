//! What is done to a finished file: rounded again, its scales tuned, its divergence measured and planned for.

mod finite;
mod rounds;
mod scales;
mod target_kld;

pub use finite::{NotFinite, Side};
pub use rounds::{
    RoundAgain, RoundAgainError, RoundAgainEvent, RoundAgainOptions, RoundedAgainOutcome, TensorAgain,
    check_source,
};
pub use scales::{ScalesError, ScalesEvent, ScalesOptions, ScalesTuned, TunedScales, tune_scales};
pub use target_kld::{TargetKld, TargetKldError, held_out_divergence};
