//! Llamas of any size with weights that look random, for what depends on sizes alone.

use gq_checkpoint::{Role, parse_config};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Sizes of a Llama.
#[derive(Clone, Copy)]
pub struct Shape {
    pub hidden: usize,
    pub width: usize,
    pub layers: usize,
    pub vocab: usize,
}

impl Shape {
    fn config(self) -> Value {
        json!({
            "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": self.hidden,
            "intermediate_size": self.width, "num_hidden_layers": self.layers, "num_attention_heads": 4,
            "num_key_value_heads": 2, "vocab_size": self.vocab, "tie_word_embeddings": true,
            "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 512,
        })
    }

    fn tensors(self) -> Vec<(String, Vec<usize>, Role)> {
        let spec = parse_config(&self.config().to_string()).unwrap();
        spec.expected_tensors().into_iter().map(|tensor| (tensor.name, tensor.shape, tensor.role)).collect()
    }

    /// Weights in all.
    pub fn weights(self) -> u64 {
        self.tensors().iter().map(|(_, shape, _)| shape.iter().product::<usize>() as u64).sum()
    }
}

/// Numbers between -1 and 1.
fn noise() -> impl FnMut() -> f32 {
    let mut state = 2_654_435_761u32;
    move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// A file of safetensors that is written tensor after tensor.
#[derive(Default)]
struct Tensors {
    header: Map<String, Value>,
    data: Vec<u8>,
}

impl Tensors {
    fn add(&mut self, name: &str, dtype: &str, shape: &[usize], bytes: impl IntoIterator<Item = u8>) {
        let begin = self.data.len();
        self.data.extend(bytes);
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, self.data.len()]});
        self.header.insert(name.to_owned(), entry);
    }

    fn write(self, path: &Path) {
        let header = Value::Object(self.header).to_string();
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.extend(self.data);
        std::fs::write(path, file).unwrap();
    }
}

fn bf16(values: impl Iterator<Item = f32>) -> impl Iterator<Item = u8> {
    values.flat_map(|value| {
        let [_, _, low, high] = value.to_le_bytes();
        [low, high]
    })
}

/// A Llama in bf16; `of` makes weights of numbers between -0.25 and 0.25. Norms are ones.
pub fn write_llama(dir: &Path, shape: Shape, of: impl Fn(f32) -> f32) {
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join("config.json"), shape.config().to_string()).unwrap();
    let (mut tensors, mut noise) = (Tensors::default(), noise());
    for (name, shape, _) in shape.tensors() {
        let ones = shape.len() == 1;
        let values = (0..shape.iter().product()).map(|_| if ones { 1.0 } else { of(0.25 * noise()) });
        tensors.add(&name, "BF16", &shape, bf16(values));
    }
    tensors.write(&dir.join("model.safetensors"));
}

/// A Llama in bf16 of which nothing lies on the disk: its weights are a hole that reads as zeros. `false` where the file
/// system has none so large.
pub fn write_hollow(dir: &Path, shape: Shape) -> bool {
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join("config.json"), shape.config().to_string()).unwrap();
    let (mut header, mut end) = (Map::new(), 0);
    for (name, shape, _) in shape.tensors() {
        let begin = end;
        end += 2 * shape.iter().map(|&n| n as u64).product::<u64>();
        header.insert(name, json!({"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}));
    }
    let header = Value::Object(header).to_string();
    let path = dir.join("model.safetensors");
    std::fs::write(&path, [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat()).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len(8 + header.len() as u64 + end).is_ok()
}

/// The same with matrices of the layers in F8, with scales of blocks of 128 x 128.
pub fn write_f8(dir: &Path, shape: Shape) {
    std::fs::create_dir_all(dir).unwrap();
    let mut config = shape.config();
    config["quantization_config"] = json!({"quant_method": "fp8", "weight_block_size": [128, 128]});
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let (mut tensors, mut noise) = (Tensors::default(), noise());
    for (name, shape, role) in shape.tensors() {
        let elements = shape.iter().product();
        match shape[..] {
            [rows, cols] if role != Role::Embedding => {
                // Codes of both signs below 2.
                let codes = (0..elements).map(|_| noise().to_bits() as u8 & 0xBF);
                tensors.add(&name, "F8_E4M3", &shape, codes);
                let blocks = [rows.div_ceil(128), cols.div_ceil(128)];
                let scales = (0..blocks[0] * blocks[1]).flat_map(|_| (0.1 + 0.05 * noise()).to_le_bytes());
                tensors.add(&format!("{name}_scale_inv"), "F32", &blocks, scales);
            }
            [_] => tensors.add(&name, "BF16", &shape, bf16((0..elements).map(|_| 1.0))),
            _ => tensors.add(&name, "BF16", &shape, bf16((0..elements).map(|_| 0.25 * noise()))),
        }
    }
    tensors.write(&dir.join("model.safetensors"));
}

/// An adapter of rank 4 on every projection.
pub fn write_adapter(dir: &Path, shape: Shape) {
    const RANK: usize = 4;
    std::fs::create_dir_all(dir).unwrap();
    let projections = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
    let config = json!({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": 8, "lora_dropout": 0.0,
        "bias": "none", "target_modules": projections, "base_model_name_or_path": "plain",
    });
    std::fs::write(dir.join("adapter_config.json"), config.to_string()).unwrap();
    let (mut tensors, mut noise) = (Tensors::default(), noise());
    for (name, shape, _) in shape.tensors() {
        let ([rows, cols], Some(module)) = (&shape[..], name.strip_suffix("_proj.weight")) else { continue };
        for (part, shape) in [("A", [RANK, *cols]), ("B", [*rows, RANK])] {
            let values = (0..shape[0] * shape[1]).flat_map(|_| (0.05 * noise()).to_le_bytes());
            let name = format!("base_model.model.{module}_proj.lora_{part}.weight");
            tensors.add(&name, "F32", &shape, values);
        }
    }
    tensors.write(&dir.join("adapter_model.safetensors"));
}
