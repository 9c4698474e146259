//! GPT-OSS's experts: codes of 4-bit floats with powers of two, transposed matrices, gate and up in turn.

use crate::support::{scratch, testdata};
use gq_checkpoint::gguf::GgmlType;
use gq_checkpoint::gguf_model::{ExportOptions, ExportPlan, ExportSource};
use gq_checkpoint::{Checkpoint, CheckpointError, ReadError, SourceTensor, TensorError};
use gq_tensor::{DType, decode_f32};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

const GATES: &str = "model.layers.1.mlp.experts.gate_up_proj";
const DOWN: &str = "model.layers.1.mlp.experts.down_proj";
const BIAS: &str = "model.layers.1.mlp.experts.gate_up_proj_bias";

/// Types, shapes and bytes by name.
type Stored = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn open(name: &str) -> Checkpoint {
    Checkpoint::open(testdata(&format!("tiny/{name}"))).unwrap()
}

fn rows(checkpoint: &Checkpoint, tensor: &SourceTensor, rows: Range<usize>) -> Vec<f32> {
    let mut values = vec![0.0; rows.len() * tensor.cols()];
    checkpoint.read_rows_f32(tensor, rows, &mut values).unwrap();
    values
}

/// Everything in the files of a checkpoint, by name.
fn stored(dir: &Path) -> Stored {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap()) {
        let name = entry.file_name().into_string().unwrap();
        if name.starts_with("model") && name.ends_with(".safetensors") {
            let bytes = std::fs::read(entry.path()).unwrap();
            for (name, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
                all.insert(name, (view.dtype(), view.shape().to_vec(), view.data().to_vec()));
            }
        }
    }
    all
}

/// The checkpoint in one file, with its tensors changed.
fn changed(
    name: &str,
    change: impl Fn(&mut Stored),
) -> Result<(tempfile::TempDir, Checkpoint), CheckpointError> {
    let dir = scratch(&format!("tiny/{name}"));
    let mut tensors = stored(dir.path());
    change(&mut tensors);
    for entry in std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.file_name().unwrap().to_str().unwrap().starts_with("model") {
            std::fs::remove_file(entry).unwrap();
        }
    }
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, &dir.path().join("model.safetensors")).unwrap();
    Checkpoint::open(dir.path()).map(|checkpoint| (dir, checkpoint))
}

#[test]
fn codes_and_powers_in_two_files_are_one_tensor() {
    let checkpoint = open("gpt-oss");
    let tensor = checkpoint.tensor(GATES).unwrap();
    assert_eq!((tensor.shape.as_slice(), tensor.pieces.len()), (&[4, 192, 96][..], 2));
    assert_ne!(tensor.pieces[0].file, tensor.pieces[1].file, "in two shards");
    assert_eq!(tensor.bytes, 4 * 192 * (48 + 3));
    assert!(tensor.is_mxfp4() && !tensor.is_plain() && !tensor.is_plain_stack());
    let weights: u64 = checkpoint.tensors().iter().filter(|t| t.is_mxfp4()).map(SourceTensor::elements).sum();
    assert_eq!(checkpoint.quantized(), Some(format!("MXFP4 x {weights}")));
    let plain = checkpoint.tensor("model.layers.1.self_attn.q_proj.weight").unwrap();
    assert!(!plain.is_mxfp4());
}

/// Whatever reads them, and whichever rows.
#[test]
fn rows_are_the_same_by_reads_maps_and_bytes() {
    for name in ["gpt-oss", "gpt-oss-resaved"] {
        let checkpoint = open(name);
        let maps = checkpoint.map().unwrap();
        for tensor in [GATES, DOWN, BIAS].map(|name| checkpoint.tensor(name).unwrap()) {
            let all = rows(&checkpoint, tensor, 0..tensor.rows());
            let (cols, last) = (tensor.cols(), tensor.rows());
            for some in [0..last, 0..1, last / 3..last / 2 + 2, last - 1..last, 2..2] {
                let expected = &all[some.start * cols..some.end * cols];
                assert_eq!(rows(&checkpoint, tensor, some.clone()), expected, "{name} {}", tensor.name);
                let mut mapped = vec![0.0; expected.len()];
                checkpoint.decode_mapped_rows_f32(&maps, tensor, some.clone(), &mut mapped).unwrap();
                assert_eq!(mapped, expected, "{name} {}", tensor.name);
                let row = tensor.row_bytes();
                let mut bytes = vec![0; some.len() * row];
                let range = (some.start * row) as u64..(some.end * row) as u64;
                checkpoint.read_bytes(tensor, range, &mut bytes).unwrap();
                let mut decoded = vec![0.0; expected.len()];
                checkpoint.decode_rows_f32(tensor, some, &bytes, &mut decoded).unwrap();
                assert_eq!(decoded, expected, "{name} {}", tensor.name);
            }
            let half = checkpoint.read_bytes(tensor, 1..2, &mut [0]).unwrap_err();
            assert!(matches!(half, ReadError::BytesOutOfRange { .. }), "no whole row: {half}");
        }
    }
}

#[test]
fn a_resave_is_transposed_with_gate_and_up_in_turn() {
    let checkpoint = open("gpt-oss-resaved");
    let files = stored(checkpoint.dir());
    let element = |name: &str, at: usize| {
        let mut value = [0.0];
        decode_f32(DType::BF16, &files[name].2[2 * at..2 * at + 2], &mut value);
        value[0]
    };
    // [experts, hidden, 2 * width] in the file, [experts, 2 * width, hidden] here.
    let (hidden, width) = (96, 64);
    let tensor = checkpoint.tensor(GATES).unwrap();
    assert_eq!((files[GATES].1.as_slice(), tensor.shape.as_slice()), (&[4, 96, 128][..], &[4, 128, 96][..]));
    let values = rows(&checkpoint, tensor, 0..tensor.rows());
    let biases = rows(&checkpoint, checkpoint.tensor(BIAS).unwrap(), 0..8);
    for expert in [0, 3] {
        for place in [0, 1, 17, width - 1] {
            for (half, part) in [0, 1].into_iter().zip(["gate", "up"]) {
                let (row, column) = (expert * 2 * width + half * width + place, 2 * place + half);
                for input in [0, 50, hidden - 1] {
                    let wanted = element(GATES, (expert * hidden + input) * 2 * width + column);
                    assert_eq!(values[row * hidden + input], wanted, "{part} {place} of {expert}");
                }
                assert_eq!(biases[row], element(BIAS, expert * 2 * width + column), "bias of {part} {place}");
            }
        }
    }
    let down = checkpoint.tensor(DOWN).unwrap();
    let values = rows(&checkpoint, down, 0..down.rows());
    let at = |expert: usize, output: usize, input: usize| values[(expert * hidden + output) * width + input];
    assert_eq!(at(2, 5, 33), element(DOWN, (2 * width + 33) * hidden + 5));
}

#[test]
fn experts_in_parts_that_do_not_fit_are_refused() {
    let error = |change: &dyn Fn(&mut Stored)| match changed("gpt-oss", change).map(|_| ()).unwrap_err() {
        CheckpointError::Tensors(error) => error,
        other => panic!("{other}"),
    };
    let [blocks, scales] = ["blocks", "scales"].map(|part| format!("{GATES}_{part}"));
    let missing = error(&|tensors| drop(tensors.remove(&scales)));
    assert_eq!(missing, TensorError::Missing { name: scales.clone() });
    let missing = error(&|tensors| drop(tensors.remove(&blocks)));
    assert_eq!(missing, TensorError::Missing { name: blocks.clone() });
    let shape = error(&|tensors| tensors.get_mut(&scales).unwrap().1 = vec![4, 3, 192]);
    assert!(matches!(shape, TensorError::WrongShape { name, .. } if name == scales));
    let dtype = error(&|tensors| tensors.get_mut(&scales).unwrap().0 = Dtype::I8);
    assert!(matches!(dtype, TensorError::NotCodes { name, dtype: DType::I8 } if name == scales));
    let both = error(&|tensors| drop(tensors.insert(GATES.to_owned(), (Dtype::BF16, vec![1], vec![0; 2]))));
    assert!(matches!(both, TensorError::NameClash { name, .. } if name == GATES));
    // As other families have them: not transposed.
    let turned = changed("gpt-oss-resaved", |tensors| tensors.get_mut(GATES).unwrap().1 = vec![4, 128, 96]);
    let CheckpointError::Tensors(turned) = turned.map(|_| ()).unwrap_err() else { panic!("of the tensors") };
    assert!(matches!(turned, TensorError::WrongShape { expected, .. } if expected == [4, 96, 128]));
    // 255 is no power of two.
    let (_dir, checkpoint) =
        changed("gpt-oss", |tensors| tensors.get_mut(&scales).unwrap().2[7] = 255).unwrap();
    let tensor = checkpoint.tensor(GATES).unwrap();
    let mut values = vec![0.0; tensor.rows() * tensor.cols()];
    let error = checkpoint.read_rows_f32(tensor, 0..tensor.rows(), &mut values).unwrap_err();
    assert!(matches!(error, ReadError::NotFinite { .. }), "{error}");
}

/// A GGUF's blocks hold the same values, and gates, up projections and their biases apart.
#[test]
fn a_gguf_keeps_the_codes() {
    let (checkpoint, dir) = (open("gpt-oss"), tempfile::tempdir().unwrap());
    let path = dir.path().join("out.gguf");
    let texts = checkpoint.texts().unwrap();
    let tensors: Vec<_> = checkpoint.tensors().iter().map(|t| (t.name.clone(), t.shape.clone())).collect();
    let source = ExportSource { spec: checkpoint.spec(), texts: &texts, tensors: &tensors };
    let mut options = ExportOptions::new(GgmlType::BF16, "tiny");
    let coded = checkpoint.tensors().iter().filter(|tensor| tensor.is_mxfp4());
    options.overrides = coded.map(|tensor| (tensor.name.clone(), GgmlType::MXFP4)).collect();
    let plan = ExportPlan::new(source, &options).unwrap();
    let of = |name: &str| plan.tensors().iter().find(|tensor| tensor.new.name == name).unwrap().new.clone();
    for part in ["gate", "up"] {
        let weight = of(&format!("blk.2.ffn_{part}_exps.weight"));
        assert_eq!((weight.kind, weight.shape), (GgmlType::MXFP4, vec![4, 96, 96]));
        let bias = of(&format!("blk.2.ffn_{part}_exps.bias"));
        assert_eq!((bias.kind, bias.shape), (GgmlType::F32, vec![4, 96]));
    }
    assert_eq!(of("blk.0.attn_sinks.weight").shape, [4]);
    assert_eq!(of("blk.0.ffn_gate_inp.bias").kind, GgmlType::F32);
    let mut read = |name: &str, rows: Range<usize>, out: &mut [f32]| -> Result<(), ReadError> {
        checkpoint.read_rows_f32(checkpoint.tensor(name).unwrap(), rows, out)
    };
    plan.write(&path, &mut read, &|_| {}).unwrap();
    let back = Checkpoint::open(&path).unwrap();
    assert_eq!(back.spec().layers, checkpoint.spec().layers);
    assert_eq!(back.spec().ropes, checkpoint.spec().ropes);
    for tensor in checkpoint.tensors() {
        let other = back.tensor(&tensor.name).unwrap();
        assert_eq!((other.role, other.is_mxfp4()), (tensor.role, tensor.is_mxfp4()), "{}", tensor.name);
        let all = 0..tensor.rows();
        assert_eq!(rows(&back, other, all.clone()), rows(&checkpoint, tensor, all), "{}", tensor.name);
    }
}
