//! Budgets that cannot be met: which part took the room is said before any work, one test for each option.

use crate::run::{Gq, testdata};

/// What a plan says of a budget that it cannot meet, and its document.
fn refused(options: &[&str]) -> String {
    let gq = Gq::new();
    let demo = testdata("demo");
    let said = gq.fails(2, &[&["plan", &demo][..], options].concat());
    // Nothing is measured or written first.
    let converted =
        gq.fails(2, &[&["convert", &demo, "-o", "m.gq", "--calibration", "none"][..], options].concat());
    assert!(std::fs::read_dir(gq.dir.path()).unwrap().next().is_none());
    let error = |said: &str| said.lines().find(|line| line.contains("error:")).unwrap_or_default().to_owned();
    assert_eq!(error(&said), error(&converted));
    error(&said)
}

#[test]
fn a_size_names_texts_and_what_is_fixed() {
    let said = refused(&["--size", "100kB"]);
    assert!(said.contains("--size 100 kB leaves 46.6 kB for the weights, which take at least"), "{said}");
    assert!(said.contains("; texts and tables of contents take 53.4 kB"), "{said}");
    assert!(
        said.contains("; fixed among the weights: per_layer_projection ") && !said.contains("embedding"),
        "{said}"
    );
    // A table that is named has no choice.
    let said = refused(&["--size", "900kB", "--embedding", "tq8"]);
    assert!(said.contains("; texts and tables of contents take 53."), "{said}");
    assert!(said.contains("; fixed among the weights: embedding 298 kB"), "{said}");
}

#[test]
fn bits_of_the_body_name_what_is_fixed() {
    let said = refused(&["--bpw", "1"]);
    assert!(said.contains("--bpw 1 leaves") && said.contains("for the body, which takes at least"), "{said}");
    // Texts and tables do not count, nor does the embedding.
    assert!(said.contains("; fixed among the weights: per_layer_projection 39.6 kB, "), "{said}");
    assert!(!said.contains("texts") && !said.contains("embedding"), "{said}");
    let said = refused(&["--bpw", "2.5", "--override", "down_proj=exact"]);
    assert!(said.contains("; fixed among the weights: down 1.22 MB"), "{said}");
}

#[test]
fn a_fit_names_keys_and_values_buffers_texts_and_what_is_fixed() {
    let said = refused(&["--fit", "100MB", "--ctx", "128k", "--embedding", "tq8"]);
    assert!(said.contains("--fit 100 MB leaves 0 B for the weights"), "{said}");
    assert!(said.contains("keys and values of 131,072 tokens take") && said.contains("buffers"), "{said}");
    assert!(said.contains("; texts and tables of contents take 53."), "{said}");
    assert!(said.contains("; fixed among the weights: embedding 298 kB"), "{said}");
}

#[test]
fn a_budget_with_room_for_all_weights_stores_them_as_they_are_and_measures_nothing() {
    let gq = Gq::new();
    let convert = ["convert", &testdata("demo"), "-o", "m.gq", "--size", "100MB"];
    let made = gq.json(&convert);
    assert_eq!(made["report"]["relative_mse"].as_f64(), Some(0.0), "{made}");
    let said = gq.ok(&[&convert[..], &["--force"]].concat());
    assert!(!said.contains("expected divergence"), "{said}");
    let inspected = gq.ok(&["inspect", "m.gq"]);
    assert!(inspected.contains("stored without loss"), "{inspected}");
}
