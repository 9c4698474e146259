//! One file per command; each has its arguments and a `run`.

pub mod bench;
pub mod budget;
pub mod calibrate;
pub mod calibration;
pub mod completions;
pub mod convert;
pub mod demo;
pub mod eval;
pub mod export;
pub mod improve;
pub mod inspect;
pub mod man;
pub mod meta;
pub mod outcome;
pub mod plan;
pub mod pull;
pub mod push;
pub mod recipe;
pub mod release;
pub mod run;
pub mod target_kld;
pub mod verify;

use crate::cli::{Cli, Command};
use crate::failure::Failure;

/// Runs the command that was asked for.
pub fn dispatch(cli: &Cli) -> Result<(), Failure> {
    let global = &cli.global;
    if matches!(
        &cli.command,
        Command::Convert(_) | Command::Calibrate(_) | Command::Improve(_) | Command::Release(_)
    ) {
        gq_files::return_large_buffers(); // they promise how much memory they take
    }
    match &cli.command {
        Command::Convert(args) => convert::run(args, global),
        Command::Calibrate(args) => calibrate::run(args, global),
        Command::Improve(args) => improve::run(args, global),
        Command::Plan(args) => plan::run(args, global),
        Command::Inspect(args) => inspect::run(args, global),
        Command::Meta(args) => meta::run(args, global),
        Command::Verify(args) => verify::run(args, global),
        Command::Eval(args) => eval::run(args, global),
        Command::Run(args) => run::run(args, global),
        Command::Export(args) => export::run(args, global),
        Command::Pull(args) => pull::run(args, global),
        Command::Push(args) => push::run(args, global),
        Command::Release(args) => release::run(args, global),
        Command::Bench(args) => bench::run(args, global),
        Command::Demo(args) => demo::run(args, global),
        Command::Completions(args) => completions::run(args, global),
        Command::Man(args) => man::run(args, global),
    }
}

/// Storage of keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kv {
    /// Single precision.
    F32,
    /// Half precision.
    F16,
    /// Eight bits, one scale per 32.
    Q8,
}

impl From<Kv> for gq_model::KvType {
    fn from(kv: Kv) -> gq_model::KvType {
        match kv {
            Kv::F32 => gq_model::KvType::F32,
            Kv::F16 => gq_model::KvType::F16,
            Kv::Q8 => gq_model::KvType::Q8,
        }
    }
}

/// Arithmetic of activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Activations {
    /// Rounded to int8, one scale per 32 after the rotation.
    Int8,
    /// As they are.
    F32,
}

/// Where what can be made again is kept; nowhere when the user has no cache.
pub fn user_cache() -> Option<std::path::PathBuf> {
    let variable =
        |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(std::path::PathBuf::from);
    let user = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    Some(user?.join("gq"))
}
