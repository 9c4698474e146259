//! What was noticed about a checkpoint that does not stand in the way, for people to be told.

use crate::SourceTensor;
use crate::card::{Card, CardError};
use crate::keys::{Ignored, IgnoredKey};
use crate::limits;
use crate::scale::is_of_activations;
use crate::texts::{README, read_text};
use std::path::{Path, PathBuf};

/// Something that was read in the only way that it can be meant, or chosen by a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Shards without an index, complete by their numbers.
    NoIndex {
        /// Directory.
        dir: PathBuf,
        /// Shards.
        shards: usize,
    },
    /// An index that does not describe the files, which are complete without it.
    StaleIndex {
        /// The index.
        path: PathBuf,
        /// How it is wrong.
        why: String,
    },
    /// Every name begins with what a wrapper of the model puts there.
    Prefix {
        /// What was taken off.
        prefix: String,
    },
    /// Names of an adapter's tensors that are not as PEFT saves them, all of them alike.
    AdapterNames {
        /// The adapter's folder name.
        adapter: String,
        /// An example.
        name: String,
    },
    /// Keys of a configuration or of a GGUF's metadata that were read over.
    Keys {
        /// The file.
        path: PathBuf,
        /// The keys, dotted.
        keys: Vec<String>,
        /// Why they do not matter.
        why: Ignored,
    },
    /// Front matter of a model card that is not read, for it is no YAML.
    Card {
        /// The card.
        path: PathBuf,
        /// How it is wrong.
        error: CardError,
    },
    /// The configuration ties the head to the embedding, but the file has two that differ: both are used.
    Untied {
        /// The head's name in the file.
        head: String,
        /// The embedding's.
        embedding: String,
    },
    /// The head is tied to an embedding that the file does not have: it serves as both.
    HeadIsEmbedding {
        /// The head's name in the file.
        head: String,
    },
    /// Scales of activations, which weights do not depend on: they were read over.
    ActivationScales {
        /// How many.
        count: usize,
        /// The first one's name in the file.
        name: String,
    },
    /// The vocabulary has the rows of an adapter.
    Resized {
        /// The adapter's folder name.
        adapter: String,
        /// Rows of the checkpoint.
        from: usize,
        /// Rows now.
        to: usize,
    },
    /// Texts were taken from elsewhere than from the checkpoint.
    Texts {
        /// The adapter or folder they are of.
        from: String,
        /// Their file names.
        files: Vec<String>,
        /// What they say otherwise than the checkpoint's.
        differing: Vec<&'static str>,
    },
    /// An adapter's texts differ from the checkpoint's, which were kept as asked for.
    TextsKept {
        /// The adapter.
        from: String,
        /// What it says otherwise.
        differing: Vec<&'static str>,
    },
}

impl Note {
    /// About the model card in `dir`. A card that cannot be read at all is an error to whoever asks for its text.
    pub(crate) fn of_card(dir: &Path) -> Option<Note> {
        let path = dir.join(README);
        let readme = read_text(&path, limits::TEXT_BYTES).ok()?;
        Some(Note::Card { path, error: Card::parse(&readme).err()? })
    }

    /// One note for all scales of activations; `None` where there are none.
    pub(crate) fn of_activation_scales(tensors: &[SourceTensor]) -> Option<Note> {
        let scales = || tensors.iter().filter(|tensor| is_of_activations(&tensor.name));
        let name = scales().next()?.source_name.clone();
        Some(Note::ActivationScales { count: scales().count(), name })
    }

    /// One note for each reason.
    pub(crate) fn of_keys(path: &Path, ignored: &[IgnoredKey]) -> Vec<Note> {
        let of = |why: Ignored| {
            let keys = ignored.iter().filter(|key| key.why == why);
            let keys: Vec<String> = keys.map(|key| key.key.clone()).collect();
            (!keys.is_empty()).then(|| Note::Keys { path: path.to_owned(), keys, why })
        };
        [Ignored::LeftBehind, Ignored::Unread, Ignored::Unapplied, Ignored::Accepted]
            .into_iter()
            .filter_map(of)
            .collect()
    }
}
