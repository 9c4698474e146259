//! Adapters on the command line.

use crate::run::{Gq, testdata};

#[test]
fn an_adapter_is_merged_recorded_and_measured() {
    let gq = Gq::new();
    let (demo, adapter, text) = (testdata("demo"), testdata("lora/demo"), testdata("demo/eval.txt"));
    gq.ok(&["convert", &demo, "-o", "mine.gq", "--bits", "6", "--lora", &adapter]);
    gq.ok(&["convert", &demo, "-o", "none.gq", "--bits", "6", "--lora", &format!("{adapter}=0")]);
    gq.ok(&["convert", &demo, "-o", "plain.gq", "--bits", "6"]);
    let payload = |file: &str| gq.json(&["inspect", file])["payload_sha256"].clone();
    assert_eq!(payload("none.gq"), payload("plain.gq"));
    assert_ne!(payload("mine.gq"), payload("plain.gq"));
    let told = gq.json(&["inspect", "mine.gq"])["provenance"]["source"]["adapters"].clone();
    assert_eq!((told[0]["name"].as_str(), told[0]["weight"].as_f64()), (Some("demo"), Some(1.0)));
    assert_eq!(told[0]["files"][1]["sha256"].as_str().unwrap().len(), 64);

    let kld = |reference: &[&str]| {
        let measure =
            ["eval", "mine.gq", "--text", &text, "--ctx", "128", "--windows", "2", "--cache-limit", "0"];
        gq.json(&[&measure, reference].concat())["kld"]["mean"].as_f64().unwrap()
    };
    let against_merged = kld(&["--reference", &demo, "--lora", &adapter]);
    let against_base = kld(&["--reference", &demo]);
    assert!(against_merged < 0.01 && against_base > 5.0 * against_merged, "{against_merged} {against_base}");
    gq.ok(&["run", &demo, "--lora", &format!("{adapter}=0.5"), "-p", "It is", "-n", "2"]);
    let plan = gq.json(&["plan", &demo, "--lora", &adapter]);
    let without = gq.json(&["plan", &demo]);
    assert!(plan["memory"]["peak"].as_u64() > without["memory"]["peak"].as_u64());
}

#[test]
fn an_adapter_that_does_not_fit_is_one_error() {
    let gq = Gq::new();
    let llama = testdata("tiny/llama");
    let cases: [(&str, i32, &str); 4] = [
        (&testdata("lora/regex"), 3, "the adapter was trained on another model"),
        (&testdata("tiny/llama"), 3, "adapter_config.json is missing"),
        ("absent", 3, "No such file"),
        (&format!("{}=x", testdata("lora/plain")), 2, "expected DIR or DIR=WEIGHT"),
    ];
    for (adapter, code, message) in cases {
        let shown = gq.fails(code, &["convert", &llama, "-o", "m.gq", "--lora", adapter]);
        assert!(shown.contains(message), "{adapter}: {shown}");
        assert!(!gq.path("m.gq").exists());
    }
    gq.ok(&["convert", &testdata("demo"), "-o", "m.gq", "--bits", "4"]);
    let shown = gq.fails(2, &["run", "m.gq", "--lora", &testdata("lora/demo"), "-p", "x"]);
    assert!(shown.contains("not into .gq files"), "{shown}");
}
