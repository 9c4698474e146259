//! What was noticed about a checkpoint that does not stand in the way, for people to be told.

use std::path::PathBuf;

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
