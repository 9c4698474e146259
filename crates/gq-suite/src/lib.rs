//! One suite for all backends: every operator, family and storage of keys and values on every instruction set, against
//! the definition in f64 ([`ReferenceF64`]).
//!
//! A backend implements [`Backend`], so that its values are made of numbers and read again. A [`Subject`] is a backend
//! with its settings: it makes instances and asks them a [`Case`] or a [`Question`]. [`suite!`] makes the tests of each
//! subject; what may differ is in one table here.
//!
//! ```ignore
//! gq_suite::suite! {
//!     cpu_f32: Cpu(Sums::Fastest(ActivationMode::F32), KvType::F32);
//! }
//! ```
//!
//! This crate does not know calibration, conversion or devices; it is never shipped.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // it serves tests, which fail by panicking

mod backend;
mod cases;
mod reference_f64;
mod references;
mod subject;
mod weights;

pub use backend::Backend;
pub use cases::{CASES, Case, Choice, EXTRAS, Extra, ROPE, specification};
pub use reference_f64::{MatrixF64, ReferenceF64, chosen, softmax};
pub use references::{FILE, Question, RouterCase};
pub use subject::{Cpu, Cuda, Subject, logits_on, on, run_wide};
pub use weights::{coded, exact, numbers, of_values};

use gq_checkpoint::Checkpoint;
use gq_model::cpu::ActivationMode;
use gq_model::{KvType, Model, RunOptions};
use gq_tensor::Isa;
use std::path::{Path, PathBuf};
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
pub const STORED: &[(KvType, f64)] = &[(KvType::F32, 0.0), (KvType::F16, 3e-3), (KvType::Q8, 5e-2)];

/// What a subject's result may differ by.
pub fn allowed(operator: &str, subject: impl Subject) -> f64 {
    let row = ALLOWED.iter().find(|row| row.operator == operator);
    let row = row.unwrap_or_else(|| panic!("{operator} is not in the table"));
    if subject.is_int8() { row.int8 } else { row.f32 }
}

/// The largest difference over the root mean square of what is expected.
pub fn error(actual: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(actual.len(), expected.len());
    let size = (expected.iter().map(|x| x * x).sum::<f64>() / expected.len() as f64).sqrt();
    let errors = actual.iter().zip(expected).map(|(a, e)| (a - e).abs());
    let largest = errors.fold(0.0, |max, error| if error.is_nan() { f64::INFINITY } else { error.max(max) });
    largest / size.max(f64::MIN_POSITIVE)
}

/// What this machine cannot run is said, not left out.
pub fn levels() -> Vec<Isa> {
    let levels = Isa::available();
    for name in ["scalar", "avx2", "avx512"] {
        if !levels.iter().any(|level| level.name() == name) {
            eprintln!("not on this machine, so not tested: {name}");
        }
    }
    levels
}

/// Every operator in every form, of one token and of some.
pub fn every_operator(subject: impl Subject) {
    for (level, case) in levels().into_iter().flat_map(|level| CASES.iter().map(move |case| (level, case))) {
        for tokens in [1, 2, 23, 40] {
            let inputs = case.inputs(tokens);
            let expected = run_wide(case, &inputs);
            let actual = subject.run(level, case, &inputs);
            assert_eq!(actual.len(), expected.len());
            for (actual, expected) in actual.iter().zip(&expected) {
                assert_eq!(actual.width, expected.width, "{case:?}");
                let (error, limit) = (error(&actual.data, &expected.data), allowed(case.operator(), subject));
                let place = format!("{case:?} of {tokens} on {subject:?}, {}", level.name());
                let stored = if case.operator() == "attention" { subject.rounding() } else { 0.0 };
                assert!(error <= limit + stored, "{place}: {error:e} > {limit:e}");
            }
        }
    }
}

/// Weights as they are: logits of a whole graph.
pub fn every_family(subject: impl Subject) {
    let names = [
        "llama",
        "llama3",
        "qwen2",
        "qwen3",
        "qwen3-moe",
        "qwen3-moe-mixed",
        "gpt-oss",
        "gpt-oss-resaved",
        "mistral",
        "ministral3",
        "phi3",
        "phi3-long",
        "gemma3",
        "gemma4-e2b",
        "gemma4-moe",
        "gemma4-dense",
    ];
    for name in names {
        let level = *levels().last().unwrap();
        let model = tiny(name, level);
        let tokens: Vec<u32> = (0..24).map(|i| (i * i * 7 + 3 * i + 5) % model.vocab_size() as u32).collect();
        let expected = subject::logits_wide(&model, &tokens);
        let error = error(&subject.logits(level, &model, &tokens), &expected);
        let limit = allowed("family", subject) + 10.0 * subject.rounding();
        assert!(error <= limit, "{name} on {subject:?}: {error:e} > {limit:e}");
    }
}

/// What transformers' modules make of routers, gates and sinks, in float64.
pub fn every_reference(subject: impl Subject) {
    let answer = |level: Isa, question: &Question<'_>| subject.answer(level, question);
    references::all(&format!("{subject:?}"), subject.rounding(), answer);
}

/// Where a tiny checkpoint lies.
pub fn tiny_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/tiny").join(name)
}

/// A tiny checkpoint's model, with f32 activations and caches.
pub fn tiny(name: &str, level: Isa) -> Model {
    let options = RunOptions { level, activations: ActivationMode::F32, kv: KvType::F32 };
    Model::from_checkpoint(Arc::new(Checkpoint::open(tiny_path(name)).unwrap()), options).unwrap()
}

/// Makes a module of tests for each subject, `name: subject;`.
#[macro_export]
macro_rules! suite {
    ($($name:ident: $subject:expr;)*) => {
        $(mod $name {
            use super::*;

            #[test]
            fn every_operator_is_its_definition() {
                $crate::every_operator($subject);
            }

            #[test]
            fn every_family_is_its_definition() {
                $crate::every_family($subject);
            }

            #[test]
            fn routers_gates_and_sinks_are_those_of_transformers() {
                $crate::every_reference($subject);
            }
        })*
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// The trait's operators, read from its source, are those of the cases.
    #[test]
    fn no_operator_is_left_out() {
        let source = include_str!("../../gq-model/src/ops.rs");
        let body = source.split("pub trait Ops {").nth(1).unwrap().split("\n}").next().unwrap();
        let names = body.lines().filter_map(|line| line.strip_prefix("    fn "));
        let names: BTreeSet<&str> = names.filter_map(|name| name.split(['(', '<']).next()).collect();
        let tested: BTreeSet<&str> = CASES.iter().flat_map(Case::operators).collect();
        assert_eq!(tested, names);
    }
}
