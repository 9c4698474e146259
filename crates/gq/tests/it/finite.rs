//! Models that compute what is no finite number, on the command line.

use crate::run::{Gq, testdata};
use gq_checkpoint::Checkpoint;

/// The demo with one row of a projection that overflows: not the middle one, by which measurements know their source.
fn write_broken(gq: &Gq) -> String {
    let (source, dir) = (testdata("demo"), gq.path("broken"));
    std::fs::create_dir(&dir).unwrap();
    for entry in std::fs::read_dir(&source).unwrap().map(|entry| entry.unwrap()) {
        std::fs::copy(entry.path(), dir.join(entry.file_name())).unwrap();
    }
    let checkpoint = Checkpoint::open(&source).unwrap();
    let tensor = checkpoint.tensor("model.layers.2.mlp.down_proj.weight").unwrap();
    let path = dir.join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let [_, _, low, high] = 3e38f32.to_le_bytes();
    let row = &mut bytes[tensor.offset as usize..][..tensor.row_bytes()];
    row.as_chunks_mut::<2>().0.iter_mut().for_each(|value| *value = [low, high]);
    std::fs::write(path, bytes).unwrap();
    "broken".to_owned()
}

#[test]
fn no_search_takes_a_file_for_close_to_what_does_not_compute() {
    let gq = Gq::new();
    let (demo, text) = (testdata("demo"), testdata("demo/eval.txt"));
    let fast = ["--calibration-ctx", "64", "--calibration-tokens", "1024", "--gradient-tokens", "64"];
    let measurements =
        [&["calibrate", &demo, "-o", "t", "--calibration", &text, "--trial-tokens", "0"][..], &fast];
    gq.ok(&measurements.concat());
    let broken = write_broken(&gq);
    // Without a look at the file: what is asked is whether its divergence is believed.
    let search =
        ["convert", &broken, "--measurements", "t", "--target-kld", "0.1", "--no-check", "-o", "m.gq"];
    let shown = gq.fails(3, &search);
    assert!(shown.contains("model.layers.2."), "{shown}");
    assert!(!gq.path("m.gq").exists());
    // And it is not measured in the first place.
    let measurements =
        [&["calibrate", &broken, "-o", "b", "--calibration", &text, "--trial-tokens", "0"][..], &fast];
    let shown = gq.fails(3, &measurements.concat());
    assert!(shown.contains("model.layers.2.") && shown.contains("NaN"), "{shown}");
    let shown = gq.fails(3, &["eval", &demo, "--reference", &broken, "--text", &text, "--windows", "1"]);
    assert!(shown.contains("NaN"), "{shown}");
}
