//! What a path on the command line is: a checkpoint directory or a `.gq` file.

use crate::cli::Global;
use crate::commands::Activations;
use crate::failure::{Exit, Failure};
use crate::output::Output;
use gq_checkpoint::Checkpoint;
use gq_container::Container;
use gq_eval::{Sizes, checkpoint_sizes, container_sizes};
use gq_model::{ActivationMode, Model, RunOptions};
use std::path::Path;
use std::sync::Arc;

/// Opens a checkpoint directory.
pub fn checkpoint(path: &Path) -> Result<Checkpoint, Failure> {
    let found = std::fs::metadata(path).map_err(|e| Failure::io(path, &e))?;
    if !found.is_dir() {
        let message = format!("{}: a checkpoint directory is expected, this is a file", path.display());
        let failure = Failure::new(Exit::Input, "source.unknown", message);
        return Err(failure.at(path.display()).limit("a directory").actual("a file"));
    }
    Ok(Checkpoint::open(path)?)
}

/// Says what a checkpoint lacks to be run on text.
pub fn warn_incomplete(checkpoint: &Checkpoint, output: Output) {
    if !checkpoint.has_tokenizer() {
        output.warn("the checkpoint has no tokenizer.json: the file can be evaluated against reference outputs, not on text");
    }
}

/// A model with its sizes.
pub struct Loaded {
    /// Ready to run.
    pub model: Model,
    /// Its bytes and weights.
    pub sizes: Sizes,
}

/// Loads a checkpoint directory or a `.gq` file. Codes meet int8 activations, floats f32, unless told otherwise.
pub fn model(path: &Path, activations: Option<Activations>, global: &Global) -> Result<Loaded, Failure> {
    let found = std::fs::metadata(path).map_err(|e| Failure::io(path, &e))?;
    let mode = |default| match activations {
        None => default,
        Some(Activations::Int8) => ActivationMode::Int8,
        Some(Activations::F32) => ActivationMode::F32,
    };
    let options = |activations| -> Result<RunOptions, Failure> {
        Ok(RunOptions { level: global.level()?, activations, ..RunOptions::default() })
    };
    if found.is_dir() {
        let checkpoint = Arc::new(Checkpoint::open(path)?);
        let sizes = checkpoint_sizes(&checkpoint);
        let model = Model::from_checkpoint(checkpoint, options(mode(ActivationMode::F32))?)?;
        return Ok(Loaded { model, sizes });
    }
    let container = Arc::new(Container::open(path)?);
    let model = Model::from_container(container.clone(), options(mode(ActivationMode::Int8))?)?;
    let sizes = container_sizes(&container, model.spec());
    Ok(Loaded { model, sizes })
}

/// Runs `work` with the threads that were asked for.
pub fn with_threads<T: Send>(global: &Global, work: impl FnOnce() -> T + Send) -> Result<T, Failure> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(global.threads()).build();
    let pool = pool.map_err(|e| Failure::new(Exit::Environment, "threads", format!("threads: {e}")))?;
    Ok(pool.install(work))
}
