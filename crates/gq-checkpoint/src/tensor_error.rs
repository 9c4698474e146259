//! What can be wrong with the tensors of a checkpoint, by their headers. Foreign text is escaped when shown.

use gq_files::Escaped;
use gq_tensor::DType;

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
    /// Packed codes or zero points that are no words.
    #[error("tensor {} has dtype {dtype}, packed codes and zero points are I32", Escaped(.name))]
    NotWords {
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
