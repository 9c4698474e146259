//! One file per command; each has its arguments and a `run`.

pub mod bench;
pub mod calibrate;
pub mod completions;
pub mod convert;
pub mod demo;
pub mod doctor;
pub mod eval;
pub mod export;
pub mod improve;
pub mod inspect;
pub mod man;
pub mod meta;
pub mod plan;
pub mod pull;
pub mod push;
pub mod release;
pub mod run;
pub mod serve;
pub mod verify;
