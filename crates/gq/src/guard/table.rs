//! Options with paths: which are written and which are only read. Compared with the command line by tests, one of which
//! tries every output with everything that must not be replaced.

/// What an option's path is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Only read.
    Read,
    /// A file is written there.
    File,
    /// A file is written there; the default is the one that is read.
    FileOrInPlace,
    /// A file or a folder, as another option says.
    FileOrFolder,
    /// A folder is made there, or worked in.
    Folder,
    /// A folder in which results are kept for later runs, under names that only this program gives.
    Cache,
}

/// Command, option, use.
pub const PATHS: &[(&str, &str, Use)] = &[
    ("bench", "model", Use::Read),
    ("calibrate", "calibration", Use::Read),
    ("calibrate", "loras", Use::Read),
    ("calibrate", "output", Use::Folder),
    ("calibrate", "source", Use::Read),
    ("calibrate", "tokenizer_from", Use::Read),
    ("convert", "calibration", Use::Read),
    ("convert", "imatrix", Use::Read),
    ("convert", "loras", Use::Read),
    ("convert", "measurements", Use::Read),
    ("convert", "output", Use::File),
    ("convert", "source", Use::Read),
    ("convert", "tokenizer_from", Use::Read),
    ("demo", "output", Use::Folder),
    ("doctor", "models", Use::Read),
    ("eval", "cache", Use::Cache),
    ("eval", "html", Use::File),
    ("eval", "loras", Use::Read),
    ("eval", "model", Use::Read),
    ("eval", "reference", Use::Read),
    ("eval", "save_outputs", Use::File),
    ("eval", "text", Use::Read),
    ("eval", "tokenizer_from", Use::Read),
    ("export", "output", Use::FileOrFolder),
    ("export", "reference", Use::Read),
    ("export", "source", Use::Read),
    ("export", "text", Use::Read),
    ("improve", "calibration", Use::Read),
    ("improve", "file", Use::Read),
    ("improve", "loras", Use::Read),
    ("improve", "measurements", Use::Read),
    ("improve", "output", Use::FileOrInPlace),
    ("improve", "reference", Use::Read),
    ("improve", "tokenizer_from", Use::Read),
    ("inspect", "model", Use::Read),
    ("inspect", "render_chat", Use::Read),
    ("meta get", "file", Use::Read),
    ("meta set", "file", Use::Read),
    ("meta set", "output", Use::FileOrInPlace),
    ("plan", "calibration", Use::Read),
    ("plan", "loras", Use::Read),
    ("plan", "measurements", Use::Read),
    ("plan", "source", Use::Read),
    ("plan", "tokenizer_from", Use::Read),
    ("push", "folder", Use::Read),
    ("release", "cache", Use::Cache),
    ("release", "output", Use::Folder),
    ("release", "recipe", Use::Read),
    ("release", "source", Use::Read),
    ("run", "loras", Use::Read),
    ("run", "model", Use::Read),
    ("run", "tokenizer_from", Use::Read),
    ("serve", "api_key_file", Use::Read),
    ("serve", "loras", Use::Read),
    ("serve", "model", Use::Read),
    ("serve", "tokenizer_from", Use::Read),
    ("verify", "file", Use::Read),
    ("verify", "loras", Use::Read),
    ("verify", "measurements", Use::Read),
    ("verify", "rederive", Use::Read),
    ("verify", "tokenizer_from", Use::Read),
];
