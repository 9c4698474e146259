//! Above 2 billion weights: the uncalibrated plan, and what the calibrated command is and takes. None of it needs more
//! disk than a small machine has.

use crate::checkpoints::{Shape, write_hollow};
use crate::run::{Gq, testdata};

/// 2.26 billion weights.
const LARGE: Shape = Shape { hidden: 4096, width: 14_336, layers: 10, vocab: 1536 };

/// What is there to read a text with.
const TEXTS: [&str; 2] = ["tokenizer.json", "tokenizer_config.json"];

/// A model in `big`; nothing of it lies on the disk.
fn folder(shape: Shape) -> Option<Gq> {
    let gq = Gq::new();
    if !write_hollow(&gq.path("big"), shape) {
        return None;
    }
    for name in TEXTS {
        std::fs::copy(testdata(&format!("demo/{name}")), gq.path("big").join(name)).unwrap();
    }
    Some(gq)
}

/// The line after the one with the command says what it takes, with coding.
fn estimated(said: &str, command: &str) {
    let mut lines = said.lines().skip_while(|line| !line.contains(&format!("calibrated: `{command}`")));
    assert!(lines.next().is_some(), "the command is the user's own: {said}");
    let line = lines.next().unwrap_or_default();
    assert!(line.contains("that takes about") && line.contains("layers "), "{said}");
    assert!(line.contains("coding "), "{said}");
}

#[test]
fn the_calibrated_command_stands_in_the_output_with_its_estimate() {
    assert!(LARGE.weights() > 2_000_000_000);
    let Some(gq) = folder(LARGE) else { return };
    let options = ["big", "--size", "1GB", "--no-grid"];
    let command = "gq convert big --size 1GB --no-grid --calibration builtin";
    let plan = gq.ok(&[&["plan"], &options[..]].concat());
    assert!(plan.contains("not calibrated: with 2.") && plan.contains("billion weights"), "{plan}");
    estimated(&plan, command);
    let dry = gq.ok(&[&["convert"], &options[..], &["--dry-run"]].concat());
    estimated(&dry, command);
    let document = gq.json(&[&["plan"], &options[..]].concat());
    assert_eq!(
        document["calibrated"]["command"],
        "gq convert big --size 1GB --no-grid --json --calibration builtin"
    );
    assert!(document["calibrated"]["seconds"].as_f64().unwrap() > 1.0);
    // The conversion itself says so before it begins.
    let said = gq.until("that takes about", &[&["convert"], &options[..], &["-o", "my.gq"]].concat());
    estimated(&said, "gq convert big --size 1GB --no-grid -o my.gq --calibration builtin");
    // Smaller models, and one that is told what to do, have nothing of the kind.
    let asked = gq.json(&[&["plan"], &options[..], &["--calibration", "none"]].concat());
    assert!(asked["calibrated"].is_null());
}

#[test]
fn files_made_for_a_divergence_have_a_bound_that_is_said_first() {
    // Of one layer: the files themselves must have room on the disk.
    let Some(gq) = folder(Shape { layers: 1, ..LARGE }) else { return };
    let options = ["convert", "big", "--target-kld", "0.02", "--calibration", "builtin", "--no-grid"];
    let said = gq.until("at most 6 files", &options);
    assert!(said.contains("convert takes about"), "{said}");
    assert!(said.contains(" each, at most "), "{said}");
}
