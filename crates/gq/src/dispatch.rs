//! From a parsed command line to the command that it names.

use crate::cli::{Cli, Command, WIDEST};
use crate::commands::{
    bench, calibrate, completions, convert, demo, doctor, eval, export, improve, inspect, man, meta, plan,
    pull, push, release, run, serve, verify,
};
use crate::failure::Failure;
use crate::help;
use clap::CommandFactory;

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
        Command::Serve(args) => serve::run(args, global),
        Command::Export(args) => export::run(args, global),
        Command::Pull(args) => pull::run(args, global),
        Command::Push(args) => push::run(args, global),
        Command::Release(args) => release::run(args, global),
        Command::Bench(args) => bench::run(args, global),
        Command::Demo(args) => demo::run(args, global),
        Command::Doctor(args) => doctor::run(args, global),
        Command::Completions(args) => completions::run(args, &mut Cli::command(), global),
        Command::Man(args) => man::run(args, &|common| help::command(WIDEST, common), global),
    }
}
