//! Written files are seen to work before they get their names: their texts are read, scales and values are finite, the
//! tokenizer makes tokens, and the model makes one more of them. Of large files one layer of each kind and the head.

use crate::explain::broken;
use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::texts::{self, ByKind};
use crate::{guard, signals, source, units};
use gq_checkpoint::{Checkpoint, parse_config};
use gq_codec::code_of;
use gq_container::{Container, TensorEntry, TextKind};
use gq_files::Existing;
use gq_model::{ActivationMode, KvType, Model, RunOptions};
use gq_tensor::{DType, Encoding, decode_f32};
use gq_text::{SpecialText, Tokenizer};
use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes above which only one layer of each kind is run.
const WHOLE: u64 = 4_000_000_000;

/// Tokens that are run at most.
const TOKENS: usize = 4;

/// Leaving out the check.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub struct NoCheck {
    /// Do not look at what was written: by default its texts are read, its values are finite, and it makes one token.
    #[arg(long)]
    pub no_check: bool,
}

/// What was seen of a file.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Seen {
    /// Whether anything was looked at.
    pub checked: bool,
    /// Whether its tokenizer made tokens; `None` where it has none.
    pub tokenizes: Option<bool>,
    /// The token that the model made.
    pub token: Option<u32>,
    /// Layers that were run for it.
    pub layers: usize,
    /// Layers of the model.
    pub of_layers: usize,
    /// What was not seen.
    pub not_seen: Vec<String>,
}

impl Seen {
    /// What was not seen, in one line; nothing where all was.
    pub fn line(&self) -> String {
        match self.not_seen.is_empty() {
            true => String::new(),
            false => format!("not seen: {}\n", self.not_seen.join("; ")),
        }
    }
}

/// Where a finished file goes, and what becomes of one that is there by then.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// Its name.
    pub path: &'a Path,
    /// What becomes of the other one.
    pub existing: Existing,
}

/// Looks at files for one command.
pub struct Checker<'a> {
    skip: NoCheck,
    max_memory: Option<u64>,
    /// Bytes above which only one layer of each kind is run.
    whole: u64,
    global: &'a Global,
    seen: Mutex<Seen>,
}

impl<'a> Checker<'a> {
    /// Looks at what is written, or not.
    pub fn new(skip: NoCheck, global: &'a Global) -> Checker<'a> {
        Checker { skip, max_memory: None, whole: WHOLE, global, seen: Mutex::default() }
    }

    /// The same within so much memory: a tokenizer that takes more is not built.
    pub fn within(self, max_memory: Option<u64>) -> Checker<'a> {
        Checker { max_memory, ..self }
    }

    /// Looks at a checkpoint's texts before any work is done with it, and says which chat templates are of no use.
    pub fn texts(&self, checkpoint: &Checkpoint) -> Result<(), Failure> {
        if self.skip.no_check {
            return Ok(());
        }
        let texts = texts::of_checkpoint(checkpoint.texts()?);
        let read = self.read(texts, &checkpoint.dir().display().to_string());
        let outcome = read.map(|read| texts::warn_of_templates(&read.templates, self.global.output()));
        // A tokenizer is many small pieces: what comes next has its memory to itself.
        gq_files::return_small_pieces();
        outcome
    }

    /// Whether a checkpoint's tokenizer may be built: not without a check, nor beyond the memory that is allowed.
    pub fn may_tokenize(&self, checkpoint: &Checkpoint) -> Result<bool, Failure> {
        let needed = texts::memory(&texts::of_checkpoint(checkpoint.texts()?));
        Ok(!self.skip.no_check && self.max_memory.is_none_or(|limit| needed <= limit))
    }

    /// Most memory that is taken while what is made of a checkpoint is looked at: what its tokenizer takes, unless that is
    /// not tried.
    pub fn memory(&self, checkpoint: &Checkpoint) -> Result<u64, Failure> {
        match self.may_tokenize(checkpoint)? {
            true => Ok(texts::memory(&texts::of_checkpoint(checkpoint.texts()?))),
            false => Ok(0),
        }
    }

    /// Reads texts as a reader does. Gives the tokenizer, and what was not seen.
    fn read(&self, mut texts: ByKind, place: &str) -> Result<Read, Failure> {
        let needed = texts::memory(&texts);
        let mut not_seen = Vec::new();
        if let Some(limit) = self.max_memory.filter(|limit| needed > *limit) {
            texts.remove(&TextKind::Tokenizer);
            not_seen.push(format!(
                "text: the tokenizer takes about {} of memory, --max-memory allows {}",
                units::bytes(needed),
                units::bytes(limit)
            ));
        } else if !texts.contains_key(&TextKind::Tokenizer) {
            not_seen.push("text: there is no tokenizer, numbers stand in for it".to_owned());
        }
        let read = texts::or_refuse(texts::read(&texts), Exit::Input, "text.broken", place)?;
        Ok(Read { tokenizer: read.tokenizer, templates: read.templates, not_seen })
    }

    /// Looks at a file or a checkpoint directory.
    fn look_at(&self, path: &Path) -> Result<Seen, Failure> {
        let (global, place) = (self.global, path.display().to_string());
        if !source::is_checkpoint(path)? {
            let container = Arc::new(Container::open(path)?);
            let read = self.read(texts::of_container(&container)?, &place)?;
            finite(&container, Exit::Input, "seen.broken")?;
            let options = options(ActivationMode::Int8, global)?;
            let bytes = container.file_bytes();
            return self.one_token(&Model::from_container(container, options)?, bytes, read);
        }
        let checkpoint = Arc::new(source::checkpoint(path, global)?);
        let read = self.read(texts::of_checkpoint(checkpoint.texts()?), &place)?;
        let bytes = checkpoint.tensors().iter().map(|tensor| tensor.bytes).fold(0, u64::saturating_add);
        let options = options(ActivationMode::F32, global)?;
        // Weights that are stored as codes are decoded as they are used: what is seen depends on no memory.
        self.one_token(&Model::from_checkpoint_unheld(checkpoint, options)?, bytes, read)
    }

    /// Tokens in, one token out.
    fn one_token(&self, model: &Model, bytes: u64, read: Read) -> Result<Seen, Failure> {
        let Read { tokenizer, not_seen, .. } = read;
        let of_layers = model.spec().layers.len();
        let all = bytes <= self.whole;
        let chosen = if all { (0..of_layers).collect() } else { model.layers_of_each_kind() };
        let (layers, tokenizes) = (chosen.len(), tokenizer.as_ref().map(|_| true));
        let mut seen = Seen { checked: true, tokenizes, layers, of_layers, not_seen, token: None };
        let mut tokens = match &tokenizer {
            Some(tokenizer) => tokenizer.prompt(texts::SAMPLE, SpecialText::Plain)?,
            None => {
                let limit = u32::try_from(model.vocab_size()).unwrap_or(u32::MAX);
                (1..=TOKENS as u32).map(|id| id % limit).collect()
            }
        };
        tokens.truncate(TOKENS);
        seen.token = Some(model.probe(&tokens, &chosen)?);
        if !all {
            let others = of_layers - layers;
            seen.not_seen
                .push(format!("{others} of {of_layers} layers: one of each kind was run, and the head"));
        }
        Ok(seen)
    }

    /// Looks at a `.gq` file, a GGUF or a checkpoint directory that has no name yet.
    pub fn look(&self, path: &Path) -> Result<(), Failure> {
        signals::whole(path);
        let seen = match self.skip.no_check {
            true => Seen { not_seen: vec!["that the file works (--no-check)".to_owned()], ..Seen::default() },
            false => self.look_at(path)?,
        };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        Ok(())
    }

    /// What was seen of the last file.
    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes to another name first, looks at that, and gives it its own. `write` gets where to write; nothing is left of
    /// what is refused. Right before it gets its name, `unchanged` says whether what it was made from is what it was.
    pub fn through<T>(
        &self,
        destination: Destination<'_>,
        unchanged: &dyn Fn() -> Result<(), Failure>,
        write: impl FnOnce(&Path) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let Destination { path, existing } = destination;
        let candidate = guard::candidate(path);
        // Another run's may lie there by now; what a run that was killed left goes.
        let _mark = guard::take_candidate(path)?;
        let outcome = write(&candidate).and_then(|written| {
            signals::wait_if_ending();
            if candidate.exists() {
                self.look(&candidate).map_err(|failure| broken(path, failure))?;
                unchanged()?;
                guard::place(&candidate, path, existing)?;
            }
            Ok(written)
        });
        if outcome.is_err() {
            let _ = gq_files::remove_begun(&candidate); // the first failure is the one to tell
        }
        outcome
    }
}

/// What was read of a model's texts.
struct Read {
    tokenizer: Option<Tokenizer>,
    templates: Vec<texts::Broken>,
    not_seen: Vec<String>,
}

fn options(activations: ActivationMode, global: &Global) -> Result<RunOptions, Failure> {
    Ok(RunOptions { level: global.isa()?, activations, kv: KvType::F32 })
}

/// Refuses scales and exact values that are infinite or not a number. What the graph does not use is not looked at: the
/// bounds of clipped activations in towers may be infinite.
pub fn finite(container: &Container, exit: Exit, code: &'static str) -> Result<(), Failure> {
    let spec = container.text(TextKind::Config)?.and_then(|config| parse_config(&config).ok());
    let used: Option<HashSet<String>> =
        spec.map(|spec| spec.expected_tensors().into_iter().map(|tensor| tensor.name).collect());
    let is_used = |entry: &&TensorEntry| used.as_ref().is_none_or(|used| used.contains(&entry.name));
    let bad = container.tensors().iter().filter(is_used).find(|entry| !is_finite(container, entry));
    let Some(entry) = bad else { return Ok(()) };
    let what = if entry.encoding.is_exact() { "a value" } else { "a scale" };
    let message =
        format!("{}: tensor {:?} has {what} that is not finite", container.path().display(), entry.name);
    Err(Failure::new(exit, code, message).at(&entry.name).limit("finite numbers").actual("NaN or infinite"))
}

fn is_finite(container: &Container, entry: &TensorEntry) -> bool {
    let payload = container.payload(entry);
    match entry.encoding {
        Encoding::Exact(dtype) => is_finite_exact(dtype, payload),
        // Scales, minima and norms, of whatever width the encoding stores them.
        _ => container.matrix(entry).is_ok_and(|matrix| {
            code_of(entry.storage()).is_ok_and(|code| code.finite_scales(matrix.scales()))
        }),
    }
}

/// Values a step at a time.
fn is_finite_exact(dtype: DType, bytes: &[u8]) -> bool {
    const STEP: usize = 1 << 14;
    let mut values = vec![0.0; STEP];
    bytes.chunks(STEP * dtype.size().max(1)).all(|bytes| {
        let values = &mut values[..bytes.len() / dtype.size().max(1)];
        decode_f32(dtype, bytes, values);
        values.iter().all(|value| value.is_finite())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser;

    /// A copy of a checkpoint of three layers of two kinds, with a tensor whose first weight is not a number.
    fn poisoned(dir: &Path, tensor: Option<&str>) {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/tiny/gemma3");
        let mut found = tensor.is_none();
        for entry in std::fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let mut bytes = std::fs::read(&path).unwrap();
            if let Some(tensor) = tensor.filter(|_| name.starts_with("model-")) {
                let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
                let json: serde_json::Value = serde_json::from_slice(&bytes[8..header]).unwrap();
                if let Some(at) = json[tensor]["data_offsets"][0].as_u64() {
                    assert_eq!(json[tensor]["dtype"], "BF16", "{tensor}");
                    bytes[header + at as usize..][..2].copy_from_slice(&0x7FC0u16.to_le_bytes());
                    found = true;
                }
            }
            if !name.starts_with("reference") {
                std::fs::write(dir.join(name), bytes).unwrap();
            }
        }
        assert!(found, "{tensor:?}");
    }

    #[test]
    fn of_large_files_one_layer_of_each_kind_and_the_head_are_run() {
        let global = Cli::try_parse_from(["gq", "demo"]).unwrap().global;
        let look = |whole: u64, tensor: Option<&str>| {
            let dir = tempfile::tempdir().unwrap();
            poisoned(dir.path(), tensor);
            let checker = Checker { whole, ..Checker::new(NoCheck::default(), &global) };
            checker.look(dir.path()).map(|()| checker.seen())
        };
        let down = |layer: usize| format!("model.layers.{layer}.mlp.down_proj.weight");
        let all = look(WHOLE, None).unwrap();
        assert_eq!((all.layers, all.of_layers, all.token.is_some()), (3, 3, true));
        assert!(all.not_seen.iter().all(|what| !what.contains("layers")), "{:?}", all.not_seen);
        let some = look(0, None).unwrap();
        assert_eq!((some.layers, some.of_layers, some.token.is_some()), (2, 3, true));
        let said = "1 of 3 layers: one of each kind was run, and the head";
        assert!(some.not_seen.iter().any(|what| what == said), "{:?}", some.not_seen);
        // The second layer is of the first one's kind.
        assert!(look(WHOLE, Some(&down(1))).is_err());
        assert_eq!(look(0, Some(&down(1))).unwrap().layers, 2);
        for tensor in [down(0), down(2), "model.norm.weight".to_owned()] {
            assert!(look(0, Some(&tensor)).is_err(), "{tensor}");
        }
    }
}
