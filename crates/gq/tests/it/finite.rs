//! Models that compute what is no finite number, on the command line.

use crate::run::{Gq, testdata};
use gq_checkpoint::Checkpoint;
use gq_container::{Container, StoredText, TextKind, Writer};

/// A row that overflows, so that the norm behind it makes NaN.
const NORMED: (&str, f32) = ("model.layers.2.mlp.down_proj.weight", 3e38);
/// A row that overflows and meets the next product as it is: infinite, or NaN where infinities of both signs are added.
const AS_IT_IS: (&str, f32) = ("model.layers.2.mlp.up_proj.weight", 1e38);

/// Whether a message is about a number that is none.
fn says_not_finite(shown: &str) -> bool {
    ["is NaN", "is inf", "is -inf"].iter().any(|value| shown.contains(value))
}

/// The demo with one row of a projection that overflows: not the middle one, by which measurements know their source.
fn write_broken(gq: &Gq, name: &str, (tensor, weight): (&str, f32)) {
    let (source, dir) = (testdata("demo"), gq.path(name));
    std::fs::create_dir(&dir).unwrap();
    for entry in std::fs::read_dir(&source).unwrap().map(|entry| entry.unwrap()) {
        std::fs::copy(entry.path(), dir.join(entry.file_name())).unwrap();
    }
    let checkpoint = Checkpoint::open(&source).unwrap();
    let tensor = checkpoint.tensor(tensor).unwrap();
    let path = dir.join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let [_, _, low, high] = weight.to_le_bytes();
    let row = &mut bytes[tensor.offset as usize..][..tensor.row_bytes()];
    row.as_chunks_mut::<2>().0.iter_mut().for_each(|value| *value = [low, high]);
    std::fs::write(path, bytes).unwrap();
}

/// A copy of a file with the stored bytes of one tensor changed.
fn write_changed(gq: &Gq, (from, to): (&str, &str), tensor: &str, change: impl Fn(&mut [u8])) {
    let whole = Container::open(&gq.path(from)).unwrap();
    let mut writer = Writer::create_once(&gq.path(to)).unwrap();
    for entry in whole.tensors() {
        let mut payload = whole.payload(entry).to_vec();
        if entry.name == tensor {
            change(&mut payload);
        }
        writer.write_tensor(entry.spec(), &payload).unwrap();
    }
    let texts = TextKind::ALL
        .into_iter()
        .filter_map(|kind| Some(StoredText::new(kind, &whole.text(kind).unwrap()?).unwrap()));
    writer.finish(texts.collect()).unwrap();
}

#[test]
fn no_search_takes_a_file_for_close_to_what_does_not_compute() {
    let gq = Gq::new();
    let (demo, text) = (testdata("demo"), testdata("demo/eval.txt"));
    let fast = ["--calibration-ctx", "64", "--calibration-tokens", "1024", "--gradient-tokens", "64"];
    let measurements =
        [&["calibrate", &demo, "-o", "t", "--calibration", &text, "--trial-tokens", "0"][..], &fast];
    gq.ok(&measurements.concat());
    for (broken, kind) in [("normed", NORMED), ("as-it-is", AS_IT_IS)] {
        write_broken(&gq, broken, kind);
        // Without a look at the file: what is asked is whether its divergence is believed.
        // The row is beyond the scales of codes.
        let kept = format!("{}=exact", kind.0.replace('.', "\\."));
        let search = ["convert", broken, "--measurements", "t", "--target-kld", "0.1", "--override", &kept];
        let shown = gq.fails(3, &[&search[..], &["--no-check", "--restart", "-o", "m.gq"]].concat());
        assert!(shown.contains("the reference computes") && says_not_finite(&shown), "{shown}");
        assert!(shown.contains("model.layers.2."), "{shown}");
        assert!(!gq.path("m.gq").exists());
        // And it is not measured in the first place.
        let measurements =
            [&["calibrate", broken, "-o", "b", "--calibration", &text, "--trial-tokens", "0"][..], &fast];
        let shown = gq.fails(3, &measurements.concat());
        assert!(shown.contains("model.layers.2.") && says_not_finite(&shown), "{shown}");
        let shown = gq.fails(3, &["eval", &demo, "--reference", broken, "--text", &text, "--windows", "1"]);
        assert!(says_not_finite(&shown), "{shown}");
    }
}

/// A row whose product with the source's activations is just below the largest f32, and with those of a file of two bits per
/// weight above it: that file, and others like it, are given up for one that computes.
#[test]
fn a_search_gives_up_files_that_do_not_compute() {
    let gq = Gq::new();
    let text = testdata("demo/eval.txt");
    let fast = ["--calibration-ctx", "64", "--calibration-tokens", "1024", "--gradient-tokens", "64"];
    let asked = ["calibrate", &testdata("demo"), "-o", "t", "--calibration", &text, "--trial-tokens", "0"];
    gq.ok(&[&asked[..], &fast].concat());
    write_broken(&gq, "near", ("model.layers.2.mlp.down_proj.weight", 3.86e36));
    let kept = r"model\.layers\.2\.mlp\.down_proj\.weight=exact";
    let search =
        ["convert", "near", "--measurements", "t", "--target-kld", "0.5", "--override", kept, "-o", "m.gq"];
    let output = gq.run(&[&search[..], &["--no-check"]].concat());
    let shown = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && shown.contains("divergence inf on 64 held-out tokens, too far"),
        "{shown}"
    );
    let report = gq.json(&[&search[..], &["--no-check", "--force"]].concat());
    assert!(report["measured"]["kld"].as_f64().is_some_and(|kld| kld <= 0.5), "{report}");
}

#[test]
fn no_file_is_improved_by_what_does_not_compute() {
    let gq = Gq::new();
    let (demo, text) = (testdata("demo"), testdata("demo/eval.txt"));
    gq.ok(&["convert", &demo, "-o", "fine.gq", "-e", "tq4", "--no-grid"]);
    let text = ["--calibration", &text, "--calibration-ctx", "64"];
    let steps =
        [&["--rounds", "--calibration-tokens", "1024"][..], &["--scales", "--steps", "2", "--batch", "1"]];
    let refused = |file: &str, reference: &str, what: [&str; 2]| {
        let before = std::fs::read(gq.path(file)).unwrap();
        for step in steps {
            let improve = ["improve", file, "-o", "out.gq", "--reference", reference];
            let shown = gq.fails(3, &[&improve[..], step, &text].concat());
            assert!(
                what.iter().all(|what| shown.contains(what)) && says_not_finite(&shown),
                "{step:?} {reference}: {shown}"
            );
        }
        let mut left: Vec<_> =
            std::fs::read_dir(gq.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.retain(|name| name.to_string_lossy().starts_with("out.gq"));
        assert!(left.is_empty(), "{left:?}");
        assert!(std::fs::read(gq.path(file)).unwrap() == before);
    };
    for (name, kind) in [("normed", NORMED), ("as-it-is", AS_IT_IS)] {
        write_broken(&gq, name, kind);
        // A file that was made from it, with the weights that computed.
        let kept = format!("{}=exact", kind.0.replace('.', "\\."));
        gq.ok(&[
            "convert",
            name,
            "-o",
            "made.gq",
            "-e",
            "tq4",
            "--no-grid",
            "--no-check",
            "--override",
            &kept,
        ]);
        let original = Checkpoint::open(&demo).unwrap();
        let tensor = original.tensor(kind.0).unwrap();
        let weights = std::fs::read(original.dir().join("model.safetensors")).unwrap();
        let weights = &weights[tensor.offset as usize..][..tensor.bytes as usize];
        let computes = format!("{name}.computes.gq");
        write_changed(&gq, ("made.gq", &computes), kind.0, |payload| payload.copy_from_slice(weights));
        std::fs::remove_file(gq.path("made.gq")).unwrap();
        refused(&computes, name, ["the reference computes", "model.layers.2."]);
    }
    for (name, bits) in [("one.gq", 0x7FC0), ("other.gq", 0x7F80)] {
        let norm = "model.layers.2.input_layernorm.weight";
        let first = |payload: &mut [u8]| payload[..2].copy_from_slice(&u16::to_le_bytes(bits));
        write_changed(&gq, ("fine.gq", name), norm, first);
        refused(name, &demo, ["the file computes", "model.layers.2.self_attn."]);
    }
}

/// What was measured on weights that compute is there: trials alone meet those that do not.
#[test]
fn trials_against_what_does_not_compute_correct_nothing() {
    let gq = Gq::new();
    let (demo, text) = (testdata("demo"), testdata("demo/eval.txt"));
    let fast = ["--calibration-ctx", "64", "--calibration-tokens", "1024", "--gradient-tokens", "64"];
    let asked = [&["-o", "t", "--calibration", &text][..], &fast].concat();
    gq.ok(&[&["calibrate", &demo, "--trial-tokens", "0"][..], &asked].concat());
    let before = std::fs::read(gq.path("t/measurements.json")).unwrap();
    for (name, kind) in [("normed", NORMED), ("as-it-is", AS_IT_IS)] {
        write_broken(&gq, name, kind);
        let shown = gq.fails(3, &[&["calibrate", name, "--trial-tokens", "64"][..], &asked].concat());
        assert!(shown.contains("adding trials to the measurements"), "{shown}");
        assert!(shown.contains("model.layers.2.") && says_not_finite(&shown), "{shown}");
        assert!(std::fs::read(gq.path("t/measurements.json")).unwrap() == before);
    }
}
