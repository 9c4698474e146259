//! `gq plan --table`.

use crate::run::{Gq, testdata};

#[test]
fn sizes_are_those_of_conversions_and_one_is_recommended() {
    let gq = Gq::new();
    let (demo, text) = (testdata("demo"), testdata("demo/eval.txt"));
    let found = gq.json(&["plan", &demo, "--table"]);
    let sizes = found["sizes"].as_array().unwrap();
    assert!(sizes.len() > 4, "{found}");
    let bytes: Vec<u64> = sizes.iter().map(|size| size["payload_bytes"].as_u64().unwrap()).collect();
    assert!(bytes.is_sorted(), "{bytes:?}");
    let recommended: Vec<_> = sizes.iter().filter(|size| size["recommended"] == true).collect();
    assert_eq!(recommended.len(), 1);
    assert!(recommended[0]["bpw"].is_null(), "{recommended:?}");
    for size in sizes {
        let number = |key: &str| size[key].as_f64().unwrap();
        assert!(number("bytes_per_token") <= number("payload_bytes"), "{size}");
        let rate = found["memory_bytes_per_second"].as_f64().unwrap() / number("bytes_per_token");
        assert!((number("tokens_per_second") / rate - 1.0).abs() < 1e-9);
    }
    // A row is what the command that it names makes.
    let four = sizes.iter().find(|size| size["bpw"] == 4.0).unwrap();
    let plan = gq.json(&["plan", &demo, "--bpw", "4"]);
    assert_eq!(four["payload_bytes"], plan["payload_bytes"]);
    // A longer context takes more memory, one beyond all memory leaves nothing to recommend.
    let longer = gq.json(&["plan", &demo, "--table", "--ctx", "16k"]);
    assert!(longer["sizes"][0]["memory_bytes"].as_u64() > sizes[0]["memory_bytes"].as_u64());
    let shown = gq.ok(&["plan", &demo, "--table", "--ctx", "1000M"]);
    assert!(shown.contains("none of these fits") && !shown.contains("<- recommended"), "{shown}");
    let shown = gq.ok(&["plan", &demo, "--table"]);
    assert!(shown.lines().take(sizes.len() + 1).all(|line| line.chars().count() <= 80), "{shown}");
    gq.fails(2, &["plan", &demo, "--table", "--bpw", "4"]);
    // With measurements each has its divergence, the smaller the larger.
    let fast = ["--calibration-ctx", "128", "--calibration-tokens", "2048", "--gradient-tokens", "512"];
    gq.ok(&[&["calibrate", &demo, "-o", "t", "--calibration", &text][..], &fast].concat());
    let measured = gq.json(&["plan", &demo, "--table", "--measurements", "t"]);
    let divergences = |size: &serde_json::Value| size["expected_divergence"].as_f64().unwrap();
    let sizes: Vec<_> =
        measured["sizes"].as_array().unwrap().iter().filter(|s| !s["bpw"].is_null()).collect();
    let divergences: Vec<f64> = sizes.into_iter().map(divergences).collect();
    assert!(divergences.len() > 4 && divergences.is_sorted_by(|a, b| a > b), "{divergences:?}");
}
