//! Weights that sit on a grid: found, stored without loss where that wins, refused where they do not.

use crate::support::{TWO_THREADS, bf16, policy, write_llama};
use gq_checkpoint::Checkpoint;
use gq_codec::Decoder;
use gq_container::Container;
use gq_convert::{
    ConvertError, ExecuteOptions, Grids, Plan, PlanError, Policy, Report, Resources, plan_measured,
};
use gq_tensor::{DType, Isa, RotationSpec, encode_f32};
use std::path::Path;

/// Numbers from 0 to `below`.
fn codes(elements: usize, below: u32) -> impl Iterator<Item = f32> {
    (0..elements as u32).map(move |i| (i.wrapping_mul(2_654_435_761) >> 16) as f32 % below as f32)
}

fn stored(values: &[f32]) -> (DType, Vec<u8>) {
    let mut bytes = vec![0; 2 * values.len()];
    assert!(encode_f32(DType::BF16, values, &mut bytes));
    (DType::BF16, bytes)
}

/// A Llama whose matrices are on grids of several kinds; gate_proj is but for its last weight, v_proj is on none.
fn checkpoint(dir: &Path) -> Checkpoint {
    let tensor = |name: &str, elements: usize| {
        let scale = |group: usize| 0.003 * (1.0 + (group * 7 % 5) as f32);
        let grouped = |code: f32, i: usize| half::f16::from_f32(scale(i / 32)).to_f32() * code;
        let grid = |make: &dyn Fn(f32, usize) -> f32, below: u32| {
            stored(&codes(elements, below).enumerate().map(|(i, code)| make(code, i)).collect::<Vec<_>>())
        };
        match name {
            _ if name.contains("norm") || name.contains("v_proj") => bf16(elements, 5),
            _ if name.contains("q_proj") => grid(&|code, i| grouped(code - 8.0, i), 16),
            _ if name.contains("k_proj") => grid(&|code, _| 0.017_1 * (code - 7.0), 15),
            _ if name.contains("up_proj") => {
                grid(&|code, i| grouped(code, i) - half::f16::from_f32(0.0303).to_f32(), 16)
            }
            _ if name.contains("down_proj") => {
                let float = |code: f32| [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0][code as usize];
                grid(&|code, i| float(code) * if i % 3 == 0 { -0.125 } else { 0.125 }, 8)
            }
            _ if name.contains("gate_proj") => {
                let (dtype, mut bytes) = grid(&|code, i| grouped(code - 8.0, i), 16);
                let last = bytes.len() - 2;
                bytes[last..].copy_from_slice(&half::bf16::from_f32(2.0).to_le_bytes());
                (dtype, bytes)
            }
            _ => grid(&|code, i| grouped(code - 127.0, i), 255),
        }
    };
    write_llama(dir, (128, 96), tensor, &[]);
    Checkpoint::open(dir).unwrap()
}

fn grids(checkpoint: &Checkpoint, policy: &Policy) -> Grids {
    Grids::find(checkpoint, policy, &mut |_, _| {}).unwrap()
}

fn planned(checkpoint: &Checkpoint, policy: &Policy) -> Result<Plan, PlanError> {
    plan_measured(checkpoint, policy, TWO_THREADS, None, Some(&grids(checkpoint, policy)))
}

fn encoding(plan: &Plan, name: &str) -> String {
    plan.steps.iter().find(|step| step.tensor.contains(name)).unwrap().encoding.name()
}

fn execute(plan: &Plan, checkpoint: &Checkpoint, path: &Path, level: Isa) -> Result<Report, ConvertError> {
    let options = ExecuteOptions {
        level,
        restart: true,
        measurements: None,
        origin: None,
        check: None,
        existing: gq_files::Existing::Replaced,
    };
    gq_convert::execute(plan, checkpoint, path, options, &mut |_| {})
}

#[test]
fn grids_are_found_stored_without_loss_and_used_where_they_win() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = checkpoint(dir.path());
    let plan = planned(&checkpoint, &policy("tq8", &[])).unwrap();
    for (name, want) in [
        ("q_proj", "grid4-bf16"),
        ("k_proj", "grid4-row-bf16"),
        ("up_proj", "grid4m-bf16"),
        ("down_proj", "mxfp4"),
        ("gate_proj", "tq8"),
        ("v_proj", "tq8"),
        // 8.5 bits are more than the 8 that were asked for.
        ("embed", "tq8"),
        ("norm", "bf16"),
    ] {
        assert_eq!(encoding(&plan, name), want, "{name}");
    }
    let path = dir.path().join("m.gq");
    let report = execute(&plan, &checkpoint, &path, Isa::detect()).unwrap();
    let container = Container::open(&path).unwrap();
    let mut lossless = 0;
    for told in report.tensors.iter().filter(|told| told.encoding.is_grid()) {
        let entry = container.tensor(&told.name).unwrap();
        let matrix = container.matrix(entry).unwrap();
        assert_eq!((told.relative_mse, entry.rotation), (0.0, RotationSpec::NONE), "{}", told.name);
        let (rows, cols) = (matrix.shape().rows, matrix.shape().cols);
        let (mut back, mut source) = (vec![0.0; rows * cols], vec![0.0; rows * cols]);
        let decoder = Decoder::new(entry.storage(), cols).unwrap();
        decoder.decode_rows(Isa::Scalar, &matrix, 0..rows, &mut back);
        checkpoint.read_rows_f32(checkpoint.tensor(&told.name).unwrap(), 0..rows, &mut source).unwrap();
        assert!(back == source, "{}", told.name);
        lossless += 1;
    }
    assert_eq!(lossless, 4);
    let bytes = std::fs::read(&path).unwrap();
    for (threads, level) in [(1, Isa::Scalar), (1, Isa::detect()), (2, Isa::Scalar)] {
        let recipe = policy("tq8", &[]);
        let found = grids(&checkpoint, &recipe);
        let resources = Resources { threads, max_memory: None };
        let again = plan_measured(&checkpoint, &recipe, resources, None, Some(&found)).unwrap();
        execute(&again, &checkpoint, &path, level).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "{threads} {level:?}");
    }
}

#[test]
fn grids_are_left_alone_where_fewer_bits_or_others_are_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = checkpoint(dir.path());
    let fewer = planned(&checkpoint, &policy("tq3", &[])).unwrap();
    let off = planned(&checkpoint, &Policy { grids: false, ..policy("tq8", &[]) }).unwrap();
    let named = planned(&checkpoint, &policy("tq8", &[("q_proj", "tq6"), ("k_proj", "exact")])).unwrap();
    assert!(fewer.steps.iter().chain(&off.steps).all(|step| !step.encoding.is_grid()));
    assert_eq!((encoding(&named, "q_proj"), encoding(&named, "k_proj")), ("tq6".into(), "bf16".into()));
    // What is not used is told: q_proj (2), up_proj (2) at 4.5 and 5 bits, gate_proj and v_proj not.
    let told = grids(&checkpoint, &policy("tq4", &[]));
    let plan = planned(&checkpoint, &policy("tq4", &[])).unwrap();
    let body = told.lossless(&plan, &|step| step.body).unwrap();
    let more = |step: &gq_convert::Step| {
        let bits = if step.tensor.contains("q_proj") { 4.5 } else { 5.0 };
        (bits * step.elements() as f64 / 8.0) as u64 - step.bytes
    };
    let on = |step: &&gq_convert::Step| step.tensor.contains("q_proj") || step.tensor.contains("up_proj");
    let steps: Vec<_> = plan.steps.iter().filter(on).collect();
    assert_eq!((body.tensors, body.all), (steps.len(), false));
    assert_eq!(body.more_bytes, steps.into_iter().map(more).sum::<u64>());
    assert!(told.lossless(&plan, &|step| step.role == "embedding").is_some_and(|table| table.all));
    // Four bits with one scale per row are as good as the four bits asked for.
    let four = planned(&checkpoint, &policy("tq4", &[])).unwrap();
    assert_eq!(
        (encoding(&four, "k_proj"), encoding(&four, "q_proj")),
        ("grid4-row-bf16".into(), "tq4".into())
    );
}

#[test]
fn grids_by_name_are_kept_to_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = checkpoint(dir.path());
    let others = [("gate_proj", "tq8"), ("v_proj", "tq8"), ("embed", "grid")];
    let plan = planned(&checkpoint, &policy("grid", &others)).unwrap();
    assert_eq!(
        (encoding(&plan, "embed"), encoding(&plan, "q_proj")),
        ("grid8-bf16".into(), "grid4-bf16".into())
    );
    let by_name = [others[0], others[1], ("embed", "tq8"), ("q_proj", "grid5-bf16")];
    let wider = planned(&checkpoint, &policy("grid", &by_name)).unwrap();
    assert_eq!(encoding(&wider, "q_proj"), "grid5-bf16");
    let refused = |rules: &[(&str, &str)]| match planned(&checkpoint, &policy("grid", rules)) {
        Err(PlanError::OffGrid { tensor, limit, .. }) => (tensor, limit),
        other => panic!("{other:?}"),
    };
    assert!(refused(&[others[1]]).0.contains("gate_proj"));
    let (tensor, limit) = refused(&[others[0], others[1], ("up_proj", "grid4-bf16")]);
    assert!(tensor.contains("up_proj") && limit == "grid4-bf16");
}

#[test]
fn a_source_that_changes_after_it_was_planned_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let before = checkpoint(dir.path());
    let plan = planned(&before, &policy("tq8", &[])).unwrap();
    write_llama(dir.path(), (128, 96), |_, elements| bf16(elements, 9), &[]);
    let after = Checkpoint::open(dir.path()).unwrap();
    let error = execute(&plan, &after, &dir.path().join("m.gq"), Isa::detect()).unwrap_err();
    assert!(matches!(error, ConvertError::OffGrid { .. }), "{error}");
}
