//! Biases dropped or added in Qwen2's graph: parity with the reference notices each.

use super::Layer;
use crate::cache::{KvCache, KvType};
use crate::cpu::{ActivationMode, Batch, Sums};
use crate::family::{Graph, Layers};
use crate::weight_source::{Decoded, Source};
use gq_checkpoint::Checkpoint;
use gq_tensor::Isa;
use safetensors::SafeTensors;
use std::path::Path;
use std::sync::Arc;

/// Largest error of the logits of Qwen2's tiny checkpoint under a change of its layers, in what parity tolerates.
fn error(change: fn(&mut Layer)) -> f64 {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/tiny/qwen2");
    let facts = std::fs::read_to_string(dir.join("reference.json")).unwrap();
    let floor = serde_json::from_str::<serde_json::Value>(&facts).unwrap()["floor_max_abs"].as_f64().unwrap();
    let reference = std::fs::read(dir.join("reference.safetensors")).unwrap();
    let reference = SafeTensors::deserialize(&reference).unwrap();
    let words = |name: &str| -> Vec<[u8; 8]> {
        let data = reference.tensor(name).unwrap().data().to_vec();
        data.chunks_exact(8).map(|word| word.try_into().unwrap()).collect()
    };
    let tokens = reference.tensor("input_ids").unwrap().shape()[1];
    let ids: Vec<u32> = words("input_ids").into_iter().map(|id| i64::from_le_bytes(id) as u32).collect();
    let logits = words("logits").into_iter().map(f64::from_le_bytes);

    let checkpoint = Arc::new(Checkpoint::open(&dir).unwrap());
    let spec = checkpoint.spec().clone();
    let mut graph = Graph::load(&spec, &mut Source::checkpoint(checkpoint, Decoded::Held).unwrap()).unwrap();
    let Layers::Llama(layers) = &mut graph.layers else { panic!("another family") };
    layers.iter_mut().for_each(change);
    let mut actual = Vec::new();
    for tokens in ids.chunks(tokens) {
        let mut cache = KvCache::new(&spec, tokens.len(), KvType::F32);
        let sums = Sums::Fastest(ActivationMode::F32);
        let mut ops = Batch::new(Isa::detect(), sums, &spec.ropes, vec![(tokens.len(), &mut cache)]);
        let hidden = graph.hidden(&mut ops, tokens);
        actual.extend(graph.logits(&mut ops, &hidden).data);
    }
    let errors = actual.iter().zip(logits).map(|(actual, expected)| (f64::from(*actual) - expected).abs());
    errors.fold(0.0, f64::max) / (3.0 * floor)
}

fn values(layer: &mut Layer) -> &mut crate::linear::Linear {
    layer.attention.keys_values.as_mut().unwrap().value.as_mut().unwrap()
}

#[test]
fn parity_notices_every_missing_bias_and_one_too_many() {
    assert!(error(|_| {}) <= 1.0, "{}", error(|_| {}));
    type Change = fn(&mut Layer);
    let drop: [(&str, Change); 4] = [
        ("query", |layer| layer.attention.query.bias = None),
        ("key", |layer| layer.attention.keys_values.as_mut().unwrap().key.bias = None),
        ("value", |layer| values(layer).bias = None),
        ("output", |layer| {
            layer.attention.output.bias = Some(vec![0.1; layer.attention.output.shape().rows])
        }),
    ];
    for (name, change) in drop {
        let error = error(change);
        assert!(error > 30.0, "{name}: {error}");
    }
}
