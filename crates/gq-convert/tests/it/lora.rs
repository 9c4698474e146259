//! Adapters merged on the way: the same codes as from a checkpoint that was merged before.

use crate::support::{convert, plan, policy, testdata};
use gq_checkpoint::{Adapter, Checkpoint};
use gq_convert::{ExecuteOptions, JournalError, Resources};
use gq_tensor::Isa;
use std::path::{Path, PathBuf};

fn adapter(name: &str, weight: f64) -> Adapter {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/lora").join(name);
    Adapter::open(dir, weight).unwrap()
}

fn merged(names: &[(&str, f64)]) -> Checkpoint {
    let adapters = names.iter().map(|(name, weight)| adapter(name, *weight)).collect();
    testdata("tiny/llama").with_adapters(adapters).unwrap()
}

/// The merged checkpoint as a folder of f32.
fn written(checkpoint: &Checkpoint, dir: &Path) -> Checkpoint {
    let config: PathBuf = checkpoint.dir().join("config.json");
    std::fs::copy(config, dir.join("config.json")).unwrap();
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for tensor in checkpoint.tensors() {
        let mut values = vec![0.0; tensor.rows() * tensor.cols()];
        checkpoint.read_rows_f32(tensor, 0..tensor.rows(), &mut values).unwrap();
        let begin = data.len();
        data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        let entry =
            serde_json::json!({"dtype": "F32", "shape": tensor.shape, "data_offsets": [begin, data.len()]});
        header.insert(tensor.source_name.clone(), entry);
    }
    let header = serde_json::Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    std::fs::write(dir.join("model.safetensors"), file).unwrap();
    Checkpoint::open(dir).unwrap()
}

#[test]
fn the_codes_are_those_of_the_merged_checkpoint() {
    for names in [
        &[("plain", 1.0)][..],
        &[("dora", 1.0)],
        &[("modules-to-save", 1.0)],
        &[("plain", 0.75), ("rslora", -0.5)],
    ] {
        let dir = tempfile::tempdir().unwrap();
        let view = merged(names);
        let policy = policy("tq4", &[("o_proj", "exact")]);
        let (_, ours) = convert(&view, &policy, &dir.path().join("view.gq")).unwrap();
        let folder = written(&view, dir.path());
        let (_, theirs) = convert(&folder, &policy, &dir.path().join("folder.gq")).unwrap();
        for entry in ours.tensors() {
            let other = theirs.tensor(&entry.name).unwrap();
            match entry.encoding.is_exact() {
                false => assert!(ours.payload(entry) == theirs.payload(other), "{}", entry.name),
                // In the source's bf16, rounded to nearest even.
                true => {
                    let rounded = theirs
                        .payload(other)
                        .as_chunks::<4>()
                        .0
                        .iter()
                        .flat_map(|bytes| half::bf16::from_f32(f32::from_le_bytes(*bytes)).to_le_bytes());
                    assert!(rounded.eq(ours.payload(entry).iter().copied()), "{}", entry.name);
                }
            }
        }
        let told = ours.provenance().unwrap().unwrap().source.adapters;
        let told: Vec<_> = told.iter().map(|a| (a.name.as_str(), a.weight.as_f64().unwrap())).collect();
        assert_eq!(told, names);
        assert!(theirs.provenance().unwrap().unwrap().source.adapters.is_empty());
    }
}

#[test]
fn memory_counts_the_factors_and_blocks_do_not_change_the_codes() {
    let dir = tempfile::tempdir().unwrap();
    let (plain, view) = (testdata("tiny/llama"), merged(&[("plain", 1.0)]));
    let policy = policy("tq4", &[]);
    let peak = |checkpoint: &Checkpoint| plan(checkpoint, &policy).memory.peak;
    assert_eq!(peak(&view), peak(&plain) + view.merge_bytes(2));
    let tight = Resources { threads: 1, max_memory: Some(peak(&view)) };
    let mut small = gq_convert::plan(&view, &policy, tight).unwrap();
    small.memory.block = 1000;
    let path = dir.path().join("small.gq");
    let options = ExecuteOptions {
        level: Isa::Scalar,
        restart: false,
        measurements: None,
        origin: None,
        check: None,
        existing: gq_files::Existing::Replaced,
    };
    gq_convert::execute(&small, &view, &path, options, &mut |_| {}).unwrap();
    convert(&view, &policy, &dir.path().join("large.gq")).unwrap();
    assert!(std::fs::read(&path).unwrap() == std::fs::read(dir.path().join("large.gq")).unwrap());
}

#[test]
fn an_interrupted_conversion_is_not_taken_up_with_another_adapter() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gq");
    let policy = policy("tq4", &[]);
    let options = ExecuteOptions {
        level: Isa::detect(),
        restart: false,
        measurements: None,
        origin: None,
        check: None,
        existing: gq_files::Existing::Replaced,
    };
    let journal = dir.path().join("m.gq.journal");
    // What a killed conversion leaves: the journal's first line.
    let view = merged(&[("plain", 1.0)]);
    let interrupted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        gq_convert::execute(&plan(&view, &policy), &view, &path, options, &mut |_| panic!("killed"))
    }));
    assert!(interrupted.is_err() && journal.exists());
    let other = merged(&[("plain", 0.5)]);
    let error = gq_convert::execute(&plan(&other, &policy), &other, &path, options, &mut |_| {}).unwrap_err();
    let gq_convert::ConvertError::Journal(JournalError::Differs { what, .. }) = error else {
        panic!("{error}")
    };
    assert_eq!(what, "adapters");
    gq_convert::execute(&plan(&view, &policy), &view, &path, options, &mut |_| {}).unwrap();
}
