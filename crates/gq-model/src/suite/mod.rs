//! One suite for all backends: every operator, family and storage of keys and values on every backend and instruction
//! set, against the definition in f64 ([`WideOps`](crate::fixed::WideOps)).

mod backends;
mod cases;
mod gradients;
mod references;
mod sequences;
mod weights;

use crate::cache::KvType;
use crate::cpu::{ActivationMode, Sums};
use crate::model::{Model, RunOptions};
use backends::{Kind, run, run_wide};
use cases::{CASES, Case};
use gq_checkpoint::Checkpoint;
use gq_tensor::Isa;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// What a result may differ from its definition by, over the root mean square of the definition: sums of f32 in some
/// order, and int8 activations with one scale per 32 elements where codes are multiplied.
struct Allowed {
    operator: &'static str,
    f32: f64,
    int8: f64,
}

const ALLOWED: &[Allowed] = &[
    Allowed { operator: "embed", f32: 0.0, int8: 0.0 },
    Allowed { operator: "linear", f32: 5e-6, int8: 5e-6 },
    Allowed { operator: "linear of codes", f32: 1e-5, int8: 3e-2 },
    Allowed { operator: "rms_norm", f32: 1e-6, int8: 1e-6 },
    Allowed { operator: "rope", f32: 1e-6, int8: 1e-6 },
    Allowed { operator: "attention", f32: 5e-6, int8: 5e-6 },
    Allowed { operator: "gated", f32: 3e-6, int8: 3e-6 },
    Allowed { operator: "route", f32: 2e-6, int8: 2e-6 },
    Allowed { operator: "grouped_linear", f32: 5e-6, int8: 5e-6 },
    // Two products, one after the other.
    Allowed { operator: "grouped_linear of codes", f32: 1e-5, int8: 6e-2 },
    Allowed { operator: "combine", f32: 2e-6, int8: 2e-6 },
    Allowed { operator: "feed forward", f32: 1e-5, int8: 1e-5 },
    Allowed { operator: "add", f32: 2e-7, int8: 2e-7 },
    Allowed { operator: "scale", f32: 2e-7, int8: 2e-7 },
    Allowed { operator: "softcap", f32: 2e-6, int8: 2e-6 },
    Allowed { operator: "rows", f32: 0.0, int8: 0.0 },
    Allowed { operator: "columns", f32: 0.0, int8: 0.0 },
    // A whole model: errors of all layers.
    Allowed { operator: "family", f32: 3e-4, int8: 3e-4 },
];

/// The same for attention over keys and values that are rounded when they are stored.
const STORED: &[(KvType, f64)] = &[(KvType::F32, 0.0), (KvType::F16, 3e-3), (KvType::Q8, 5e-2)];

fn allowed(operator: &str, kind: Kind) -> f64 {
    let row = ALLOWED.iter().find(|row| row.operator == operator);
    let row = row.unwrap_or_else(|| panic!("{operator} is not in the table"));
    match kind {
        Kind::Cpu(Sums::Fastest(ActivationMode::Int8), _) => row.int8,
        _ => row.f32,
    }
}

/// The largest difference over the root mean square of what is expected.
fn error(actual: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(actual.len(), expected.len());
    let size = (expected.iter().map(|x| x * x).sum::<f64>() / expected.len() as f64).sqrt();
    let errors = actual.iter().zip(expected).map(|(a, e)| (a - e).abs());
    let largest = errors.fold(0.0, |max, error| if error.is_nan() { f64::INFINITY } else { error.max(max) });
    largest / size.max(f64::MIN_POSITIVE)
}

/// What this machine cannot run is said, not left out.
fn levels() -> Vec<Isa> {
    let levels = Isa::available();
    for name in ["scalar", "avx2", "avx512"] {
        if !levels.iter().any(|level| level.name() == name) {
            eprintln!("not on this machine, so not tested: {name}");
        }
    }
    levels
}

fn every_operator(kind: Kind) {
    for (level, case) in levels().into_iter().flat_map(|level| CASES.iter().map(move |case| (level, case))) {
        for tokens in [1, 2, 23, 40] {
            let inputs = case.inputs(tokens);
            let expected = run_wide(case, &inputs);
            let actual = run(kind, level, case, &inputs);
            assert_eq!(actual.len(), expected.len());
            for (actual, expected) in actual.iter().zip(&expected) {
                assert_eq!(actual.width, expected.width, "{case:?}");
                let (error, limit) = (error(&actual.data, &expected.data), allowed(case.operator(), kind));
                let place = format!("{case:?} of {tokens} on {kind:?}, {}", level.name());
                assert!(error <= limit + kind.stored(case), "{place}: {error:e} > {limit:e}");
            }
        }
    }
}

/// Weights as they are: logits of a whole graph.
fn every_family(kind: Kind) {
    let names = [
        "llama",
        "llama3",
        "qwen2",
        "qwen3",
        "qwen3-moe",
        "qwen3-moe-mixed",
        "gemma3",
        "gemma4-e2b",
        "gemma4-moe",
        "gemma4-dense",
    ];
    for name in names {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/tiny").join(name);
        let level = *levels().last().unwrap();
        let options = RunOptions { level, activations: ActivationMode::F32, kv: KvType::F32 };
        let model = Model::from_checkpoint(Arc::new(Checkpoint::open(path).unwrap()), options).unwrap();
        let tokens: Vec<u32> = (0..24).map(|i| (i * i * 7 + 3 * i + 5) % model.vocab_size() as u32).collect();
        let expected = backends::logits_wide(&model, &tokens);
        let error = error(&backends::logits(kind, level, &model, &tokens), &expected);
        let limit = allowed("family", kind) + 10.0 * kind.rounding();
        assert!(error <= limit, "{name} on {kind:?}: {error:e} > {limit:e}");
    }
}

macro_rules! suite {
    ($($name:ident: $kind:expr;)*) => {
        $(mod $name {
            use super::*;

            #[test]
            fn every_operator_is_its_definition() {
                every_operator($kind);
            }

            #[test]
            fn every_family_is_its_definition() {
                every_family($kind);
            }

            #[test]
            fn routers_gates_and_sinks_are_those_of_transformers() {
                references::all($kind);
            }
        })*
    };
}

suite! {
    cpu_f32: Kind::Cpu(Sums::Fastest(ActivationMode::F32), KvType::F32);
    cpu_f32_over_f16: Kind::Cpu(Sums::Fastest(ActivationMode::F32), KvType::F16);
    cpu_int8_over_q8: Kind::Cpu(Sums::Fastest(ActivationMode::Int8), KvType::Q8);
    cpu_fixed: Kind::Cpu(Sums::Fixed, KvType::F32);
    recorded: Kind::Recorded;
}

/// The trait's operators, read from its source, are those of the cases.
#[test]
fn no_operator_is_left_out() {
    let source = include_str!("../ops.rs");
    let body = source.split("pub trait Ops {").nth(1).unwrap().split("\n}").next().unwrap();
    let names = body.lines().filter_map(|line| line.strip_prefix("    fn "));
    let names: BTreeSet<&str> = names.filter_map(|name| name.split(['(', '<']).next()).collect();
    let tested: BTreeSet<&str> = CASES.iter().flat_map(Case::operators).collect();
    assert_eq!(tested, names);
}
