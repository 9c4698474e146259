//! Weights by part of the graph, from a checkpoint or a container: names and shapes are those the family declares.

use crate::LoadError;
use crate::decoded::DecodedRows;
use crate::ids::WeightId;
use crate::linear::{Bytes, Linear};
use crate::ops::Norm;
use gq_checkpoint::{Checkpoint, ExpectedTensor, MappedWeights, ModelSpec, Part};
use gq_codec::Coders;
use gq_container::Container;
use gq_tensor::{DType, Encoding, Isa, MatrixShape, RotationKind, Storage};
use std::sync::Arc;

/// A loader of a model's tensors; matrices of one encoding and width share their decoder and rotation.
#[derive(Debug)]
pub(crate) struct Source {
    kind: Kind,
    spec: ModelSpec,
    coders: Coders,
}

#[derive(Debug)]
enum Kind {
    Checkpoint { checkpoint: Arc<Checkpoint>, weights: Arc<MappedWeights>, decoded: Decoded },
    Container(Arc<Container>),
}

/// Where values are that the bytes of a file alone do not give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decoded {
    /// In memory, as f32: quick to multiply by one token after the other.
    Held,
    /// Nowhere: they are made as they are used.
    AsUsed,
}

/// A tensor found, not yet decoded.
struct Found {
    bytes: Bytes,
    shape: Vec<usize>,
    storage: Storage,
}

impl Source {
    pub(crate) fn checkpoint(checkpoint: Arc<Checkpoint>, decoded: Decoded) -> Result<Source, LoadError> {
        let spec = checkpoint.spec().clone();
        let weights = Arc::new(checkpoint.map().map_err(LoadError::Read)?);
        Ok(Source::new(Kind::Checkpoint { checkpoint, weights, decoded }, &spec))
    }

    /// The weights of a checkpoint, read by another specification than its own.
    #[cfg(test)]
    pub(crate) fn checkpoint_as(checkpoint: Arc<Checkpoint>, spec: &ModelSpec) -> Result<Source, LoadError> {
        let weights = Arc::new(checkpoint.map().map_err(LoadError::Read)?);
        Ok(Source::new(Kind::Checkpoint { checkpoint, weights, decoded: Decoded::Held }, spec))
    }

    pub(crate) fn container(container: Arc<Container>, spec: &ModelSpec) -> Source {
        Source::new(Kind::Container(container), spec)
    }

    fn new(kind: Kind, spec: &ModelSpec) -> Source {
        Source { kind, spec: spec.clone(), coders: Coders::default() }
    }

    /// The tensor that plays this part in the model, or in one of its layers, as a matrix without a bias.
    pub(crate) fn matrix(&mut self, part: Part, layer: Option<usize>) -> Result<Linear, LoadError> {
        let Some(ExpectedTensor { name, shape, .. }) = self.spec.tensor(part, layer) else {
            return Err(LoadError::MissingTensor { name: format!("{part:?}") });
        };
        let Found { bytes, storage, .. } = self.find(&name, &shape)?;
        let rotation = storage.rotation;
        let (&cols, leading) = shape.split_last().unwrap_or((&1, &[]));
        let (&rows, leading) = leading.split_last().unwrap_or((&1, &[]));
        let shape = MatrixShape::stack(leading.iter().product(), rows, cols);
        let shape = shape.ok_or_else(|| LoadError::MissingTensor { name: name.clone() })?;
        let decoder = self.coders.decoder(storage, cols);
        let decoder = decoder.map_err(|source| LoadError::Codec { name: name.clone(), source })?;
        let transform = match rotation.kind {
            RotationKind::None => None,
            _ => {
                let transform = self.coders.rotation(rotation, cols);
                Some(transform.map_err(|source| LoadError::Rotation { name: name.clone(), source })?)
            }
        };
        let (id, bias, precise, normed) = (WeightId::unique(), None, false, None);
        Ok(Linear { id, name, bytes, shape, rotation, decoder, transform, bias, precise, normed })
    }

    /// A projection, with its bias where the model has one.
    pub(crate) fn linear(&mut self, part: Part, layer: Option<usize>) -> Result<Linear, LoadError> {
        let bias = part.bias().filter(|bias| self.spec.tensor(*bias, layer).is_some());
        let bias = bias.map(|bias| self.vector(bias, layer)).transpose()?;
        Ok(Linear { bias, ..self.matrix(part, layer)? })
    }

    /// The same where an RMS norm of all outputs comes right after.
    pub(crate) fn normed_linear(&mut self, part: Part, layer: Option<usize>) -> Result<Linear, LoadError> {
        Ok(Linear { normed: Some(self.spec.norm_eps), ..self.linear(part, layer)? })
    }

    /// A norm with a weight.
    pub(crate) fn norm(&mut self, part: Part, layer: Option<usize>) -> Result<Norm, LoadError> {
        let (name, mut weight) = self.named_vector(part, layer)?;
        if self.spec.norm_plus_one {
            weight.iter_mut().for_each(|weight| *weight += 1.0);
        }
        let norm = self.plain_norm(weight.len());
        Ok(Norm { name: Some(name.into()), weight: Some(weight), ..norm })
    }

    /// A norm with this weight, which is no tensor that could be tuned.
    pub(crate) fn norm_of(&self, weight: Vec<f32>) -> Norm {
        Norm { weight: Some(weight.clone()), ..self.plain_norm(weight.len()) }
    }

    /// A norm without a weight.
    pub(crate) fn plain_norm(&self, width: usize) -> Norm {
        Norm { id: WeightId::unique(), name: None, weight: None, width, eps: self.spec.norm_eps }
    }

    /// A vector, in f32.
    pub(crate) fn vector(&mut self, part: Part, layer: Option<usize>) -> Result<Vec<f32>, LoadError> {
        Ok(self.named_vector(part, layer)?.1)
    }

    fn named_vector(&mut self, part: Part, layer: Option<usize>) -> Result<(String, Vec<f32>), LoadError> {
        let linear = self.matrix(part, layer)?;
        if !linear.encoding().is_exact() {
            let encoding = linear.encoding().name();
            return Err(LoadError::Encoding { name: linear.name, encoding });
        }
        let mut values = vec![0.0; linear.shape.rows * linear.shape.cols];
        linear.read_rows(Isa::Scalar, 0..linear.shape.rows, &mut values);
        Ok((linear.name, values))
    }

    fn find(&self, name: &str, expected: &[usize]) -> Result<Found, LoadError> {
        let found = match &self.kind {
            Kind::Checkpoint { checkpoint, weights, decoded } => {
                in_checkpoint(checkpoint, weights, *decoded, name)?
            }
            Kind::Container(container) => in_container(container, name),
        };
        let found = found.ok_or_else(|| LoadError::MissingTensor { name: name.to_owned() })?;
        match found.shape == expected {
            true => Ok(found),
            false => Err(LoadError::Shape {
                name: name.to_owned(),
                actual: found.shape,
                expected: expected.to_vec(),
            }),
        }
    }
}

fn in_checkpoint(
    checkpoint: &Arc<Checkpoint>,
    weights: &Arc<MappedWeights>,
    decoded: Decoded,
    name: &str,
) -> Result<Option<Found>, LoadError> {
    let Some(tensor) = checkpoint.tensor(name) else { return Ok(None) };
    let (mut bytes, mut dtype) = (Bytes::Mapped(weights.clone(), tensor.clone()), tensor.dtype);
    if tensor.is_plain_stack() && !checkpoint.is_merged(tensor) {
        bytes = Bytes::Stacked(weights.clone(), tensor.clone());
    } else if !tensor.is_plain() || checkpoint.is_merged(tensor) {
        // F8 codes mean nothing without their scales, nor merged tensors without their adapters, and blocks of a GGUF
        // are another format: f32 to whoever asks.
        dtype = DType::F32;
        bytes = match decoded {
            Decoded::AsUsed => {
                let rows = DecodedRows::new(checkpoint, weights, tensor).map_err(LoadError::Read)?;
                Bytes::Decoded(Arc::new(rows))
            }
            Decoded::Held => {
                let mut values = vec![0.0; tensor.rows() * tensor.cols()];
                checkpoint.read_rows_f32(tensor, 0..tensor.rows(), &mut values).map_err(LoadError::Read)?;
                Bytes::Owned(values.iter().flat_map(|value| value.to_le_bytes()).collect())
            }
        };
    }
    let storage = Storage::unrotated(Encoding::Exact(dtype));
    Ok(Some(Found { bytes, shape: tensor.shape.clone(), storage }))
}

fn in_container(container: &Arc<Container>, name: &str) -> Option<Found> {
    let entry = container.tensor(name)?;
    let shape = entry.shape.iter().map(|&n| usize::try_from(n).unwrap_or(usize::MAX)).collect();
    let bytes = Bytes::Contained(container.clone(), entry.clone());
    Some(Found { bytes, shape, storage: entry.storage() })
}
