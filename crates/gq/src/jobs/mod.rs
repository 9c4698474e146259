//! The work of commands, shared by those that do the same: each takes what was decided, shows progress and gives a result.

pub mod calibration_text;
pub mod convert;
pub mod evaluate;
pub mod importance;
pub mod measure;
pub mod measuring_memory;
pub mod target_kld;
