//! `gq plan`: what `gq convert` would do, without writing anything.

use crate::cli::Global;
use crate::commands::convert::{self, Recipe};
use crate::failure::Failure;
use crate::source;
use std::path::PathBuf;

/// Show what convert would do: every tensor's encoding and reason, the exact size, memory and time.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  gq plan ./gemma-3-270m --bits 3 --override 'down_proj=tq4'")]
pub struct PlanArgs {
    /// Checkpoint directory, a GGUF, or a repository (hf://ORG/NAME, hf://ORG/NAME@REV).
    #[arg(value_name = "SRC")]
    source: PathBuf,
    #[command(flatten)]
    recipe: Recipe,
    /// List every tensor.
    #[arg(long)]
    tensors: bool,
}

pub fn run(args: &PlanArgs, global: &Global) -> Result<(), Failure> {
    let found = source::find(&args.source, global)?;
    convert::show_plan(&found.path, &args.recipe, args.tensors, global)
}
