//! Executions: what was planned is what is in the file, and it decodes to the source.

use crate::support::{bf16, convert, plan, policy, testdata, write_llama};
use gq_checkpoint::{Checkpoint, Role};
use gq_codec::{Decoder, Rotation};
use gq_container::{Container, partial_path};
use gq_convert::{ConvertError, Event, ExecuteOptions, Policy};
use gq_tensor::{DType, Encoding, Isa};
use std::path::Path;

/// Rows of a stored tensor in the source's basis.
fn decoded(container: &Container, name: &str) -> Vec<f32> {
    let entry = container.tensor(name).unwrap();
    let matrix = container.matrix(entry).unwrap();
    let (cols, level) = (matrix.shape().cols, Isa::Scalar);
    let decoder = Decoder::new(entry.storage(), cols).unwrap();
    let rotation = Rotation::new(entry.rotation, cols).unwrap();
    let mut out = vec![0.0; matrix.shape().rows * cols];
    for (row, out) in out.chunks_mut(cols).enumerate() {
        decoder.decode_row(level, &matrix, row, out);
        rotation.inverse(level, out, &mut Vec::new());
    }
    out
}

fn relative_error(source: &[f32], decoded: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let error: f64 = source.iter().zip(decoded).map(|(x, y)| square(x - y)).sum();
    error / source.iter().map(|&x| square(x)).sum::<f64>()
}

#[test]
fn what_was_planned_is_in_the_file_and_decodes_to_the_source() {
    let dir = tempfile::tempdir().unwrap();
    for (name, encoding) in [
        ("tiny/llama", "tq5"),
        ("tiny/gemma4-moe", "tq5"),
        ("tiny/qwen3-moe", "tq5"),
        ("tiny/gemma4-e4b", "tq5"),
        ("tiny/llama", "tt3"),
        ("tiny/gemma4-moe", "tt2-s12"),
        ("tiny/qwen3-moe", "tt2-s12"),
    ] {
        let checkpoint = testdata(name);
        let policy = policy(encoding, &[("down_proj", "tq3-g32"), ("o_proj", "exact")]);
        let planned = plan(&checkpoint, &policy);
        let (report, container) = convert(&checkpoint, &policy, &dir.path().join("m.gq")).unwrap();
        assert_eq!(container.tensors().len(), planned.steps.len());
        for (step, told) in planned.steps.iter().zip(&report.tensors) {
            let entry = container.tensor(&step.tensor).unwrap();
            assert_eq!((entry.encoding, entry.bytes), (step.encoding, step.bytes), "{}", step.tensor);
            let source = checkpoint.tensor(&step.tensor).unwrap();
            let mut values = vec![0.0; source.rows() * source.cols()];
            checkpoint.read_rows_f32(source, 0..source.rows(), &mut values).unwrap();
            let error = relative_error(&values, &decoded(&container, &step.tensor));
            assert!((error - told.relative_mse).abs() <= 1e-3 * told.relative_mse + 1e-12, "{}", step.tensor);
            assert_eq!(error == 0.0, step.encoding.is_exact(), "{}", step.tensor);
        }
    }
}

#[test]
fn towers_are_carried_byte_for_byte_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = testdata("tiny/gemma4-vision");
    let policy = Policy { keep_towers: true, ..policy("tq4", &[]) };
    let (report, container) = convert(&checkpoint, &policy, &dir.path().join("m.gq")).unwrap();
    assert!(report.dropped.iter().all(|dropped| !dropped.reason.contains("tower")));
    let towers: Vec<_> = checkpoint.tensors().iter().filter(|tensor| tensor.role == Role::Tower).collect();
    assert!(!towers.is_empty());
    for tensor in towers {
        let mut bytes = vec![0; tensor.bytes as usize];
        checkpoint.read_bytes(tensor, 0..tensor.bytes, &mut bytes).unwrap();
        let entry = container.tensor(&tensor.name).unwrap();
        assert_eq!(container.payload(entry), bytes, "{}", tensor.name);
        let shape: Vec<u64> = tensor.shape.iter().map(|&n| n as u64).collect();
        assert_eq!(
            (&entry.shape, entry.encoding),
            (&shape, Encoding::Exact(tensor.dtype)),
            "{}",
            tensor.name
        );
    }
}

/// Scalars, and the infinite bounds of clipped activations.
#[test]
fn infinities_of_a_tower_are_carried() {
    let dir = tempfile::tempdir().unwrap();
    let name = "model.vision_tower.encoder.layers.0.mlp.up_proj.input_max";
    let infinite = vec![0x80, 0x7F];
    let tensor = |_: &str, n: usize| bf16(n, 4);
    write_llama(dir.path(), (64, 96), tensor, &[(name, &[], DType::BF16, infinite.clone())]);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let policy = Policy { keep_towers: true, ..policy("tq4", &[]) };
    let (_, container) = convert(&checkpoint, &policy, &dir.path().join("m.gq")).unwrap();
    let found = container.tensors().iter().find(|entry| entry.name.ends_with("input_max")).unwrap();
    assert_eq!(container.payload(found), infinite);
}

#[test]
fn scales_of_f8_weights_are_multiplied_in() {
    const UP: &str = "model.layers.0.mlp.up_proj.weight";
    let dir = tempfile::tempdir().unwrap();
    let (hidden, width) = (256, 128);
    let scales: Vec<u8> = (0..width).flat_map(|row| (0.5f32 + row as f32).to_le_bytes()).collect();
    let tensor = |name: &str, n: usize| match name == UP {
        true => (DType::F8E4M3, (0..n).map(|i| (i * 29 % 120) as u8 | ((i as u8 & 1) << 7)).collect()),
        false => bf16(n, 3),
    };
    let scale_name = format!("{UP}_scale");
    write_llama(dir.path(), (hidden, width), tensor, &[(&scale_name, &[width, 1], DType::F32, scales)]);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let (report, container) = convert(&checkpoint, &policy("tq6", &[]), &dir.path().join("m.gq")).unwrap();
    let source = checkpoint.tensor(UP).unwrap();
    let mut values = vec![0.0; width * hidden];
    checkpoint.read_rows_f32(source, 0..width, &mut values).unwrap();
    assert!(relative_error(&values, &decoded(&container, UP)) < 2e-3);
    assert!(report.dropped.iter().any(|dropped| dropped.reason == "multiplied into its tensor"));
    // The bytes alone are not the weights.
    let exact = gq_convert::plan(&checkpoint, &policy("exact", &[]), crate::support::TWO_THREADS);
    assert!(exact.unwrap_err().to_string().contains("separate scales"));
}

#[test]
fn a_value_that_is_no_number_ends_it_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let poisoned = |name: &str, n: usize| {
        let (dtype, mut bytes) = bf16(n, 2);
        if name.contains("gate_proj") {
            bytes[2 * (3 * 64 + 5)..][..2].copy_from_slice(&[0x80, 0x7F]);
        }
        (dtype, bytes)
    };
    write_llama(dir.path(), (64, 96), poisoned, &[]);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let path = dir.path().join("m.gq");
    let error = convert(&checkpoint, &policy("tq4", &[]), &path).unwrap_err();
    assert!(matches!(error, ConvertError::Values(_)), "{error}");
    assert!(error.to_string().contains("row 3, column 5"), "{error}");
    assert!(!path.exists() && !partial_path(&path).exists());
    assert!(!Path::new(&format!("{}.journal", path.display())).exists());
}

#[test]
fn a_plan_of_another_checkpoint_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let planned = plan(&testdata("tiny/gemma3"), &policy("tq4", &[]));
    let options = ExecuteOptions {
        level: Isa::Scalar,
        restart: false,
        measurements: None,
        origin: None,
        check: None,
        existing: gq_files::Existing::Replaced,
    };
    let outcome = gq_convert::execute(
        &planned,
        &testdata("tiny/llama"),
        &dir.path().join("m.gq"),
        options,
        &mut |_| {},
    );
    assert!(matches!(outcome, Err(ConvertError::OtherSource { .. })));
}

/// One pass makes each file as it is made alone, whatever else it makes and in whatever blocks, and reads once.
#[test]
fn several_outputs_of_one_pass_are_those_of_single_ones() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["tiny/llama", "tiny/gemma4-moe", "tiny/qwen3-moe", "tiny/gpt-oss", "tiny/gemma4-e4b"] {
        let checkpoint = testdata(name);
        let policies = [
            policy("tq4", &[("o_proj", "exact")]),
            policy("tt2", &[("down_proj", "tq3-g32")]),
            Policy { keep_towers: true, ..policy("tq2-g32", &[]) },
        ];
        let mut plans: Vec<_> = policies.iter().map(|policy| plan(&checkpoint, policy)).collect();
        plans[2].memory.block = 64 << 10;
        let alone = policies.iter().enumerate().map(|(index, policy)| {
            let path = dir.path().join(format!("alone-{index}.gq"));
            (convert(&checkpoint, policy, &path).unwrap().0, std::fs::read(path).unwrap())
        });
        let alone: Vec<_> = alone.collect();
        let paths = [0, 1, 2].map(|index| dir.path().join(format!("together-{index}.gq")));
        let outputs: Vec<_> = plans.iter().zip(paths.iter().map(std::path::PathBuf::as_path)).collect();
        let options = ExecuteOptions {
            level: Isa::detect(),
            restart: false,
            measurements: None,
            origin: None,
            check: None,
            existing: gq_files::Existing::Replaced,
        };
        let (mut read, mut finished) = (0, 0);
        let reports = gq_convert::execute_all(&outputs, &checkpoint, options, &mut |event| match event {
            Event::Advanced { bytes, .. } => read = bytes,
            Event::Finished { path } => finished += usize::from(path.exists()),
            Event::Resumed { .. } => panic!("nothing was begun"),
        });
        assert!(read > 0 && read <= plans[0].source_bytes, "{read}");
        assert_eq!(finished, 3);
        for ((report, path), (expected, bytes)) in reports.unwrap().iter().zip(&paths).zip(&alone) {
            assert_eq!(report, expected);
            assert!(std::fs::read(path).unwrap() == *bytes, "{name}: {}", path.display());
        }
    }
}

/// Outputs of an interrupted pass are at different places: one finished, one half done, one not begun.
#[test]
fn an_interrupted_pass_is_taken_up_output_by_output() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = testdata("tiny/llama");
    let plans = ["tq4", "tt3", "tq2"].map(|body| plan(&checkpoint, &policy(body, &[])));
    let options = ExecuteOptions {
        level: Isa::detect(),
        restart: false,
        measurements: None,
        origin: None,
        check: None,
        existing: gq_files::Existing::Replaced,
    };
    let run = |folder: &str, used: &[usize], kill_at: u64| {
        std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        let paths = [0, 1, 2].map(|index| dir.path().join(folder).join(format!("{index}.gq")));
        let outputs: Vec<_> = used.iter().map(|&index| (&plans[index], paths[index].as_path())).collect();
        let mut resumed = Vec::new();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            gq_convert::execute_all(&outputs, &checkpoint, options, &mut |event| match event {
                Event::Advanced { bytes, .. } => assert!(bytes < kill_at, "killed"),
                Event::Resumed { tensors } => resumed.push(tensors),
                Event::Finished { .. } => {}
            })
            .unwrap();
        }));
        assert_eq!(outcome.is_err(), kill_at < u64::MAX);
        (resumed, paths.map(|path| std::fs::read(path).unwrap_or_default()))
    };
    let (_, whole) = run("whole", &[0, 1, 2], u64::MAX);
    run("parts", &[0], u64::MAX);
    run("parts", &[1], plans[0].source_bytes / 2);
    let (resumed, parts) = run("parts", &[0, 1, 2], u64::MAX);
    assert!(resumed.len() == 1 && resumed[0] > 0, "{resumed:?}");
    assert!(whole == parts && whole.iter().all(|bytes| !bytes.is_empty()));
}

#[test]
fn passes_hold_as_many_outputs_as_the_memory_allows() {
    let checkpoint = testdata("tiny/llama");
    let plans: Vec<_> = ["tq4", "tq3", "tq2"].map(|body| plan(&checkpoint, &policy(body, &[]))).into();
    let peak = plans[0].memory.peak.max(plans[1].memory.peak).max(plans[2].memory.peak);
    let lengths =
        |limit| gq_convert::passes(&plans, limit).iter().map(ExactSizeIterator::len).collect::<Vec<_>>();
    assert_eq!(lengths(None), [3]);
    assert_eq!(lengths(Some(3 * peak)), [3]);
    assert_eq!(lengths(Some(2 * peak)), [2, 1]);
    assert_eq!(lengths(Some(peak)), [1, 1, 1]);
    assert!(gq_convert::passes(&[], Some(peak)).is_empty());
    // A strip needs larger blocks than the plan of single rows counts.
    let mixed = [plans[0].clone(), plan(&checkpoint, &policy("tt2", &[]))];
    assert_eq!(gq_convert::passes(&mixed, Some(u64::MAX)), [0..1, 1..2]);
}

/// Matrices of experts in several files, in the order of their names: the codes of one stack in one file.
#[test]
fn experts_one_by_one_get_the_codes_of_fused_ones() {
    let dir = tempfile::tempdir().unwrap();
    let apart = testdata("tiny/qwen3-moe");
    assert!(apart.tensors().iter().any(|tensor| tensor.pieces.len() > 12));
    let folder = dir.path().join("fused");
    std::fs::create_dir(&folder).unwrap();
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for tensor in apart.tensors() {
        let begin = data.len();
        data.resize(begin + tensor.bytes as usize, 0);
        apart.read_bytes(tensor, 0..tensor.bytes, &mut data[begin..]).unwrap();
        let offsets = [begin, data.len()];
        let entry = serde_json::json!({"dtype": "BF16", "shape": tensor.shape, "data_offsets": offsets});
        header.insert(tensor.name.clone(), entry);
    }
    let header = serde_json::Value::Object(header).to_string();
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    std::fs::write(folder.join("model.safetensors"), file).unwrap();
    std::fs::copy(apart.dir().join("config.json"), folder.join("config.json")).unwrap();
    let fused = Checkpoint::open(&folder).unwrap();
    for encoding in ["tq3", "tt2", "exact"] {
        let policy = policy(encoding, &[]);
        let (_, ours) = convert(&apart, &policy, &dir.path().join("apart.gq")).unwrap();
        let (_, theirs) = convert(&fused, &policy, &dir.path().join("fused.gq")).unwrap();
        assert_eq!(ours.tensors().len(), theirs.tensors().len());
        for entry in ours.tensors() {
            let other = theirs.tensor(&entry.name).unwrap();
            assert_eq!((entry.encoding, &entry.shape), (other.encoding, &other.shape), "{}", entry.name);
            assert!(ours.payload(entry) == theirs.payload(other), "{encoding}: {}", entry.name);
        }
        // What was read of each file is all of it, once.
        let text = ours.text(gq_container::TextKind::Provenance).unwrap().unwrap();
        for file in apart.files().iter().filter(|file| file.name.ends_with(".safetensors")) {
            assert!(text.contains(&file.sha256(|_| {}).unwrap()), "{}", file.name);
        }
    }
}
