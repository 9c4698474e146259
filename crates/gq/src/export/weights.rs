//! The tensors of any source as rows of f32.

use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::source;
use gq_checkpoint::{Card, CardValue, Checkpoint, ModelSpec, ReadError, Role, Texts, parse_config};
use gq_codec::{Coders, Decoder, Rotation};
use gq_container::{Container, TensorEntry, TextKind};
use gq_tensor::{Encoding, Isa, RotationKind};
use rayon::prelude::*;
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Rows that a thread decodes at once: whole strips of a trellis code.
const CHUNK_ROWS: usize = Encoding::STRIP_ROWS;

/// A model whose weights are read as f32.
pub struct Weights {
    /// What it is.
    pub spec: ModelSpec,
    /// Configuration, tokenizer, chat template, settings.
    pub texts: Texts,
    /// Tensors of the graph under canonical names, in the order of the source.
    pub tensors: Vec<WeightTensor>,
    kind: Kind,
}

/// A tensor of the graph.
pub struct WeightTensor {
    /// Canonical name.
    pub name: String,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    /// Bits per weight in the source, scales included.
    pub bits: f64,
    /// Whether they are the 4-bit floats of MXFP4.
    pub mxfp4: bool,
}

enum Kind {
    Checkpoint(Arc<Checkpoint>),
    Container { container: Box<Container>, level: Isa, readers: HashMap<String, Reader> },
}

/// What reads a stored tensor: its decoder, and the rotation where there is one.
type Reader = (Decoder, Option<Arc<Rotation>>);

impl Weights {
    /// Opens a checkpoint directory, a GGUF or a `.gq` file.
    pub fn open(path: &Path, global: &Global) -> Result<Weights, Failure> {
        match source::is_checkpoint(path)? {
            true => Weights::of(Arc::new(source::checkpoint(path, global)?)),
            false => Weights::container(Container::open(path)?, global.isa()?),
        }
    }

    /// Elements of a tensor; none where there is no such one.
    pub fn elements(&self, name: &str) -> u64 {
        let tensor = self.tensors.iter().find(|tensor| tensor.name == name);
        tensor.map_or(0, |tensor| tensor.shape.iter().map(|&n| n as u64).product())
    }

    /// Whether the source is a `.gq` file.
    pub fn is_container(&self) -> bool {
        matches!(self.kind, Kind::Container { .. })
    }

    /// The weights of a checkpoint.
    pub fn of(checkpoint: Arc<Checkpoint>) -> Result<Weights, Failure> {
        let (spec, texts) = (checkpoint.spec().clone(), checkpoint.texts()?);
        let used = |role: Role| !matches!(role, Role::Tower | Role::Unused | Role::WeightScale);
        let tensors = checkpoint.tensors().iter().filter(|tensor| used(tensor.role));
        let tensors = tensors.map(|tensor| WeightTensor {
            name: tensor.name.clone(),
            shape: tensor.shape.clone(),
            bits: 8.0 * tensor.bytes as f64 / tensor.elements().max(1) as f64,
            mxfp4: tensor.is_mxfp4() && !checkpoint.is_merged(tensor),
        });
        let tensors = tensors.collect();
        Ok(Weights { spec, texts, tensors, kind: Kind::Checkpoint(checkpoint) })
    }

    fn container(container: Container, level: Isa) -> Result<Weights, Failure> {
        let text = |kind| container.text(kind);
        let missing = || {
            let place = container.path().display();
            let message =
                format!("{place}: the file has no configuration, so its tensors mean nothing elsewhere");
            Failure::new(Exit::Input, "container.no_config", message).at(place).limit("config.json")
        };
        let config = text(TextKind::Config)?.ok_or_else(missing)?;
        let mut texts = Texts {
            tokenizer: text(TextKind::Tokenizer)?,
            tokenizer_config: text(TextKind::TokenizerConfig)?,
            chat_template: text(TextKind::ChatTemplate)?,
            generation_config: text(TextKind::GenerationConfig)?,
            special_tokens_map: text(TextKind::SpecialTokensMap)?,
            licences: Vec::new(),
            licence_name: text(TextKind::Licence)?.filter(|licence| !licence.contains('\n')),
            card: Card::default(),
            config,
        };
        if let Some(licence) = &texts.licence_name {
            texts.card.set("license", CardValue::Text(licence.clone()));
        }
        let spec = parse_config(&texts.config)?;
        let expected = spec.expected_tensors();
        let names: HashMap<&str, Role> = expected.iter().map(|t| (t.name.as_str(), t.role)).collect();
        let (mut coders, mut readers) = (Coders::default(), HashMap::new());
        let mut tensors = Vec::new();
        for entry in container.tensors().iter().filter(|entry| names.contains_key(entry.name.as_str())) {
            let shape: Vec<usize> = entry.shape.iter().map(|&n| n as usize).collect();
            let bits = 8.0 * entry.bytes as f64 / entry.elements().max(1) as f64;
            let reader = reader(&mut coders, entry).map_err(|message| {
                let message = format!("tensor {}: {message}", entry.name);
                Failure::new(Exit::Input, "container.encoding", message).at(&entry.name)
            })?;
            readers.insert(entry.name.clone(), reader);
            let mxfp4 = entry.storage().encoding == Encoding::Mxfp4;
            tensors.push(WeightTensor { name: entry.name.clone(), shape, bits, mxfp4 });
        }
        Ok(Weights {
            spec,
            texts,
            tensors,
            kind: Kind::Container { container: Box::new(container), level, readers },
        })
    }

    /// Refuses what was read of a source that was changed meanwhile.
    pub fn check_unchanged(&self) -> Result<(), Failure> {
        match &self.kind {
            Kind::Checkpoint(checkpoint) => Ok(checkpoint.check_unchanged()?),
            Kind::Container { container, .. } => Ok(container.check_unchanged()?),
        }
    }

    /// Reads rows of a tensor as f32 into `out`, `[rows.len(), cols]`, on the threads of the current pool.
    pub fn read_rows(&self, name: &str, rows: Range<usize>, out: &mut [f32]) -> Result<(), ReadError> {
        let cols = out.len() / rows.len().max(1);
        let chunks = out.par_chunks_mut((CHUNK_ROWS * cols).max(1)).enumerate();
        let read = chunks.try_for_each(|(chunk, out)| {
            let first = rows.start + chunk * CHUNK_ROWS;
            self.read_chunk(name, first..(first + CHUNK_ROWS).min(rows.end), out)
        });
        // After every tensor: the last one is read before the output gets its name.
        match &self.kind {
            Kind::Checkpoint(checkpoint) => checkpoint.check_unchanged().and(read),
            Kind::Container { .. } => read,
        }
    }

    fn read_chunk(&self, name: &str, rows: Range<usize>, out: &mut [f32]) -> Result<(), ReadError> {
        let absent = || ReadError::RowsOutOfRange { name: name.to_owned(), rows: rows.clone(), actual: 0 };
        match &self.kind {
            Kind::Checkpoint(checkpoint) => {
                checkpoint.read_rows_f32(checkpoint.tensor(name).ok_or_else(absent)?, rows, out)
            }
            Kind::Container { container, level, readers } => {
                let entry = container.tensor(name).ok_or_else(absent)?;
                let (decoder, rotation) = readers.get(name).ok_or_else(absent)?;
                let matrix = container.matrix(entry).map_err(|_| absent())?;
                decoder.decode_rows(*level, &matrix, rows.clone(), out);
                if let Some(rotation) = rotation {
                    rotation.inverse(*level, out, &mut Vec::new());
                }
                Ok(())
            }
        }
    }
}

fn reader(coders: &mut Coders, entry: &TensorEntry) -> Result<Reader, String> {
    let cols = entry.shape.last().map_or(1, |&n| n as usize);
    let decoder = coders.decoder(entry.storage(), cols).map_err(|error| error.to_string())?;
    let rotation = match entry.rotation.kind {
        RotationKind::None => None,
        _ => Some(coders.rotation(entry.rotation, cols).map_err(|error| error.to_string())?),
    };
    Ok((decoder, rotation))
}
