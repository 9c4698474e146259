//! The command line as clap sees it: global options and the list of commands.

use crate::commands;
use crate::global::Global;
use clap::{Parser, Subcommand};

/// Most columns of help.
pub const WIDEST: usize = 110;

/// Turns a Hugging Face checkpoint into the smallest file that still behaves like the original.
#[derive(Parser, Debug)]
#[command(name = "gq", version, propagate_version = true, max_term_width = WIDEST, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  gq demo                                          the whole job on an embedded model, offline
  gq convert ./SmolLM2-135M -o smol.gq             quantize a checkpoint, calibrated, in minutes
  gq eval smol.gq --reference ./SmolLM2-135M --text wiki.txt
  gq run smol.gq -p 'Why is the sky blue?'

Exit codes:
  0  done
  1  a check failed (verify, --fail-above, a release's limits)
  2  the command line is wrong
  3  a file is not what it should be
  4  the environment failed (disk, memory, network, permissions)
  130  interrupted; the message says what is kept and how to continue";

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    Convert(commands::convert::ConvertArgs),
    Calibrate(commands::calibrate::CalibrateArgs),
    Improve(commands::improve::ImproveArgs),
    Plan(commands::plan::PlanArgs),
    Inspect(commands::inspect::InspectArgs),
    Meta(commands::meta::MetaArgs),
    Verify(commands::verify::VerifyArgs),
    Eval(commands::eval::EvalArgs),
    Run(commands::run::RunArgs),
    Serve(commands::serve::ServeArgs),
    Export(commands::export::ExportArgs),
    Pull(commands::pull::PullArgs),
    Push(commands::push::PushArgs),
    Release(commands::release::ReleaseArgs),
    Bench(commands::bench::BenchArgs),
    Demo(commands::demo::DemoArgs),
    Doctor(commands::doctor::DoctorArgs),
    Completions(commands::completions::CompletionsArgs),
    Man(commands::man::ManArgs),
}
