//! Compares a model with a reference.

use crate::adapters::Adapters;
use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::jobs::calibration_text::{self, TextWriter};
use crate::progress::{Progress, Stage, Unit};
use crate::source::Loaded;
use crate::{expected, guard, source};
use gq_checkpoint::{FileKind, SourceFile};
use gq_eval::{EvalReport, Identity, LogitCache, OutputsWriter, TextOptions, Windows, evaluate_text};
use gq_text::{SpecialText, Tokenizer};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Refuses outputs that do not fit on the disk, before anything is run for them.
pub fn room(options: &TextOptions<'_>, rows: usize, positions: usize, vocab: usize) -> Result<(), Failure> {
    let Some(path) = options.save_outputs else { return Ok(()) };
    guard::space(path, OutputsWriter::file_bytes(rows, positions, vocab))
}

/// A text to measure on.
pub fn read_text(path: &Path) -> Result<String, Failure> {
    let bytes = source::text_bytes(path)?;
    let place = path.display();
    String::from_utf8(bytes).map_err(|e| {
        Failure::new(Exit::Input, "eval.text_not_utf8", format!("{place}: {}", e.utf8_error())).at(&place)
    })
}

/// Where logits are kept; nowhere when nothing may be kept or the user has no cache.
pub fn cache_dir(chosen: Option<&Path>, limit: u64) -> Option<PathBuf> {
    let dir = chosen.map(Path::to_owned).or_else(|| Some(crate::user_cache::dir()?.join("logits")));
    dir.filter(|_| limit > 0)
}

/// What stands for the reference in the cache: digests of its files, its arithmetic, this program.
pub fn identity(
    path: &Path,
    loras: &Adapters,
    reference: &Loaded,
    cache: &LogitCache,
    global: &Global,
) -> Result<Identity, Failure> {
    let files = match source::is_checkpoint(path)? {
        true => {
            let checkpoint = source::checkpoint(path, global)?;
            let decisive = |file: &&SourceFile| file.kind == FileKind::Weights || file.name == "config.json";
            checkpoint.files().iter().filter(decisive).map(|file| file.path.clone()).collect()
        }
        false => vec![path.to_owned()],
    };
    // How much there is to digest is known when it begins: what was digested before is known by its size and time.
    let mut progress: Option<Progress> = None;
    let mut step = |done, total| {
        let begin = || Progress::staged(global, "digesting", vec![expected::digesting(total)]);
        progress.get_or_insert_with(begin).set(done, "");
    };
    let mut build = concat!("gq ", env!("CARGO_PKG_VERSION")).to_owned();
    if !loras.is_empty() {
        for adapter in source::checkpoint_with(path, loras, global)?.adapters() {
            let digests: Vec<&str> = adapter.files().iter().map(|file| file.sha256.as_str()).collect();
            build += &format!(" + {} x {}", adapter.weight(), digests.join(" "));
        }
    }
    let identity = Identity::of_files(&files, reference.model.options(), &build, cache.dir(), &mut step);
    progress.map(Progress::finish);
    identity.map_err(|e| Failure::io(path, &e))
}

/// What the reference writes, `count` windows of it; taken from the cache when it wrote it before.
pub fn self_tokens(
    reference: &Loaded,
    ctx: usize,
    count: usize,
    kept: Option<(&Path, &Identity)>,
    global: &Global,
) -> Result<Vec<u32>, Failure> {
    let wanted = ctx.saturating_mul(count);
    let texts = reference.model.texts();
    let said = [&texts.chat_template, &texts.tokenizer, &texts.tokenizer_config];
    let file = kept.map(|(dir, identity)| {
        let key = Sha256::digest(format!("side by side {identity:?} {ctx} {count} {said:?}"));
        let name: String = key.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        dir.join(format!("self-{name}.json"))
    });
    let written = file.as_ref().and_then(|file| serde_json::from_slice(&std::fs::read(file).ok()?).ok());
    if let Some(tokens) = written {
        return Ok(tokens);
    }
    let model = &reference.model;
    let tokenizer = Tokenizer::new(model.texts(), model.spec())?;
    let mut progress = calibration_text::writing(global, wanted, reference.sizes.weights as f64)?;
    let mut seen = |done: u64, of: u64| progress.stage("", done, of, "own text");
    let writer = TextWriter { model, tokenizer: &tokenizer, max_memory: None, global };
    let tokens = writer.self_tokens(wanted, ctx, &mut seen)?;
    progress.finish();
    if let Some(file) = file {
        let kept = serde_json::to_vec(&tokens).map_err(|e| Failure::internal("tokens", &e))?;
        if let Err(error) = gq_files::write_whole(&file, &kept) {
            global.output().note(&format!("{}: {error}; the text is not kept", file.display()));
        }
    }
    Ok(tokens)
}

/// Compares two models on text.
pub fn on_text(
    model: &Loaded,
    reference: &Loaded,
    text: &str,
    ctx: usize,
    count: Option<usize>,
    options: TextOptions<'_>,
    global: &Global,
) -> Result<EvalReport, Failure> {
    let tokenizer = Tokenizer::new(reference.model.texts(), reference.model.spec())?;
    let tokens = tokenizer.encode(text, SpecialText::Plain)?;
    let windows = Windows::new(&tokens, ctx, count, tokenizer.bos()).map_err(gq_eval::EvalError::from)?;
    on_windows(model, reference, &windows, options, global)
}

pub fn on_windows(
    model: &Loaded,
    reference: &Loaded,
    windows: &Windows,
    options: TextOptions<'_>,
    global: &Global,
) -> Result<EvalReport, Failure> {
    let (total, ctx) = (windows.windows().len(), windows.windows().first().map_or(0, Vec::len));
    room(&options, total, ctx, model.model.vocab_size())?;
    // The first windows take the reference a second time.
    let first = total.min(gq_eval::FLOOR_WINDOWS);
    let stages = [("noise floor", first, 2), ("windows", total - first, 1)];
    let stages = stages.into_iter().map(|(name, windows, references)| {
        let seconds = Some(expected::evaluation(model, reference, references, ctx * windows, global)?);
        Ok(Stage { name, unit: Unit::Items("windows"), total: windows as u64, seconds })
    });
    let mut progress = Progress::staged(global, "eval", stages.collect::<Result<_, Failure>>()?);
    let mut step = |done: usize, _: usize| match done.checked_sub(first) {
        None | Some(0) => progress.stage("noise floor", done as u64, first as u64, ""),
        Some(done) => progress.stage("windows", done as u64, (total - first) as u64, ""),
    };
    let report = evaluate_text(&model.model, &reference.model, windows, model.sizes, options, &mut step)?;
    progress.finish();
    reference.check_unchanged()?;
    model.check_unchanged()?;
    Ok(EvalReport { tokens_sha256: tokens_sha256(windows.windows()), ..report })
}

pub fn tokens_sha256(rows: &[Vec<u32>]) -> String {
    let mut hash = Sha256::new();
    rows.iter().flatten().for_each(|token| hash.update(token.to_le_bytes()));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
