//! A checkpoint directory in bf16, matrices in integer codes where that is asked for, as transformers and vLLM load it.

use super::packed::{self, Entry, Rest};
use super::weights::WeightTensor;
use super::{Weights, rows_of};
use crate::export_mark::{is_unfinished, mark};
use crate::failure::{Exit, Failure};
use gq_checkpoint::{Assembly, Family, HubTensor};
use gq_codec::{GroupCode, GroupedRows};
use gq_tensor::{DType, encode_f32};
use half::bf16;
use rayon::prelude::*;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, ErrorKind, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Values worked on at once, and by one thread.
const STEP: usize = 1 << 20;
const CHUNK: usize = 1 << 15;

/// Rounds whole rows of a matrix, by its canonical name.
pub type Round<'a> = dyn Fn(&str, GroupCode, &[f32]) -> Result<GroupedRows, Failure> + Sync + 'a;

/// Which matrices are stored in integer codes; the others are in bf16.
pub struct Coded<'a> {
    /// Codes by canonical name.
    pub codes: BTreeMap<String, GroupCode>,
    /// What the configuration says of them; nothing where there are none.
    pub configuration: Option<Value>,
    /// What rounds them.
    pub round: &'a Round<'a>,
}

/// Bytes of the files with weights, headers included, with matrices in `codes`.
pub fn file_bytes(weights: &Weights, codes: &BTreeMap<String, GroupCode>, max_shard: u64) -> u64 {
    let written = written(weights, codes);
    shards(&written, max_shard)
        .into_iter()
        .map(|shard| {
            let header = header(shard);
            8 + header.len() as u64 + shard.iter().map(Written::bytes).sum::<u64>()
        })
        .sum()
}

/// Writes the directory; it gets its name when it is whole. `progress` gets bytes of weights written so far.
///
/// Weights of more than `max_shard` bytes go to several files with an index, in order; a larger tensor has a file to
/// itself.
pub fn write(
    weights: &Weights,
    coded: Option<&Coded<'_>>,
    dir: &Path,
    max_shard: u64,
    progress: &mut dyn FnMut(u64),
) -> Result<u64, Failure> {
    let partial = gq_files::partial_path(dir);
    // Held until the folder has its name.
    let _held = make_folder(&partial)?;
    let outcome = fill(weights, coded, &partial, max_shard, progress);
    let outcome = outcome.and_then(|bytes| {
        finish(&partial, dir).map_err(|error| Failure::io(dir, &error))?;
        Ok(bytes)
    });
    if outcome.is_err() {
        let _ = gq_files::remove_begun(&partial); // the first failure is the one to tell
    }
    outcome
}

/// Gives the folder its name, then takes the mark away: another export would make a new one in a folder without it, and
/// take that for its own.
fn finish(partial: &Path, dir: &Path) -> std::io::Result<()> {
    gq_files::put_in_place(partial, dir)?;
    // The export is done: a mark that stays is in nobody's way.
    let _ = gq_files::remove(&mark(dir));
    Ok(())
}

/// A new folder, and what says that it is being written; what an interrupted export left there goes away, anything else
/// stays.
fn make_folder(dir: &Path) -> Result<File, Failure> {
    let io = |error: std::io::Error| Failure::io(dir, &error);
    let mark = mark(dir);
    let marked = |error: std::io::Error| Failure::io(&mark, &error);
    match std::fs::symlink_metadata(dir) {
        Ok(found) if found.is_dir() && is_unfinished(dir) => {
            // An export that is still writing it holds it.
            match gq_files::begin(&mark) {
                Ok(held) => {
                    gq_files::note_begun(dir);
                    gq_files::remove_begun(dir).map_err(io)?;
                    drop(held);
                }
                // It got its name meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(marked(error)),
            }
        }
        Ok(_) => {
            let message = format!("{}: is in the way, and not what an export left behind", dir.display());
            let failure = Failure::new(Exit::Environment, "output.foreign", message).at(dir.display());
            return Err(failure.limit("a file that gq began"));
        }
        Err(_) => {}
    }
    std::fs::create_dir(dir).map_err(io)?;
    gq_files::note_begun(dir);
    gq_files::begin(&mark).map_err(marked)
}

fn fill(
    weights: &Weights,
    coded: Option<&Coded<'_>>,
    dir: &Path,
    max_shard: u64,
    progress: &mut dyn FnMut(u64),
) -> Result<u64, Failure> {
    let texts = &weights.texts;
    let config = config(&texts.config, coded.and_then(|coded| coded.configuration.as_ref()))?;
    let mut tokenizer_config = texts.tokenizer_config.clone();
    if tokenizer_config.is_none() && texts.tokenizer.is_some() {
        tokenizer_config = Some("{\"tokenizer_class\":\"PreTrainedTokenizerFast\"}".to_owned());
    }
    // A file with a template would hide those that the settings name.
    let template = texts.chat_template.as_ref().filter(|template| !is_listed(&tokenizer_config, template));
    let files = [
        ("config.json", Some(&config)),
        ("tokenizer.json", texts.tokenizer.as_ref()),
        ("tokenizer_config.json", tokenizer_config.as_ref()),
        ("chat_template.jinja", template),
        ("generation_config.json", texts.generation_config.as_ref()),
        ("special_tokens_map.json", texts.special_tokens_map.as_ref()),
    ];
    let licences = texts.licences.iter().map(|file| (file.name.as_str(), Some(&file.text)));
    for (name, text) in files.into_iter().chain(licences) {
        if let Some(text) = text {
            let path = dir.join(name);
            std::fs::write(&path, text).map_err(|error| Failure::io(&path, &error))?;
        }
    }
    let none = BTreeMap::new();
    let written = written(weights, coded.map_or(&none, |coded| &coded.codes));
    let shards = shards(&written, max_shard);
    let names = shard_names(shards.len());
    if shards.len() > 1 {
        let path = dir.join("model.safetensors.index.json");
        let index = index(&shards, &names)?;
        std::fs::write(&path, index).map_err(|error| Failure::io(&path, &error))?;
    }
    let mut total = 0;
    let mut done = Done { bytes: 0, progress };
    for (shard, name) in shards.iter().zip(&names) {
        total += tensors(weights, coded, shard, &dir.join(name), &mut done)?;
    }
    Ok(total)
}

/// Whether the settings list chat templates by name, and this one as the default.
fn is_listed(tokenizer_config: &Option<String>, template: &str) -> bool {
    let settings: Option<Value> =
        tokenizer_config.as_deref().and_then(|text| serde_json::from_str(text).ok());
    let list = settings.as_ref().and_then(|settings| settings.get("chat_template")?.as_array());
    list.is_some_and(|list| list.contains(&json!({"name": "default", "template": template})))
}

/// What a file has of a tensor, or of some rows of it.
struct Written {
    /// The canonical tensors that the rows are of, in order; most often one.
    of: Vec<(String, Range<usize>)>,
    /// How its matrices stand in the file, where that is not as they are.
    assembly: Option<Assembly>,
    /// Codes of the values, where they are not in bf16.
    code: Option<GroupCode>,
    /// A matrix of codes has several, its shape first.
    entries: Vec<Entry>,
}

impl Written {
    fn bytes(&self) -> u64 {
        self.entries.iter().map(Entry::bytes).sum()
    }
}

/// Everything that is written, in the order of the source.
fn written(weights: &Weights, codes: &BTreeMap<String, GroupCode>) -> Vec<Written> {
    weights.tensors.iter().flat_map(|tensor| of_tensor(weights, tensor, codes)).collect()
}

/// What a file has of a tensor; of several that stand in one, the first has them all.
fn of_tensor(weights: &Weights, tensor: &WeightTensor, codes: &BTreeMap<String, GroupCode>) -> Vec<Written> {
    let name = &tensor.name;
    if let Some(&code) = codes.get(name) {
        let (rows, cols) = rows_of(&tensor.shape);
        let mut entries = packed::entries(name, code, [rows, cols]);
        entries.insert(0, packed::shape_entry(name));
        return vec![Written {
            of: vec![(name.clone(), 0..rows)],
            assembly: None,
            code: Some(code),
            entries,
        }];
    }
    let whole = |of, assembly, name, shape| {
        let entries = vec![Entry { name, dtype: DType::BF16, shape }];
        Written { of, assembly, code: None, entries }
    };
    match weights.spec.fused(name) {
        None => {
            let parts = weights.spec.on_the_hub(name, &tensor.shape).into_iter();
            let part = |HubTensor { name: hub, shape, rows, assembly }| {
                whole(vec![(name.clone(), rows)], assembly, hub, shape)
            };
            parts.map(part).collect()
        }
        Some(fused) if fused.first() == name => {
            let of = fused.parts.iter().map(|part| (part.name.clone(), 0..part.rows.len())).collect();
            vec![whole(of, None, fused.hub.clone(), fused.shape())]
        }
        Some(_) => Vec::new(),
    }
}

/// The order of entries in a file, by where they are in `shard`: numbers of eight bytes, of four, then the others, so that
/// each begins at a multiple of its size.
fn order(shard: &[Written]) -> Vec<&Entry> {
    let all = || shard.iter().flat_map(|written| written.entries.iter().map(move |entry| (written, entry)));
    let shapes = all().filter(|(_, entry)| entry.dtype == DType::I64);
    let coded = all().filter(|(written, entry)| written.code.is_some() && entry.dtype != DType::I64);
    let others = all().filter(|(written, _)| written.code.is_none());
    shapes.chain(coded).chain(others).map(|(_, entry)| entry).collect()
}

/// The header of a file.
fn header(shard: &[Written]) -> String {
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut end = 0;
    for entry in order(shard) {
        let offsets = [end, end + entry.bytes()];
        let value = json!({"dtype": entry.dtype.name(), "shape": entry.shape, "data_offsets": offsets});
        header.insert(entry.name.clone(), value);
        end += entry.bytes();
    }
    let mut header = Value::Object(header).to_string();
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    header
}

/// Consecutive tensors of at most `max` bytes together.
fn shards(tensors: &[Written], max: u64) -> Vec<&[Written]> {
    let (mut shards, mut first, mut bytes) = (Vec::new(), 0, 0u64);
    for (index, tensor) in tensors.iter().enumerate() {
        let more = tensor.bytes();
        if index > first && bytes + more > max {
            shards.push(&tensors[first..index]);
            (first, bytes) = (index, 0);
        }
        bytes += more;
    }
    shards.push(&tensors[first..]);
    shards
}

fn shard_names(count: usize) -> Vec<String> {
    match count {
        1 => vec!["model.safetensors".to_owned()],
        _ => (1..=count).map(|n| format!("model-{n:05}-of-{count:05}.safetensors")).collect(),
    }
}

/// Which tensor is in which file.
fn index(shards: &[&[Written]], names: &[String]) -> Result<String, Failure> {
    let total: u64 = shards.iter().flat_map(|shard| shard.iter()).map(Written::bytes).sum();
    let files = shards.iter().zip(names).flat_map(|(shard, name)| {
        shard.iter().flat_map(|written| &written.entries).map(move |entry| (&entry.name, name))
    });
    let map: Map<String, Value> = files.map(|(tensor, file)| (tensor.clone(), json!(file))).collect();
    let index = json!({ "metadata": { "total_size": total }, "weight_map": map });
    serde_json::to_string_pretty(&index).map_err(|error| Failure::internal("index", &error))
}

/// The configuration of the text model alone, in bf16, and what is to be known of codes.
fn config(text: &str, coded: Option<&Value>) -> Result<String, Failure> {
    let failed = |error: serde_json::Error| Failure::internal("config.json", &error);
    let whole: Map<String, Value> = serde_json::from_str(text).map_err(failed)?;
    let mut config = match whole.get("text_config").and_then(Value::as_object) {
        None => whole.clone(),
        Some(inner) => {
            let mut inner = inner.clone();
            for key in [
                "bos_token_id",
                "eos_token_id",
                "pad_token_id",
                "tie_word_embeddings",
                "transformers_version",
            ] {
                if let (false, Some(value)) = (inner.contains_key(key), whole.get(key)) {
                    inner.insert(key.to_owned(), value.clone());
                }
            }
            inner
        }
    };
    config.remove("quantization_config");
    config.remove("torch_dtype");
    config.insert("dtype".to_owned(), "bfloat16".into());
    if let Some(coded) = coded {
        config.insert("quantization_config".to_owned(), coded.clone());
    }
    let class = config.get("model_type").and_then(Value::as_str).and_then(Family::architecture);
    if let Some(class) = class {
        config.insert("architectures".to_owned(), json!([class]));
    }
    serde_json::to_string_pretty(&config).map_err(failed)
}

/// Bytes of weights written over all files, told on the way.
struct Done<'a> {
    bytes: u64,
    progress: &'a mut dyn FnMut(u64),
}

impl Done<'_> {
    fn add(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        (self.progress)(self.bytes);
    }
}

/// Writes one file.
fn tensors(
    weights: &Weights,
    coded: Option<&Coded<'_>>,
    shard: &[Written],
    path: &PathBuf,
    done: &mut Done<'_>,
) -> Result<u64, Failure> {
    let failed = |error: std::io::Error| Failure::io(path, &error);
    let header = header(shard);
    let mut file = BufWriter::with_capacity(1 << 18, File::create(path).map_err(failed)?);
    file.write_all(&(header.len() as u64).to_le_bytes()).map_err(failed)?;
    file.write_all(header.as_bytes()).map_err(failed)?;
    let mut put = |bytes: &[u8]| -> Result<(), Failure> {
        file.write_all(bytes).map_err(failed)?;
        done.add(bytes.len());
        Ok(())
    };
    let matrices = || {
        let coded = shard.iter().filter_map(|written| Some((written, written.code?, coded?)));
        coded.flat_map(|(written, code, coded)| {
            written.of.iter().map(move |(of, rows)| (of, rows, code, coded))
        })
    };
    let shape =
        |of: &str| weights.tensors.iter().find(|tensor| tensor.name == of).map(|tensor| &tensor.shape);
    for (of, ..) in matrices() {
        put(&packed::shape_bytes(shape(of).map_or(&[], |shape| shape)))?;
    }
    for (of, rows, code, coded) in matrices() {
        let cols = shape(of).and_then(|shape| shape.last().copied()).unwrap_or(1);
        let mut rest = Rest::default();
        let mut values = Vec::new();
        for now in steps(rows.clone(), (STEP / cols.max(1)).max(1)) {
            values.resize(now.len() * cols, 0.0);
            weights.read_rows(of, now, &mut values)?;
            let rows = (coded.round)(of, code, &values)?;
            put(&packed::code_bytes(code, &rows.codes))?;
            rest.add(&rows);
        }
        put(&rest.bytes(code, cols / code.group()))?;
    }
    for written in shard.iter().filter(|written| written.code.is_none()) {
        bf16_rows(weights, written, &mut put)?;
    }
    file.flush().map_err(failed)?;
    file.get_ref().sync_all().map_err(failed)?;
    Ok(8 + header.len() as u64 + shard.iter().map(Written::bytes).sum::<u64>())
}

/// Rows a step at a time.
fn steps(rows: Range<usize>, step: usize) -> impl Iterator<Item = Range<usize>> {
    rows.clone().step_by(step).map(move |first| first..(first + step).min(rows.end))
}

/// Puts rows of tensors in bf16.
fn bf16_rows(
    weights: &Weights,
    written: &Written,
    put: &mut dyn FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let shape: &[usize] = written.entries.first().map_or(&[], |entry| &entry.shape);
    let all: usize = written.of.iter().map(|(_, rows)| rows.len()).sum();
    let cols = shape.iter().product::<usize>() / all.max(1);
    let (mut values, mut bytes) = (Vec::new(), Vec::new());
    for (of, rows) in &written.of {
        let rows_per_matrix = rows.len() / shape.first().copied().unwrap_or(1).max(1);
        let step =
            if written.assembly.is_some() { rows_per_matrix.max(1) } else { (STEP / cols.max(1)).max(1) };
        for now in steps(rows.clone(), step) {
            values.resize(now.len() * cols, 0.0);
            bytes.resize(2 * values.len(), 0);
            weights.read_rows(of, now.clone(), &mut values)?;
            // The largest values of f32 round to infinity in bf16.
            let beyond = values.par_iter().position_any(|value| !bf16::from_f32(*value).is_finite());
            if let Some(at) = beyond {
                let (row, value) = (now.start + at / cols.max(1), values[at]);
                let message = format!("{of}: a weight in row {row} is {value:e}, which bf16 cannot hold");
                let failure = Failure::new(Exit::Input, "tensor.not_finite", message).at(of);
                return Err(failure.limit("finite numbers of bf16").actual(value));
            }
            if let Some(assembly) = written.assembly {
                values = assembly.as_stored(&values, rows_per_matrix);
            }
            let chunks = values.par_chunks(CHUNK).zip(bytes.par_chunks_mut(2 * CHUNK));
            chunks.for_each(|(values, bytes)| {
                encode_f32(DType::BF16, values, bytes);
            });
            put(&bytes)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gq_files::is_held;

    /// The mark goes when the folder has its name: whoever finds the unfinished one finds it held.
    #[test]
    fn an_unfinished_folder_is_held_until_it_has_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let partial = at("m.partial");
        // What an earlier export left, and what another one is writing.
        std::fs::create_dir(&partial).unwrap();
        std::fs::write(mark(&partial), "").unwrap();
        let held = make_folder(&partial).unwrap();
        let failure = make_folder(&partial).unwrap_err();
        assert!(failure.message.contains("another gq"), "{failure}");
        std::fs::write(partial.join("x"), "x").unwrap();
        // As long as its name is taken, it is unfinished.
        std::fs::create_dir(at("m")).unwrap();
        std::fs::write(at("m/y"), "y").unwrap();
        assert!(finish(&partial, &at("m")).is_err());
        assert!(is_unfinished(&partial) && is_held(&mark(&partial)));
        std::fs::remove_dir_all(at("m")).unwrap();
        finish(&partial, &at("m")).unwrap();
        assert!(at("m/x").exists() && !mark(&at("m")).exists());
        drop(held);
    }
}
