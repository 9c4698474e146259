//! Headers, index and specification together: the list of tensors, or the first contradiction. Pure.

use crate::declared::respelled;
use crate::family::{EMBEDDING, HEAD};
use crate::fused::{FusedTensor, take_apart};
use crate::names::{canonical, in_layer, is_tower};
use crate::packed::join;
use crate::safetensors::{Header, HeaderEntry, Index};
use crate::scale::{Convention, ScaleSource, is_of_activations, weight_of};
use crate::stacked::{assemble, stack};
use crate::{ModelSpec, Role, SourceTensor, TensorError, limits};
use std::collections::{BTreeMap, HashMap};

/// A weight file's name and header.
#[derive(Clone, Debug)]
pub struct Shard {
    /// File name, without directory.
    pub name: String,
    /// Its validated header.
    pub header: Header,
}

/// All tensors of a checkpoint, and which of them carry scales for others.
#[derive(Clone, Debug)]
pub(crate) struct Catalog {
    /// Sorted by file, then by offset.
    pub tensors: Vec<SourceTensor>,
    /// Scales of F8 tensors.
    pub scales: Vec<ScaleSource>,
    /// What stood before every name in the files.
    pub prefix: String,
    /// The head's name in the file, where it stands for the embedding too.
    pub lone_head: Option<String>,
}

/// Matches the shards' tensors with the index and with what the specification calls for; gives them roles.
///
/// # Errors
/// The first contradiction, by name: see [`TensorError`].
pub fn check_tensors(
    spec: &ModelSpec,
    index: Option<&Index>,
    shards: &[Shard],
) -> Result<Vec<SourceTensor>, TensorError> {
    Catalog::new(spec, index, shards).map(|catalog| catalog.tensors)
}

impl Catalog {
    pub(crate) fn new(
        spec: &ModelSpec,
        index: Option<&Index>,
        shards: &[Shard],
    ) -> Result<Catalog, TensorError> {
        let count = shards.iter().map(|shard| shard.header.entries.len()).sum();
        if count > limits::TENSORS {
            return Err(TensorError::TooMany { actual: count, limit: limits::TENSORS });
        }
        let places = places(shards)?;
        if let Some(index) = index {
            check_index(index, shards, &places)?;
        }
        let prefix = wrappers(&places);
        let mut tensors = list(spec, shards, prefix.len())?;
        take_apart(spec, &mut tensors)?;
        stack(spec.declared(), spec, &mut tensors)?;
        assemble(spec.declared(), spec, &mut tensors)?;
        join(spec, &mut tensors)?;
        let lone_head = if spec.tied_head { take_lone_head(&mut tensors) } else { None };
        let scales = assign_roles(spec, &mut tensors)?;
        Ok(Catalog { tensors, scales, prefix, lone_head })
    }
}

/// File of every tensor.
fn places(shards: &[Shard]) -> Result<BTreeMap<&str, usize>, TensorError> {
    let mut places = BTreeMap::new();
    for (file, shard) in shards.iter().enumerate() {
        for entry in &shard.header.entries {
            if let Some(first) = places.insert(entry.name.as_str(), file) {
                let (first, second) = (shards[first].name.clone(), shard.name.clone());
                return Err(TensorError::Duplicate { name: entry.name.clone(), first, second });
            }
        }
    }
    Ok(places)
}

fn check_index(index: &Index, shards: &[Shard], places: &BTreeMap<&str, usize>) -> Result<(), TensorError> {
    for (&name, &file) in places {
        let actual = &shards[file].name;
        let Some(indexed) = index.tensors.get(name).and_then(|&file| index.files.get(file)) else {
            return Err(TensorError::NotInIndex { name: name.to_owned(), file: actual.clone() });
        };
        if indexed != actual {
            let (actual, indexed) = (actual.clone(), indexed.clone());
            return Err(TensorError::WrongShard { name: name.to_owned(), actual, indexed });
        }
    }
    let absent = index.tensors.iter().filter(|(name, _)| !places.contains_key(name.as_str())).min();
    match absent {
        Some((name, &file)) => {
            let file = index.files.get(file).cloned().unwrap_or_default();
            Err(TensorError::NotInShard { name: name.clone(), file })
        }
        None => Ok(()),
    }
}

/// What wrappers of the whole model (PEFT's, DDP's, those of torch.compile) put before every name.
fn wrappers(places: &BTreeMap<&str, usize>) -> String {
    const WRAPPERS: [&str; 3] = ["base_model.model.", "module.", "_orig_mod."];
    let mut prefix = String::new();
    let has = |prefix: &str, next: &str| {
        let mut names = places.keys().map(|name| name.strip_prefix(prefix));
        !places.is_empty() && names.all(|rest| rest.is_some_and(|rest| rest.starts_with(next)))
    };
    while let Some(next) = WRAPPERS.into_iter().find(|next| has(&prefix, next)) {
        prefix += next;
    }
    prefix
}

/// Tensors in file order under canonical names, without roles yet. The first `prefix` bytes of names do not count.
fn list(spec: &ModelSpec, shards: &[Shard], prefix: usize) -> Result<Vec<SourceTensor>, TensorError> {
    let mut tensors: Vec<SourceTensor> = Vec::new();
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (file, shard) in shards.iter().enumerate() {
        for entry in &shard.header.entries {
            let tensor = source_tensor(spec, file, entry, prefix);
            if let Some(&first) = seen.get(&tensor.name) {
                let (first, second) = (tensors[first].source_name.clone(), tensor.source_name);
                return Err(TensorError::NameClash { name: tensor.name, first, second });
            }
            seen.insert(tensor.name.clone(), tensors.len());
            tensors.push(tensor);
        }
    }
    Ok(tensors)
}

fn source_tensor(spec: &ModelSpec, file: usize, entry: &HeaderEntry, prefix: usize) -> SourceTensor {
    let name = canonical(entry.name.get(prefix..).unwrap_or_default());
    let name = respelled(spec.declared(), name);
    SourceTensor {
        layer: in_layer(&name).map(|(layer, _)| layer),
        name,
        source_name: entry.name.clone(),
        dtype: entry.dtype,
        shape: entry.shape.clone(),
        file,
        offset: entry.offset,
        bytes: entry.bytes,
        role: Role::Unused,
        scaled: false,
        gguf: None,
        pieces: Vec::new(),
        assembly: None,
    }
}

/// Of two tied matrices a file may have either one: a head without an embedding is the embedding, as in the reference.
fn take_lone_head(tensors: &mut [SourceTensor]) -> Option<String> {
    if tensors.iter().any(|tensor| tensor.name == EMBEDDING.name) {
        return None;
    }
    let head = tensors.iter_mut().find(|tensor| tensor.name == HEAD.name)?;
    head.name = EMBEDDING.name.to_owned();
    Some(head.source_name.clone())
}

fn assign_roles(spec: &ModelSpec, tensors: &mut [SourceTensor]) -> Result<Vec<ScaleSource>, TensorError> {
    let expected = spec.expected_tensors();
    let by_name: HashMap<&str, usize> =
        expected.iter().enumerate().map(|(index, tensor)| (tensor.name.as_str(), index)).collect();
    let mut found = vec![None; expected.len()];
    let mut companions = Vec::new();
    for (place, tensor) in tensors.iter_mut().enumerate() {
        if let Some(&index) = by_name.get(tensor.name.as_str()) {
            found[index] = Some(place);
            tensor.role = expected[index].role;
        } else if is_tower(&tensor.name) {
            tensor.role = Role::Tower;
        } else if let Some(weight) = weight_of(&tensor.name) {
            tensor.role = Role::WeightScale;
            companions.push((place, weight));
        } else if !spec.is_unused(&tensor.name) && !is_of_activations(&tensor.name) {
            let parts = [".lora_A.", ".lora_B.", ".base_layer.", ".lora_embedding_"];
            if parts.iter().any(|part| tensor.source_name.contains(part)) {
                return Err(TensorError::Unmerged { name: tensor.source_name.clone() });
            }
            let family = spec.family.name();
            return Err(TensorError::Unexpected { name: tensor.source_name.clone(), family });
        }
    }
    for (wanted, place) in expected.iter().zip(&found) {
        let Some(place) = *place else {
            return Err(TensorError::Missing { name: wanted.name.clone() });
        };
        let tensor = &tensors[place];
        let name = || tensor.source_name.clone();
        if tensor.shape != wanted.shape {
            let (actual, expected) = (tensor.shape.clone(), wanted.shape.clone());
            return Err(TensorError::WrongShape { name: name(), actual, expected });
        }
        if !tensor.dtype.is_float() {
            return Err(TensorError::NotFloat { name: name(), dtype: tensor.dtype });
        }
    }
    match_scales(spec, tensors, companions)
}

/// Gives F8 weights their scales.
fn match_scales(
    spec: &ModelSpec,
    tensors: &mut [SourceTensor],
    companions: Vec<(usize, String)>,
) -> Result<Vec<ScaleSource>, TensorError> {
    let places: HashMap<String, usize> =
        tensors.iter().enumerate().map(|(place, tensor)| (tensor.name.clone(), place)).collect();
    let mut scales: HashMap<usize, usize> = HashMap::new();
    let mut list = Vec::new();
    for (scale, weight_name) in companions {
        let name = tensors[scale].source_name.clone();
        // The scales of a tensor that files have several weights in are those of each of them.
        let fused = spec.fused_on_the_hub(&weight_name);
        let weights: Vec<(&str, usize)> = match &fused {
            Some(fused) => fused.parts.iter().map(|part| (part.name.as_str(), part.rows.start)).collect(),
            None => vec![(weight_name.as_str(), 0)],
        };
        let is_f8 = |tensor: &SourceTensor| tensor.dtype.size() == 1 && tensor.dtype.is_float();
        if !tensors[scale].dtype.is_float() || tensors[scale].dtype.size() == 1 {
            return Err(TensorError::NotFloat { name, dtype: tensors[scale].dtype });
        }
        for (part, first) in weights {
            let weight = places.get(part).copied().filter(|&place| is_f8(&tensors[place]));
            let Some(weight) = weight else {
                return Err(TensorError::ScaleWithoutWeight { name, weight: weight_name });
            };
            if let Some(&other) = scales.get(&weight) {
                let (weight, first) = (&tensors[weight].source_name, &tensors[other].source_name);
                let (weight, first) = (weight.clone(), first.clone());
                return Err(TensorError::TwoScales { name: weight, first, second: name });
            }
            let shape = fused.as_ref().map_or_else(|| tensors[weight].shape.clone(), FusedTensor::shape);
            let Some(convention) = Convention::of(&shape, &tensors[scale].shape) else {
                let (actual, weight) = (tensors[scale].shape.clone(), shape);
                return Err(TensorError::ScaleShape { name, actual, weight });
            };
            scales.insert(weight, scale);
            tensors[weight].scaled = true;
            list.push(ScaleSource { weight: tensors[weight].name.clone(), scale, convention, first });
        }
    }
    let bare = |tensor: &&SourceTensor| tensor.role.is_used() && tensor.dtype.size() == 1 && !tensor.scaled;
    match tensors.iter().find(bare) {
        Some(tensor) if spec.quantization.is_some() => {
            Err(TensorError::NoScale { name: tensor.source_name.clone(), dtype: tensor.dtype })
        }
        _ => Ok(list),
    }
}
