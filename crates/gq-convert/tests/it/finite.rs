//! Models that compute what is no finite number: no job that compares takes one for close.

use crate::calibrated::{options, tokens, tuned};
use crate::support::{convert, policy, testdata};
use gq_calibrate::{CalibrateError, MeasurementsDir, TrialOptions};
use gq_checkpoint::Checkpoint;
use gq_container::{Container, StoredText, TextKind, Writer};
use gq_convert::{
    NotFinite, RoundAgain, RoundAgainError, RoundAgainOptions, ScalesError, ScalesOptions, Side,
    TargetKldError, correct, held_out_divergence, tune_scales,
};
use gq_model::{Model, ModelError};
use gq_tensor::Isa;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is done to a checkpoint, whose weights stay finite, and the tensor that meets the first bad number.
#[derive(Clone, Copy, Debug)]
struct Kind {
    value: &'static str,
    changed: &'static str,
    weight: f32,
    met: &'static str,
}

/// A row that overflows, so that the norm behind it makes NaN; a row that overflows and meets the next product as it is.
const KINDS: [Kind; 2] = [
    Kind {
        value: "NaN",
        changed: "model.layers.0.self_attn.o_proj.weight",
        weight: 3e38,
        met: "model.layers.0.mlp.gate_proj.weight",
    },
    Kind {
        value: "inf",
        changed: "model.layers.0.mlp.up_proj.weight",
        weight: 1e38,
        met: "model.layers.0.mlp.down_proj.weight",
    },
];

const FINE: &str = "tiny/llama";

/// The checkpoint with the first elements of a tensor changed, as many as a row has; its middle stays as it is.
fn changed(kind: Kind, dir: &Path) -> Arc<Checkpoint> {
    let source = testdata(FINE);
    std::fs::create_dir(dir).unwrap();
    for entry in std::fs::read_dir(source.dir()).unwrap().map(|entry| entry.unwrap()) {
        std::fs::copy(entry.path(), dir.join(entry.file_name())).unwrap();
    }
    let tensor = source.tensor(kind.changed).unwrap();
    let path = dir.join(&source.files()[tensor.file].name);
    let mut bytes = std::fs::read(&path).unwrap();
    let [_, _, low, high] = kind.weight.to_le_bytes();
    let row = &mut bytes[tensor.offset as usize..][..tensor.row_bytes()];
    row.as_chunks_mut::<2>().0.iter_mut().for_each(|value| *value = [low, high]);
    std::fs::write(path, bytes).unwrap();
    Arc::new(Checkpoint::open(dir).unwrap())
}

/// A copy of a file with the stored bytes of one tensor changed.
fn with_changed(container: &Container, name: &str, change: impl Fn(&mut [u8]), path: &Path) -> Container {
    let mut writer = Writer::create(path).unwrap();
    for entry in container.tensors() {
        let mut payload = container.payload(entry).to_vec();
        if entry.name == name {
            change(&mut payload);
        }
        writer.write_tensor(entry.spec(), &payload).unwrap();
    }
    let kinds = container.texts().iter().filter_map(|text| TextKind::from_code(text.kind));
    let texts = kinds.map(|kind| StoredText::new(kind, &container.text(kind).unwrap().unwrap()).unwrap());
    writer.finish(texts.collect()).unwrap();
    Container::open(path).unwrap()
}

/// A copy of a file with the first norm's first weight changed to `bits`, in bf16.
fn with_norm(container: &Container, bits: u16, path: &Path) -> Container {
    let first = |payload: &mut [u8]| payload[..2].copy_from_slice(&bits.to_le_bytes());
    with_changed(container, "model.layers.0.post_attention_layernorm.weight", first, path)
}

/// A file at `path` that names `checkpoint` as its source and has the weights that computed before they were changed.
fn with_fine_weights(checkpoint: &Checkpoint, kind: Kind, path: &Path) -> Container {
    let policy = policy("tq4", &[(kind.changed, "exact")]); // no encoding holds such weights
    let (_, container) = convert(checkpoint, &policy, &path.with_extension("changed")).unwrap();
    let fine = testdata(FINE);
    let tensor = fine.tensor(kind.changed).unwrap();
    let bytes = std::fs::read(fine.dir().join(&fine.files()[tensor.file].name)).unwrap();
    let weights =
        |payload: &mut [u8]| payload.copy_from_slice(&bytes[tensor.offset as usize..][..payload.len()]);
    with_changed(&container, kind.changed, weights, path)
}

struct Pair {
    checkpoint: Arc<Checkpoint>,
    reference: Model,
    container: Arc<Container>,
    model: Model,
}

impl Pair {
    fn new(checkpoint: Arc<Checkpoint>, container: Container) -> Pair {
        let options = options(Isa::detect());
        let container = Arc::new(container);
        let reference = Model::from_checkpoint(checkpoint.clone(), options).unwrap();
        let model = Model::from_container(container.clone(), options).unwrap();
        Pair { checkpoint, reference, container, model }
    }

    fn sequences(&self) -> Vec<Vec<u32>> {
        (0..4).map(|seed| tokens(self.reference.vocab_size(), 32, seed)).collect()
    }

    fn rounded_again(&self, out: &Path) -> RoundAgainError {
        let Pair { checkpoint, reference, container, model } = self;
        let options = RoundAgainOptions {
            level: Isa::detect(),
            measurements: None,
            text_sha256: gq_calibrate::texts_digest(&[]),
            max_memory: None,
        };
        let what = RoundAgain { checkpoint, reference, container, model };
        let outcome = what.run(&self.sequences(), &options, out, &mut |_| ());
        let left = std::fs::read_dir(out.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(left.into_iter().all(|name| !name.to_string_lossy().starts_with("again.gq")));
        outcome.unwrap_err()
    }

    fn scales_tuned(&self) -> ScalesError {
        let options = ScalesOptions { steps: 2, batch: 1, rate: 1e-3 };
        let (reference, file) = (&self.reference, &self.model);
        tune_scales(reference, file, &self.container, &self.sequences(), options, &mut |_| ()).unwrap_err()
    }
}

fn is_about(found: &NotFinite, side: Side, kind: Kind) -> bool {
    found.side == side && value(&found.source) == Some(kind.value) && found.tensor() == Some(kind.met)
}

/// What was found, but for its sign.
fn value(error: &ModelError) -> Option<&str> {
    match error {
        ModelError::Activations { value, .. } => Some(value.trim_start_matches('-')),
        _ => None,
    }
}

/// The reference alone.
#[test]
fn a_reference_that_computes_no_numbers_is_an_error_of_every_job() {
    for kind in KINDS {
        let dir = tempfile::tempdir().unwrap();
        let checkpoint = changed(kind, &dir.path().join("source"));
        let container = with_fine_weights(&checkpoint, kind, &dir.path().join("a.gq"));
        let pair = Pair::new(checkpoint.clone(), container);
        match pair.rounded_again(&dir.path().join("again.gq")) {
            RoundAgainError::NotFinite(found) => assert!(is_about(&found, Side::Reference, kind), "{found}"),
            other => panic!("{kind:?}: {other}"),
        }
        match pair.scales_tuned() {
            ScalesError::NotFinite(found) => assert!(is_about(&found, Side::Reference, kind), "{found}"),
            other => panic!("{kind:?}: {other}"),
        }
        // Measured on weights that compute, and asked about others that look the same.
        let place = dir.path().join("measurements");
        let mut measurements = tuned(&Arc::new(testdata(FINE)), &place, Isa::detect(), 2);
        let measured = held_out_divergence(&measurements, &pair.reference, &dir.path().join("a.gq"));
        match measured {
            Err(TargetKldError::NotFinite(found)) => {
                assert!(is_about(&found, Side::Reference, kind), "{found}");
            }
            other => panic!("{kind:?}: {other:?}"),
        }
        let trials = TrialOptions { tokens: 64, max_memory: None };
        let sequences: Vec<_> = (0..13).map(|seed| tokens(pair.reference.vocab_size(), 64, seed)).collect();
        let (reference, level) = (&pair.reference, Isa::detect());
        let tried =
            correct(&checkpoint, reference, &sequences, &trials, level, &mut measurements, &mut |_| ());
        match tried {
            Err(CalibrateError::Model(error)) => {
                assert_eq!(value(&error), Some(kind.value));
                assert!(error.to_string().contains(kind.met), "{error}");
            }
            other => panic!("{kind:?}: {other:?}"),
        }
        assert!(MeasurementsDir::open(&place).unwrap().value().corrections.is_none(), "nothing was saved");
    }
}

#[test]
fn a_file_that_computes_no_numbers_is_infinitely_far_or_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = Arc::new(testdata(FINE));
    let measurements = tuned(&checkpoint, &dir.path().join("measurements"), Isa::detect(), 2);
    let (_, plain) = convert(&checkpoint, &policy("tq4", &[]), &dir.path().join("a.gq")).unwrap();
    for bits in [0x7F80u16, 0x7FC0] {
        let path: PathBuf = dir.path().join("broken.gq");
        let pair = Pair::new(checkpoint.clone(), with_norm(&plain, bits, &path));
        let met = Some("model.layers.0.mlp.gate_proj.weight");
        match pair.rounded_again(&dir.path().join("again.gq")) {
            RoundAgainError::NotFinite(found) => {
                assert_eq!((found.side, found.tensor()), (Side::File, met), "{found}");
            }
            other => panic!("{bits:x}: {other}"),
        }
        match pair.scales_tuned() {
            ScalesError::NotFinite(found) => {
                assert_eq!((found.side, found.tensor()), (Side::File, met), "{found}");
            }
            other => panic!("{bits:x}: {other}"),
        }
        let (measured, _) = held_out_divergence(&measurements, &pair.reference, &path).unwrap().unwrap();
        assert_eq!(measured, f64::INFINITY);
    }
}
