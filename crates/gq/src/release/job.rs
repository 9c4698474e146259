//! Everything that is known of a release before anything is made.

use crate::adapters::{Adapters, Lora};
use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::options::recipe::calibration;
use crate::progress::Progress;
use crate::release::manifest::source_files;
use crate::release::recipe::Recipe;
use crate::seen::{Checker, NoCheck};
use crate::source::Found;
use crate::sums;
use crate::{expected, source, texts};
use gq_calibrate::MeasurementsDir;
use gq_checkpoint::Checkpoint;
use serde_json::{Value, json};
use std::path::Path;

/// What was asked for on the command line.
pub struct Asked<'a> {
    /// The checkpoint.
    pub source: &'a Path,
    /// The recipe.
    pub recipe: &'a Path,
    /// Whether a source that is quantized already may be.
    pub allow_requantize: bool,
    /// Most bytes of memory to convert in.
    pub max_memory: Option<u64>,
    /// Where logits of references are kept.
    pub cache: Option<&'a Path>,
    /// Most bytes to keep there.
    pub cache_limit: u64,
    /// Whether finished files are tried.
    pub no_check: NoCheck,
}

/// Everything that is known before anything is made.
pub struct Job<'a> {
    /// What was asked for.
    pub asked: Asked<'a>,
    /// Options of every command.
    pub global: &'a Global,
    /// The recipe, read.
    pub recipe: Recipe,
    /// The source, found.
    pub found: Found,
    /// Its adapters.
    pub loras: Adapters,
    /// The source with its adapters.
    pub checkpoint: Checkpoint,
    /// What it is rounded by.
    pub measurements: Option<MeasurementsDir>,
    /// Of the release.
    pub name: String,
    /// The repository that the card names.
    pub base_model: String,
    /// Of the base model.
    pub license: String,
    /// What its sizes are measured on.
    pub text: String,
    /// All that decides its bytes.
    pub inputs: Value,
}

impl Job<'_> {
    /// Everything that is read to make it, as it was given.
    pub fn reads(&self) -> Vec<&Path> {
        let recipe = [Some(self.recipe.evaluation.text.as_path()), self.recipe.measurements.as_deref()];
        let given = [self.asked.source, self.asked.recipe].into_iter().chain(recipe.into_iter().flatten());
        given.chain(self.loras.paths()).collect()
    }
}

/// Reads everything that a release is made of, and digests its source.
///
/// # Errors
/// When something of it is missing, broken, or does not fit together.
pub fn prepare<'a>(asked: Asked<'a>, global: &'a Global) -> Result<Job<'a>, Failure> {
    let mut recipe = Recipe::read(asked.recipe)?;
    let found = source::find(asked.source, global)?;
    let loras = recipe.lora.iter().map(|lora| Lora::new(lora.path.clone(), lora.weight)).collect();
    let loras = Adapters::new(loras, recipe.tokenizer_from.clone());
    let checkpoint = source::checkpoint_with(&found.path, &loras, global)?;
    source::try_checkpoints_tokenizer(&checkpoint, global.output())?;
    source::refuse_quantized(&checkpoint, asked.allow_requantize)?;
    Checker::new(asked.no_check, global).within(asked.max_memory).texts(&checkpoint)?;
    // A release is checked whole, its chat templates with names too.
    let broken = texts::broken_templates(&checkpoint.texts()?);
    if !broken.is_empty() {
        let place = checkpoint.dir().display().to_string();
        texts::or_refuse(Err(broken), Exit::Input, "text.broken", &place)?;
    }
    let measurements = recipe.measurements.as_deref().map(MeasurementsDir::open).transpose()?;
    if let Some(measurements) = &measurements {
        measurements.check_source(&gq_calibrate::source_files(&checkpoint))?;
        recipe
            .variants
            .iter_mut()
            .for_each(|v| v.policy.calibration = Some(calibration(measurements.value())));
    }
    let texts = checkpoint.texts()?;
    let lacking = |field: &str, why: &str| {
        let message = format!("{}: {field} is missing, and {why}", asked.recipe.display());
        Failure::new(Exit::Input, "recipe", message).at(field)
    };
    let base_model =
        recipe.base_model.clone().or_else(|| found.origin.as_ref().map(|origin| origin.repo.clone()));
    let base_model = base_model.ok_or_else(|| lacking("base_model", "the source is not a repository"))?;
    let license = recipe.card.license.clone().or_else(|| texts.licence_name.clone());
    let license =
        license.ok_or_else(|| lacking("card.license", "the source's README.md does not name one"))?;
    let name = recipe.name.clone().unwrap_or_else(|| found.name.clone());
    let path = &recipe.evaluation.text;
    let text = source::text_bytes(path)?;
    let text_sha256 = sums::sha256_of(&text);
    let text = String::from_utf8(text).map_err(|e| {
        let message = format!("{}: {}", path.display(), e.utf8_error());
        Failure::new(Exit::Input, "eval.text_not_utf8", message).at(path.display())
    })?;
    let total = checkpoint.files().iter().map(|file| file.bytes).sum();
    let mut progress = Progress::staged(global, "digesting", vec![expected::digesting(total)]);
    let mut done = 0;
    let files = source_files(&checkpoint, |bytes| {
        done += bytes;
        progress.set(done, "");
    })?;
    progress.finish();
    let adapters = checkpoint.adapters().iter().map(|adapter| {
        let files = adapter.files().iter();
        let files = files.map(|f| json!({ "name": f.name, "bytes": f.bytes, "sha256": f.sha256 }));
        json!({ "name": adapter.name(), "weight": adapter.weight(), "files": files.collect::<Vec<_>>() })
    });
    let texts_from = checkpoint.taken_texts().map(|taken| {
        let files = taken.files.iter();
        let files = files.map(|f| json!({ "name": f.name, "bytes": f.bytes, "sha256": f.sha256 }));
        json!({ "from": taken.from, "files": files.collect::<Vec<_>>() })
    });
    let variants = recipe
        .variants
        .iter()
        .map(|variant| json!({ "name": variant.name, "policy": variant.policy, "gates": variant.gates }));
    let inputs = json!({
        "tool": concat!("gq ", env!("CARGO_PKG_VERSION")),
        "isa": global.isa()?.name(),
        "name": name,
        "base_model": base_model,
        "repo": recipe.repo,
        "license": license,
        "card": recipe.card,
        "origin": found.origin.as_ref().map(|o| json!({ "repo": o.repo, "revision": o.revision })),
        "source": files,
        "adapters": adapters.collect::<Vec<_>>(),
        "texts": texts_from,
        "text": {"name": file_name(path), "bytes": text.len(), "sha256": text_sha256},
        "ctx": recipe.evaluation.ctx,
        "windows": recipe.evaluation.windows,
        "variants": variants.collect::<Vec<_>>(),
    });
    // As it will be read from a file: numbers may change their form.
    let inputs = crate::release::verify::round_trip(&inputs)?;
    Ok(Job {
        asked,
        global,
        recipe,
        found,
        loras,
        checkpoint,
        measurements,
        name,
        base_model,
        license,
        text,
        inputs,
    })
}

pub fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
