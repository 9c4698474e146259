//! Experts' matrices one by one or fused, in a checkpoint or in a GGUF: the same stacks.

use crate::support::{scratch, testdata};
use gq_checkpoint::gguf::GgmlType;
use gq_checkpoint::gguf_model::{ExportOptions, ExportPlan, ExportSource};
use gq_checkpoint::{Checkpoint, CheckpointError, ReadError, TensorError};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::ops::Range;
use std::path::Path;

const GATES: &str = "model.layers.1.mlp.experts.gate_up_proj";

fn rows(checkpoint: &Checkpoint, name: &str, rows: Option<Range<usize>>) -> Vec<f32> {
    let tensor = checkpoint.tensor(name).unwrap();
    let rows = rows.unwrap_or(0..tensor.rows());
    let mut values = vec![0.0; rows.len() * tensor.cols()];
    checkpoint.read_rows_f32(tensor, rows, &mut values).unwrap();
    values
}

/// The checkpoint in one file under canonical names, and what is put in besides.
fn fused(from: &Checkpoint, dir: &Path, more: Option<(&str, Vec<usize>)>) {
    let tensors = from.tensors().iter().map(|tensor| {
        let mut bytes = vec![0; tensor.bytes as usize];
        from.read_bytes(tensor, 0..tensor.bytes, &mut bytes).unwrap();
        (tensor.name.clone(), tensor.shape.clone(), bytes)
    });
    let mut tensors: Vec<_> = tensors.collect();
    tensors.extend(more.map(|(name, shape)| {
        let elements: usize = shape.iter().product();
        (name.to_owned(), shape, vec![0; 2 * elements])
    }));
    let views = tensors.iter().map(|(name, shape, bytes)| {
        (name.clone(), TensorView::new(Dtype::BF16, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, &dir.join("model.safetensors")).unwrap();
    std::fs::copy(from.dir().join("config.json"), dir.join("config.json")).unwrap();
}

fn experts() -> Checkpoint {
    Checkpoint::open(testdata("tiny/qwen3-moe")).unwrap()
}

#[test]
fn one_by_one_and_fused_are_the_same_stacks() {
    let dir = tempfile::tempdir().unwrap();
    let apart = experts();
    let stack = apart.tensor(GATES).unwrap();
    let files: std::collections::BTreeSet<usize> = stack.pieces.iter().map(|piece| piece.file).collect();
    assert_eq!((stack.pieces.len(), stack.shape.as_slice()), (24, &[12, 64, 64][..]));
    assert!(files.len() > 1, "in several shards: {files:?}");
    assert!(stack.is_plain_stack() && !stack.is_plain());
    fused(&apart, dir.path(), None);
    let fused = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(fused.spec(), apart.spec());
    assert_eq!(fused.tensors().len(), apart.tensors().len());
    let (maps, of_fused) = (apart.map().unwrap(), fused.map().unwrap());
    for tensor in apart.tensors() {
        let other = fused.tensor(&tensor.name).unwrap();
        assert_eq!((other.role, &other.shape, other.pieces.len()), (tensor.role, &tensor.shape, 0));
        let values = rows(&fused, &tensor.name, None);
        assert_eq!(rows(&apart, &tensor.name, None), values, "{}", tensor.name);
        let mut mapped = vec![0.0; values.len()];
        apart.decode_mapped_rows_f32(&maps, tensor, 0..tensor.rows(), &mut mapped).unwrap();
        assert_eq!(mapped, values, "{}", tensor.name);
        // Whatever the rows are.
        for some in [0..1, tensor.rows() / 3..tensor.rows()] {
            let parts = maps.pieces_of_rows(tensor, some.clone()).concat();
            assert_eq!(parts, of_fused.pieces_of_rows(other, some).concat(), "{}", tensor.name);
        }
    }
}

#[test]
fn the_hubs_gate_is_above_the_up_projection_of_each_expert() {
    let apart = experts();
    let stack = apart.tensor(GATES).unwrap();
    for expert in [0, 2, 10] {
        for (index, part) in ["gate_proj", "up_proj"].into_iter().enumerate() {
            let name = format!("model.layers.1.mlp.experts.{expert}.{part}.weight");
            let piece = stack.pieces.iter().find(|piece| piece.source_name == name).unwrap();
            let bytes = std::fs::read(&apart.files()[piece.file].path).unwrap();
            let tensors = SafeTensors::deserialize(&bytes).unwrap();
            let matrix = tensors.tensor(&name).unwrap();
            let mut expected = vec![0.0; matrix.shape().iter().product()];
            gq_tensor::decode_f32(gq_tensor::DType::BF16, matrix.data(), &mut expected);
            let first = expert * 64 + index * 32;
            assert_eq!(rows(&apart, GATES, Some(first..first + 32)), expected, "{name}");
        }
    }
}

#[test]
fn a_stack_in_both_ways_or_with_a_matrix_missing_is_refused() {
    let (apart, dir) = (experts(), tempfile::tempdir().unwrap());
    let open = |dir: &Path| Checkpoint::open(dir).unwrap_err().to_string();
    let name = "model.layers.1.mlp.experts.3.up_proj.weight";
    fused(&apart, dir.path(), Some((name, vec![32, 64])));
    assert_eq!(open(dir.path()), format!("tensors {GATES:?} and {name:?} both are {GATES:?}"));
    fused(&apart, dir.path(), Some(("model.layers.2.mlp.experts.3.up_proj.weight", vec![32, 64])));
    assert!(open(dir.path()).contains("3.up_proj.weight\" is not part of a qwen3moe"));
    // One expert more than there are.
    let config = |count: usize| {
        let dir = scratch("tiny/qwen3-moe");
        let path = dir.path().join("config.json");
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.replace("\"num_local_experts\": 12", &format!("\"num_local_experts\": {count}"));
        std::fs::write(&path, text).unwrap();
        Checkpoint::open(dir.path()).unwrap_err()
    };
    let missing = "model.layers.0.mlp.experts.12.gate_proj.weight";
    let error = config(13);
    assert!(
        matches!(&error, CheckpointError::Tensors(TensorError::Missing { name }) if name == missing),
        "{error}"
    );
    assert!(config(11).to_string().contains("experts.11."));
}

/// Gates and up projections of all experts are two tensors of a GGUF.
#[test]
fn a_gguf_has_gates_and_up_projections_apart() {
    let (apart, dir) = (experts(), tempfile::tempdir().unwrap());
    let path = dir.path().join("out.gguf");
    let texts = apart.texts().unwrap();
    let tensors: Vec<_> = apart.tensors().iter().map(|t| (t.name.clone(), t.shape.clone())).collect();
    let source = ExportSource { spec: apart.spec(), texts: &texts, tensors: &tensors };
    let mut read = |name: &str, rows: Range<usize>, out: &mut [f32]| -> Result<(), ReadError> {
        apart.read_rows_f32(apart.tensor(name).unwrap(), rows, out)
    };
    for (kind, exact) in [(GgmlType::F32, true), (GgmlType::BF16, true), (GgmlType::Q8_0, false)] {
        let plan = ExportPlan::new(source, &ExportOptions::new(kind, "tiny")).unwrap();
        plan.write(&path, &mut read, &|_| {}).unwrap();
        let names: Vec<&str> = plan.tensors().iter().map(|tensor| tensor.new.name.as_str()).collect();
        for name in ["blk.1.ffn_gate_exps.weight", "blk.1.ffn_up_exps.weight", "blk.1.ffn_down_exps.weight"] {
            assert!(names.contains(&name), "{names:?}");
        }
        let back = Checkpoint::open(&path).unwrap();
        let stack = back.tensor(GATES).unwrap();
        assert_eq!((stack.pieces.len(), stack.is_plain_stack()), (24, exact));
        for tensor in back.tensors() {
            let (ours, expected) = (rows(&back, &tensor.name, None), rows(&apart, &tensor.name, None));
            let error = ours.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let largest = expected.iter().fold(0.0f32, |max, x| max.max(x.abs()));
            let limit = if exact { 0.0 } else { largest / 200.0 };
            assert!(error <= limit, "{kind} {}: {error} > {limit}", tensor.name);
        }
    }
}
