//! Small checkpoints, and conversions of them.

use gq_checkpoint::Checkpoint;
use gq_container::Container;
use gq_convert::{Choice, ConvertError, ExecuteOptions, Override, Plan, Policy, Report, Resources};
use gq_tensor::{DType, Isa};
use std::path::Path;

pub const TWO_THREADS: Resources = Resources { threads: 2, max_memory: None };

/// A checkpoint below `testdata/`.
pub fn testdata(name: &str) -> Checkpoint {
    Checkpoint::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(name)).unwrap()
}

/// The default policy around a body encoding, with overrides.
pub fn policy(body: &str, overrides: &[(&str, &str)]) -> Policy {
    let choice = |name: &str| Choice::from_name(name).unwrap();
    let rule =
        |(pattern, name): &(&str, &str)| Override { pattern: (*pattern).to_owned(), encoding: choice(name) };
    Policy { overrides: overrides.iter().map(rule).collect(), ..Policy::new(choice(body)) }
}

pub fn plan(checkpoint: &Checkpoint, policy: &Policy) -> Plan {
    gq_convert::plan(checkpoint, policy, TWO_THREADS).unwrap()
}

/// Converts to `path` and opens what came out.
pub fn convert(
    checkpoint: &Checkpoint,
    policy: &Policy,
    path: &Path,
) -> Result<(Report, Container), ConvertError> {
    let plan = plan(checkpoint, policy);
    let options = ExecuteOptions {
        level: Isa::detect(),
        restart: false,
        measurements: None,
        origin: None,
        check: None,
        existing: gq_files::Existing::Replaced,
    };
    let report = gq_convert::execute(&plan, checkpoint, path, options, &mut |_| {})?;
    Ok((report, Container::open(path).unwrap()))
}

/// A Llama of one layer: `tensor` gives dtype and bytes of each tensor by name and elements;
/// `extra` are tensors next to those of the graph.
pub fn write_llama(
    dir: &Path,
    (hidden, width): (usize, usize),
    mut tensor: impl FnMut(&str, usize) -> (DType, Vec<u8>),
    extra: &[(&str, &[usize], DType, Vec<u8>)],
) {
    let config = serde_json::json!({
        "model_type": "llama", "hidden_size": hidden, "intermediate_size": width, "num_hidden_layers": 1,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 32, "tie_word_embeddings": true,
    });
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let spec = gq_checkpoint::parse_config(&config.to_string()).unwrap();
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    let mut add = |name: &str, shape: &[usize], dtype: DType, bytes: Vec<u8>| {
        let begin = data.len();
        data.extend(bytes);
        let offsets = [begin, data.len()];
        header.insert(
            name.to_owned(),
            serde_json::json!({"dtype": dtype.name(), "shape": shape, "data_offsets": offsets}),
        );
    };
    for expected in spec.expected_tensors() {
        let (dtype, bytes) = tensor(&expected.name, expected.shape.iter().product());
        add(&expected.name, &expected.shape, dtype, bytes);
    }
    for (name, shape, dtype, bytes) in extra {
        add(name, shape, *dtype, bytes.clone());
    }
    let header = serde_json::Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    std::fs::write(dir.join("model.safetensors"), file).unwrap();
}

/// Numbers between -1 and 1 in bf16 that look random.
pub fn bf16(elements: usize, seed: u32) -> (DType, Vec<u8>) {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let bytes = (0..elements).flat_map(|_| {
        let [_, _, low, high] = next().to_le_bytes();
        [low, high]
    });
    (DType::BF16, bytes.collect())
}
