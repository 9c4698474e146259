//! What can go wrong, per family of operations. Foreign text is escaped when shown.

use crate::escape::{Escaped, EscapedPath, Sentence};
use crate::gguf::GgufError;
pub use crate::read_error::ReadError;
use crate::safetensors::{HeaderError, IndexError};
use crate::stand_in::StandIn;
use gq_tensor::DType;
use std::path::PathBuf;

/// A `config.json` that is not understood in full.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not one JSON value, or a key appears twice.
    #[error("not valid JSON: {}", Sentence(.source))]
    Json {
        /// What the parser says, with line and column.
        #[source]
        source: serde_json::Error,
    },
    /// A key that this family does not know: it could change the graph.
    #[error("unknown key {} for model type {}", Escaped(.key), Escaped(.model_type))]
    UnknownKey {
        /// Dotted path of the key.
        key: String,
        /// `model_type` of the configuration.
        model_type: String,
    },
    /// A field without which the graph is not known.
    #[error("field {} is missing", Escaped(.field))]
    Missing {
        /// Dotted path of the field.
        field: String,
    },
    /// A value of another JSON type.
    #[error("field {} is {}, expected {expected}", Escaped(.field), Escaped(.actual))]
    WrongType {
        /// Dotted path of the field.
        field: String,
        /// What would be right.
        expected: &'static str,
        /// The value, as JSON.
        actual: String,
    },
    /// A number out of range.
    #[error("field {} is {actual}, allowed are {min} to {max}", Escaped(.field))]
    OutOfRange {
        /// Dotted path of the field.
        field: String,
        /// The value, as JSON.
        actual: String,
        /// Smallest allowed value.
        min: f64,
        /// Largest allowed value.
        max: f64,
    },
    /// A value that means a graph which is not supported.
    #[error("field {} is {}, supported: {supported}", Escaped(.field), Escaped(.value))]
    Unsupported {
        /// Dotted path of the field.
        field: String,
        /// The value, as JSON.
        value: String,
        /// Supported values.
        supported: &'static str,
    },
    /// Two spellings of one fact that contradict each other.
    #[error("field {} says {value}, field {} says {other_value}", Escaped(.field), Escaped(.other))]
    Disagree {
        /// Dotted path of the first field.
        field: String,
        /// What it says.
        value: String,
        /// Dotted path of the second field.
        other: String,
        /// What that says.
        other_value: String,
    },
    /// A list with one entry per layer that has another length.
    #[error("field {} has {actual} entries for {layers} layers", Escaped(.field))]
    LayerCount {
        /// Dotted path of the field.
        field: String,
        /// Entries it has.
        actual: usize,
        /// Layers of the model.
        layers: usize,
    },
    /// A list with one factor per rotary pair that has another length.
    #[error("field {} has {actual} factors for {pairs} pairs", Escaped(.field))]
    FactorCount {
        /// Dotted path of the field.
        field: String,
        /// Factors it has.
        actual: usize,
        /// Pairs of a head.
        pairs: usize,
    },
    /// A null where the reference needs a value; leaving the key out means its default.
    #[error("field {} is null, which has no meaning there; without the key it is {absent}", Escaped(.field))]
    Null {
        /// Dotted path of the field.
        field: String,
        /// What the reference takes when the key is absent.
        absent: &'static str,
    },
    /// Query heads that cannot be divided among the key-value heads.
    #[error("layer {layer}: {heads} query heads are not a multiple of {kv_heads} key-value heads")]
    HeadGroups {
        /// Layer.
        layer: usize,
        /// Query heads.
        heads: usize,
        /// Key-value heads.
        kv_heads: usize,
    },
    /// A layer that shares keys and values, but no earlier layer of its type makes them.
    #[error("layer {layer} shares keys and values, but no earlier {} layer makes them", Escaped(.layer_type))]
    NoSharedCache {
        /// Layer.
        layer: usize,
        /// Its type.
        layer_type: String,
    },
}

/// A checkpoint that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The operating system refused.
    #[error("{}: {source}", EscapedPath(.path))]
    Io {
        /// File or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No `config.json`.
    #[error("{}: no config.json", EscapedPath(.dir))]
    NoConfig {
        /// Directory.
        dir: PathBuf,
    },
    /// Several GGUFs and no `config.json`: which one is meant is not known.
    #[error("{}: holds several GGUFs: {}", EscapedPath(.dir), .files.iter().map(|f| f.escape_debug().to_string()).collect::<Vec<_>>().join(", "))]
    ManyGguf {
        /// Directory.
        dir: PathBuf,
        /// Their names.
        files: Vec<String>,
    },
    /// Neither `model.safetensors` nor an index.
    #[error("{}: neither model.safetensors nor model.safetensors.index.json", EscapedPath(.dir))]
    NoWeights {
        /// Directory.
        dir: PathBuf,
    },
    /// A weight file next to an index that does not name it.
    #[error("{}: a weight file that model.safetensors.index.json does not name", EscapedPath(.path))]
    StrayWeights {
        /// File.
        path: PathBuf,
    },
    /// A set of numbered shards without one of its numbers.
    #[error("{}: {file} is missing, one of {of} shards", EscapedPath(.dir))]
    ShardMissing {
        /// Directory.
        dir: PathBuf,
        /// Its name.
        file: String,
        /// Shards of the set.
        of: usize,
    },
    /// A file next to the others that says a download did not finish.
    #[error("{}: a download that did not finish", EscapedPath(.path))]
    Unfinished {
        /// The unfinished file, or the program's notes about it.
        path: PathBuf,
    },
    /// Weights in Python's pickle format.
    #[error("{}: weights as a Python pickle, which can run code when it is read; safetensors are read", EscapedPath(.path))]
    Pickle {
        /// File.
        path: PathBuf,
    },
    /// An adapter's folder where a checkpoint is expected.
    #[error("{}: an adapter (adapter_config.json), not a checkpoint", EscapedPath(.dir))]
    IsAdapter {
        /// Directory.
        dir: PathBuf,
    },
    /// A pointer, a page or nothing in the place of a file.
    #[error("{}: {what}", EscapedPath(.path))]
    StandIn {
        /// File.
        path: PathBuf,
        /// What it is.
        what: StandIn,
    },
    /// A text beyond its cap.
    #[error("{}: {actual} bytes, at most {limit} are read", EscapedPath(.path))]
    TextTooLong {
        /// File.
        path: PathBuf,
        /// Its length in bytes.
        actual: u64,
        /// Cap in bytes.
        limit: u64,
    },
    /// A text that is not UTF-8.
    #[error("{}: not UTF-8 at byte {at}", EscapedPath(.path))]
    TextNotUtf8 {
        /// File.
        path: PathBuf,
        /// First bad byte.
        at: usize,
    },
    /// A text file whose JSON is not as expected.
    #[error("{}: {}", EscapedPath(.path), Sentence(.source))]
    TextJson {
        /// File.
        path: PathBuf,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// `config.json` is not understood.
    #[error("{}: {source}", EscapedPath(.path))]
    Config {
        /// File.
        path: PathBuf,
        /// Why.
        #[source]
        source: ConfigError,
    },
    /// A weight file whose header is broken.
    #[error("{}: {source}", EscapedPath(.path))]
    Header {
        /// File.
        path: PathBuf,
        /// Why.
        #[source]
        source: HeaderError,
    },
    /// An index that is broken.
    #[error("{}: {source}", EscapedPath(.path))]
    Index {
        /// File.
        path: PathBuf,
        /// Why.
        #[source]
        source: IndexError,
    },
    /// A GGUF that is broken or not supported.
    #[error("{}: {source}", EscapedPath(.path))]
    Gguf {
        /// File.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<GgufError>,
    },
    /// Tensors that do not make up the model.
    #[error(transparent)]
    Tensors(#[from] TensorError),
    /// A tensor that had to be read on opening (scales, a repeated head) could not be.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl CheckpointError {
    /// A fault of a GGUF; those of the operating system name their file themselves.
    pub(crate) fn gguf(path: &std::path::Path, source: GgufError) -> CheckpointError {
        match source {
            GgufError::Io { path, source } => CheckpointError::Io { path, source },
            source => CheckpointError::Gguf { path: path.to_owned(), source: Box::new(source) },
        }
    }
}

/// Tensors that contradict the index, each other or the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// One name in two files.
    #[error("tensor {} is in {} and in {}", Escaped(.name), Escaped(.first), Escaped(.second))]
    Duplicate {
        /// Tensor.
        name: String,
        /// File that has it.
        first: String,
        /// Other file that has it.
        second: String,
    },
    /// Two names for one tensor of the graph.
    #[error("tensors {} and {} both are {}", Escaped(.first), Escaped(.second), Escaped(.name))]
    NameClash {
        /// Canonical name.
        name: String,
        /// Name in the file.
        first: String,
        /// Other name in the file.
        second: String,
    },
    /// A tensor that the index names, but its file does not have.
    #[error("tensor {} is not in {}, where the index puts it", Escaped(.name), Escaped(.file))]
    NotInShard {
        /// Tensor.
        name: String,
        /// File according to the index.
        file: String,
    },
    /// A tensor in another file than the index says.
    #[error("tensor {} is in {}, the index puts it in {}", Escaped(.name), Escaped(.actual), Escaped(.indexed))]
    WrongShard {
        /// Tensor.
        name: String,
        /// File that has it.
        actual: String,
        /// File according to the index.
        indexed: String,
    },
    /// A tensor that the index does not name.
    #[error("tensor {} in {} is not in the index", Escaped(.name), Escaped(.file))]
    NotInIndex {
        /// Tensor.
        name: String,
        /// File that has it.
        file: String,
    },
    /// More tensors than the cap.
    #[error("{actual} tensors, at most {limit} are allowed")]
    TooMany {
        /// Tensors.
        actual: usize,
        /// Cap.
        limit: usize,
    },
    /// A tensor of the graph that no file has.
    #[error("tensor {} is missing", Escaped(.name))]
    Missing {
        /// Canonical name.
        name: String,
    },
    /// A tensor that the configuration does not call for.
    #[error("tensor {} is not part of a {family} model with this configuration", Escaped(.name))]
    Unexpected {
        /// Name in the file.
        name: String,
        /// Family of the model.
        family: &'static str,
    },
    /// An adapter's factors next to the weights: the model was saved before they were merged.
    #[error("tensor {} belongs to an adapter that is not merged into the weights", Escaped(.name))]
    Unmerged {
        /// Name in the file.
        name: String,
    },
    /// A tensor of another shape than the configuration calls for.
    #[error("tensor {} has shape {actual:?}, the configuration calls for {expected:?}", Escaped(.name))]
    WrongShape {
        /// Name in the file.
        name: String,
        /// Its shape.
        actual: Vec<usize>,
        /// Shape that follows from the configuration.
        expected: Vec<usize>,
    },
    /// A weight whose elements are not floating point numbers.
    #[error("tensor {} has dtype {dtype}, weights are F64, F32, F16, BF16, F8_E4M3 or F8_E5M2", Escaped(.name))]
    NotFloat {
        /// Name in the file.
        name: String,
        /// Its dtype.
        dtype: DType,
    },
    /// Codes or powers of two that are no bytes.
    #[error("tensor {} has dtype {dtype}, codes of 4-bit floats and their powers of two are U8", Escaped(.name))]
    NotCodes {
        /// Name in the file.
        name: String,
        /// Its dtype.
        dtype: DType,
    },
    /// Matrices of experts that make one tensor, but differ in type.
    #[error("tensor {} has dtype {dtype}, the matrix of the first expert has {first}", Escaped(.name))]
    MixedTypes {
        /// Name in the file.
        name: String,
        /// Its dtype.
        dtype: DType,
        /// That of the first.
        first: DType,
    },
    /// Scales that belong to no F8 weight.
    #[error("tensor {} are scales, but there is no F8 tensor {}", Escaped(.name), Escaped(.weight))]
    ScaleWithoutWeight {
        /// Scales.
        name: String,
        /// Tensor that would have them.
        weight: String,
    },
    /// An F8 weight with two kinds of scales.
    #[error("tensor {} has scales {} and {}", Escaped(.name), Escaped(.first), Escaped(.second))]
    TwoScales {
        /// Weight.
        name: String,
        /// Scales.
        first: String,
        /// Other scales.
        second: String,
    },
    /// A configuration that promises scales for an F8 weight that has none.
    #[error("tensor {} is {dtype} without weight_scale or weight_scale_inv", Escaped(.name))]
    NoScale {
        /// Weight.
        name: String,
        /// Its dtype.
        dtype: DType,
    },
    /// Scales of a shape that fits none of the supported conventions.
    #[error(
        "scales {} have shape {actual:?} for a weight of shape {weight:?}, supported: one value, one per row, \
         one per block of 128 x 128",
        Escaped(.name)
    )]
    ScaleShape {
        /// Scales.
        name: String,
        /// Their shape.
        actual: Vec<usize>,
        /// Shape of the weight.
        weight: Vec<usize>,
    },
}

impl TensorError {
    /// Whether index and files contradict each other.
    pub(crate) fn is_of_index(&self) -> bool {
        matches!(
            self,
            TensorError::NotInShard { .. } | TensorError::WrongShard { .. } | TensorError::NotInIndex { .. }
        )
    }
}
