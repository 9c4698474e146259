//! A checkpoint directory in bf16, as transformers loads it.

use super::Weights;
use crate::failure::{Exit, Failure};
use gq_tensor::{DType, encode_f32};
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Values worked on at once.
const STEP: usize = 1 << 20;

/// Writes the directory; it gets its name when it is whole. `progress` gets bytes of weights written so far.
pub fn write(weights: &Weights, dir: &Path, progress: &mut dyn FnMut(u64)) -> Result<u64, Failure> {
    if std::fs::symlink_metadata(dir).is_ok() {
        let message = format!("{}: exists already", dir.display());
        let failure = Failure::new(Exit::Usage, "export.exists", message);
        return Err(failure.at(dir.display()).limit("a new name").actual("an existing one"));
    }
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = dir.with_file_name(name);
    let outcome = fill(weights, &partial, progress);
    let outcome = outcome.and_then(|bytes| {
        std::fs::rename(&partial, dir).map_err(|error| Failure::io(dir, &error))?;
        Ok(bytes)
    });
    if outcome.is_err() {
        let _ = std::fs::remove_dir_all(&partial); // the first failure is the one to tell
    }
    outcome
}

fn fill(weights: &Weights, dir: &Path, progress: &mut dyn FnMut(u64)) -> Result<u64, Failure> {
    if dir.exists() {
        std::fs::remove_dir_all(dir).map_err(|error| Failure::io(dir, &error))?;
    }
    std::fs::create_dir_all(dir).map_err(|error| Failure::io(dir, &error))?;
    let texts = &weights.texts;
    let config = config(&texts.config)?;
    let mut tokenizer_config = texts.tokenizer_config.clone();
    if tokenizer_config.is_none() && texts.tokenizer.is_some() {
        tokenizer_config = Some("{\"tokenizer_class\":\"PreTrainedTokenizerFast\"}".to_owned());
    }
    let files = [
        ("config.json", Some(&config)),
        ("tokenizer.json", texts.tokenizer.as_ref()),
        ("tokenizer_config.json", tokenizer_config.as_ref()),
        ("chat_template.jinja", texts.chat_template.as_ref()),
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
    let path = dir.join("model.safetensors");
    tensors(weights, &path, progress)
}

/// The configuration of the text model alone, in bf16.
fn config(text: &str) -> Result<String, Failure> {
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
    let class = match config.get("model_type").and_then(Value::as_str) {
        Some("gemma3_text") => Some("Gemma3ForCausalLM"),
        Some("gemma4_text") => Some("Gemma4ForCausalLM"),
        Some("llama") => Some("LlamaForCausalLM"),
        _ => None,
    };
    if let Some(class) = class {
        config.insert("architectures".to_owned(), json!([class]));
    }
    serde_json::to_string_pretty(&config).map_err(failed)
}

fn tensors(weights: &Weights, path: &PathBuf, progress: &mut dyn FnMut(u64)) -> Result<u64, Failure> {
    let failed = |error: std::io::Error| Failure::io(path, &error);
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut end = 0;
    for tensor in &weights.tensors {
        let bytes = 2 * tensor.shape.iter().map(|&n| n as u64).product::<u64>();
        let entry = json!({"dtype": "BF16", "shape": tensor.shape, "data_offsets": [end, end + bytes]});
        header.insert(tensor.name.clone(), entry);
        end += bytes;
    }
    let mut header = Value::Object(header).to_string();
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    let mut file = BufWriter::with_capacity(1 << 18, File::create(path).map_err(failed)?);
    file.write_all(&(header.len() as u64).to_le_bytes()).map_err(failed)?;
    file.write_all(header.as_bytes()).map_err(failed)?;
    let (mut values, mut bytes, mut done) = (Vec::new(), Vec::new(), 0);
    for tensor in &weights.tensors {
        let cols = tensor.shape.last().copied().unwrap_or(1);
        let rows = tensor.shape.iter().rev().skip(1).product::<usize>();
        let step = (STEP / cols.max(1)).max(1);
        for first in (0..rows).step_by(step) {
            let now = first..(first + step).min(rows);
            values.resize(now.len() * cols, 0.0);
            bytes.resize(2 * values.len(), 0);
            weights.read_rows(&tensor.name, now, &mut values)?;
            encode_f32(DType::BF16, &values, &mut bytes);
            file.write_all(&bytes).map_err(failed)?;
            done += bytes.len() as u64;
            progress(done);
        }
    }
    file.flush().map_err(failed)?;
    file.get_ref().sync_all().map_err(failed)?;
    Ok(8 + header.len() as u64 + end)
}
