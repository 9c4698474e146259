//! What loading and running a model refuses.

use gq_checkpoint::{ConfigError, ReadError};
use gq_codec::{CodecError, RotationError};
use gq_container::TextKind;
use gq_cuda::{GpuError, LaunchError};
use gq_text::TextsError;
use std::ops::Range;

/// A model that cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A container without the text that describes the model.
    #[error("the file holds no {}", .kind.name())]
    MissingText {
        /// What is missing.
        kind: TextKind,
    },
    /// A text cannot be read.
    #[error(transparent)]
    Texts(#[from] TextsError),
    /// The configuration is not understood.
    #[error("the configuration cannot be used")]
    Config(#[source] ConfigError),
    /// Weights of a checkpoint cannot be read.
    #[error("weights cannot be read")]
    Read(#[source] ReadError),
    /// The graph needs a tensor that is not there.
    #[error("tensor {name:?} is missing")]
    MissingTensor {
        /// Canonical name.
        name: String,
    },
    /// A tensor of another shape than the graph needs.
    #[error("tensor {name:?} has shape {actual:?} where the graph needs {expected:?}")]
    Shape {
        /// Canonical name.
        name: String,
        /// Shape in the file.
        actual: Vec<usize>,
        /// Shape that follows from the configuration.
        expected: Vec<usize>,
    },
    /// A tensor that should be numbers as they are is stored as codes, or as integers.
    #[error("tensor {name:?} is stored as {encoding}, which the graph cannot use here")]
    Encoding {
        /// Canonical name.
        name: String,
        /// How it is stored.
        encoding: String,
    },
    /// A tensor's codes cannot be decoded.
    #[error("tensor {name:?} cannot be decoded")]
    Codec {
        /// Canonical name.
        name: String,
        /// Why.
        #[source]
        source: CodecError,
    },
    /// A tensor's rotation does not exist.
    #[error("tensor {name:?} cannot be rotated back")]
    Rotation {
        /// Canonical name.
        name: String,
        /// Why.
        #[source]
        source: RotationError,
    },
}

/// A GPU that cannot run the model, or no longer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// The driver or the device.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// A kernel that does not take the model's shapes.
    #[error("the GPU's kernels do not take this model")]
    Launch(#[from] LaunchError),
    /// The model does not fit.
    #[error(
        "the GPU has {free} bytes of {total} free and the model takes {needed}: {weights} for weights, {cache} for keys and \
         values of {context} tokens, {scratch} for buffers and the driver"
    )]
    Room {
        /// Bytes of all that follows.
        needed: u64,
        /// Bytes of weights.
        weights: u64,
        /// Bytes of keys and values.
        cache: u64,
        /// Tokens of keys and values.
        context: usize,
        /// Bytes of buffers.
        scratch: u64,
        /// Bytes of the GPU that are free.
        free: u64,
        /// Bytes of the GPU.
        total: u64,
    },
    /// More scratch memory than was planned; a defect of the plan.
    #[error("{needed} bytes of scratch memory are asked for, {limit} were planned for everything")]
    Scratch {
        /// Asked for.
        needed: u64,
        /// Planned.
        limit: u64,
    },
    /// Codes meet int8 activations there.
    #[error("codes such as those of {tensor:?} meet int8 activations on a GPU, and f32 was asked for")]
    Activations {
        /// A tensor of codes.
        tensor: String,
    },
    /// Sums in the order that is the same on every CPU are for CPUs.
    #[error("deterministic arithmetic runs on the CPU alone")]
    Deterministic,
    /// Something that was to be on the device is not; a defect.
    #[error("a weight or a cache that was brought to the GPU is not there")]
    Missing,
}

impl DeviceError {
    /// Whether nothing more can be asked of the device.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self, DeviceError::Gpu(GpuError::Lost { .. }))
    }
}

/// Tokens that cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// The device that the model is on.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// No tokens.
    #[error("there are no tokens to run")]
    NoTokens,
    /// A token the embedding has no row for.
    #[error("token {token} at {index} is beyond the vocabulary of {limit}")]
    Token {
        /// The token.
        token: u32,
        /// Where it stands among the tokens given.
        index: usize,
        /// Rows of the embedding.
        limit: usize,
    },
    /// More tokens than the cache was made for.
    #[error("{needed} tokens are beyond the cache's {limit}")]
    CacheFull {
        /// Tokens in the cache and new ones.
        needed: usize,
        /// Tokens the cache was made for.
        limit: usize,
    },
    /// A cache made for another model.
    #[error("the cache was made for another model")]
    ForeignCache,
    /// A device failed in the middle of tokens that wrote over what the cache's earlier tokens need.
    #[error(
        "a device failed while this cache was written, and some of its keys and values are lost: clear it first"
    )]
    SpoiltCache,
    /// Logits of tokens that were not given.
    #[error("logits of tokens {}..{} of {actual}", .rows.start, .rows.end)]
    Rows {
        /// Rows asked for.
        rows: Range<usize>,
        /// Tokens given.
        actual: usize,
    },
    /// Activations are infinite or not numbers: the weights before them overflow f32 or are broken.
    #[error("the input of tensor {tensor:?} at token {token} is {value}")]
    Activations {
        /// The first tensor that meets them.
        tensor: String,
        /// Token of the sequence, or among those that met the tensor.
        token: usize,
        /// As text: `NaN`, `inf` or `-inf`.
        value: String,
    },
    /// A logit is infinite or not a number: the weights overflow f32 or are broken.
    #[error("logit {index} of token {row} is {value}")]
    NotFinite {
        /// Token among those asked for.
        row: usize,
        /// Entry of the vocabulary.
        index: usize,
        /// As text: `NaN`, `inf` or `-inf`.
        value: String,
    },
}
