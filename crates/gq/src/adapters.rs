//! Adapters on the command line: which, how strong, and whose tokenizer the result has.

use gq_checkpoint::TextsFrom;
use std::path::{Path, PathBuf};

/// The options that every command has which opens a checkpoint to run or convert it.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Adapters {
    /// Merge an adapter into the checkpoint first: a folder as PEFT, Unsloth or MLX writes it; repeatable, with weights.
    #[arg(long = "lora", value_name = "DIR[=WEIGHT]", value_parser = lora)]
    loras: Vec<Lora>,
    /// Where tokenizer, chat template and end of turn come from: base, adapter, or a folder [default: the adapter,
    /// where its folder has them].
    #[arg(long, value_name = "base|adapter|DIR", requires = "loras", value_parser = tokenizer_from)]
    tokenizer_from: Option<TextsFrom>,
}

/// An adapter on the command line.
#[derive(Clone, Debug)]
pub struct Lora {
    given: PathBuf,
    weight: f64,
}

impl Lora {
    /// An adapter with a weight.
    pub fn new(given: PathBuf, weight: f64) -> Lora {
        Lora { given, weight }
    }
}

impl Adapters {
    /// Adapters in order, and where the texts come from.
    pub fn new(loras: Vec<Lora>, tokenizer_from: Option<TextsFrom>) -> Adapters {
        Adapters { loras, tokenizer_from }
    }

    /// Everything that is read for them, as it was given.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        let folder = match &self.tokenizer_from {
            Some(TextsFrom::Folder(folder)) => Some(folder.as_path()),
            _ => None,
        };
        self.loras.iter().map(|lora| lora.given.as_path()).chain(folder)
    }

    /// What each is called in a file's name: its folder's, and its weight where it is not 1.
    pub fn names(&self) -> impl Iterator<Item = String> {
        self.loras.iter().map(|lora| {
            let name = lora.given.file_name().map_or_else(|| "lora".into(), |name| name.to_string_lossy());
            if lora.weight == 1.0 { name.into_owned() } else { format!("{name}x{}", lora.weight) }
        })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.loras.is_empty()
    }

    /// The folder of each as it was given, with its weight.
    pub fn given(&self) -> impl Iterator<Item = (&Path, f64)> {
        self.loras.iter().map(|lora| (lora.given.as_path(), lora.weight))
    }

    /// Where the texts come from.
    pub fn texts_from(&self) -> TextsFrom {
        self.tokenizer_from.clone().unwrap_or_default()
    }
}

/// Parses `DIR` or `DIR=WEIGHT`.
pub fn lora(text: &str) -> Result<Lora, String> {
    let whole = |given: &str| Lora { given: given.into(), weight: 1.0 };
    match text.rsplit_once('=') {
        // A folder may have such a name.
        _ if Path::new(text).exists() => Ok(whole(text)),
        None => Ok(whole(text)),
        Some((given, weight)) => match weight.parse::<f64>() {
            Ok(weight) if weight.is_finite() => Ok(Lora { given: given.into(), weight }),
            _ => Err("expected DIR or DIR=WEIGHT, such as ./adapter=0.5".to_owned()),
        },
    }
}

/// Parses `base`, `adapter` or a folder; a folder of such a name is `./base`.
pub fn tokenizer_from(text: &str) -> Result<TextsFrom, String> {
    match text {
        "base" => Ok(TextsFrom::Checkpoint),
        "adapter" => Ok(TextsFrom::Adapters),
        dir if Path::new(dir).is_dir() => Ok(TextsFrom::Folder(dir.into())),
        _ => Err("expected base, adapter, or a folder with tokenizer.json".to_owned()),
    }
}
