//! Wrong command lines and wrong files: what is said leads to the right one.

use crate::run::{Gq, testdata};

#[test]
fn tips_are_to_the_point() {
    let gq = Gq::new();
    let cases: [(&[&str], &[&str]); 20] = [
        (
            &["inspect", "x", "--verbose"],
            &["unexpected argument '--verbose'", "tip: notes go to standard error"],
        ),
        (&["plan", "x", "--windows", "3"], &["tip: --windows is an option of `gq eval`", "not of `gq plan`"]),
        (&["run", "x", "--temperature", "1"], &["tip: write --temp"]),
        (&["run", "x", "--max-new-tokens", "9"], &["tip: write -n"]),
        (&["eval", "x", "--widnows", "3"], &["a similar argument exists: '--windows'"]),
        (&["verify", "x", "--zzz"], &["unexpected argument '--zzz'"]),
        (&["chat"], &["unrecognized subcommand 'chat'", "tip: `gq run MODEL` talks"]),
        (&["quantize", "x"], &["tip: `gq convert MODEL`"]),
        (&["quantise", "x"], &["tip: `gq convert MODEL`"]),
        (&["tune", "x"], &["tip: `gq improve FILE", "--scales"]),
        (&["refine", "x"], &["tip: `gq improve FILE", "--scales"]),
        (&["reround", "x"], &["tip: `gq improve FILE", "--rounds"]),
        (&["convrt", "x"], &["similar subcommand", "'convert'"]),
        (&["convert", "x", "--max-kld", "1"], &["tip: write --target-kld"]),
        (&["convert", "x", "--tune"], &["tip: `gq improve FILE --scales`"]),
        // Numbers below zero are refused by what the option takes.
        (&["run", "x", "--temp", "-1"], &["'-1' for '--temp <T>'", "expected"]),
        (&["convert", "x", "--target-kld", "-1"], &["'-1' for '--target-kld <X>'", "above 0"]),
        (&["convert", "x", "--bits", "-4"], &["'-4' for '--bits <B>'", "from 1 to 8"]),
        (&["eval", "m", "--reference", "r", "--windows", "-3"], &["'-3' for '--windows <N>'", "from 1 on"]),
        (&["eval", "m", "--reference", "r", "--windows", "0"], &["'0' for '--windows <N>'", "from 1 on"]),
    ];
    for (args, parts) in cases {
        let told = gq.fails(2, args);
        assert!(parts.iter().all(|part| told.contains(part)), "gq {args:?}: {told}");
        for misleading in ["as a value, use '--", "--version"] {
            assert!(!told.contains(misleading), "gq {args:?}: {told}");
        }
    }
}

#[test]
fn nonsense_is_like_no_command() {
    let gq = Gq::new();
    let told = gq.fails(2, &["frobnicate"]);
    assert!(told.contains("unrecognized subcommand 'frobnicate'") && !told.contains("similar"), "{told}");
}

#[test]
fn a_usage_error_in_json_has_the_whole_point() {
    let gq = Gq::new();
    let error = |args: &[&str]| {
        let output = gq.run(&[args, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(2));
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        document["error"].clone()
    };
    let missing = error(&["eval"]);
    assert_eq!(
        missing["message"],
        "the following required arguments were not provided: --reference <REF>, <MODEL>"
    );
    assert_eq!(
        (&missing["where"], &missing["limit"]),
        (&"command line".into(), &"--reference <REF>, <MODEL>".into())
    );
    let value = error(&["run", "x", "--kv", "q5"]);
    assert_eq!(value["message"], "invalid value 'q5' for '--kv <KIND>' [possible values: f32, f16, q8]");
    assert_eq!((&value["where"], &value["actual"]), (&"--kv <KIND>".into(), &"q5".into()));
    assert!(value["limit"].as_str().unwrap().contains("f16"));
    let unknown = error(&["plan", "x", "--windows", "3"]);
    assert_eq!(unknown["message"], "unexpected argument '--windows' found");
    assert!(
        unknown["hint"].as_str().unwrap().starts_with("--windows is an option of `gq eval`"),
        "{unknown}"
    );
    let conflict = error(&["run", "x", "--raw", "--chat"]);
    assert!(conflict["message"].as_str().unwrap().contains("'--raw'"), "{conflict}");
}

#[test]
fn a_wrong_file_is_called_what_it_seems_to_be() {
    let gq = Gq::new();
    std::fs::write(gq.path("notes.txt"), "root:x:0:0\n").unwrap();
    std::fs::write(gq.path("pytorch_model.bin"), b"PK\x03\x04\x14\0\0\0").unwrap();
    for (name, seems) in [("notes.txt", "a text"), ("pytorch_model.bin", "PyTorch")] {
        for command in ["inspect", "convert"] {
            let told = gq.fails(3, &[command, name]);
            assert!(told.contains(name) && told.contains(seems) && told.contains("hint: give a"), "{told}");
            assert!(!told.contains("[72"), "bytes say nothing: {told}");
        }
    }
    gq.ok(&["convert", &testdata("tiny/llama"), "-o", "m.gq", "--bits", "4"]);
    let told = gq.fails(3, &["convert", "m.gq", "-o", "n.gq"]);
    assert!(told.contains("this is a .gq file") && told.contains("hint: it is converted already"), "{told}");
}

#[test]
fn encodings_are_listed_and_foreign_names_lead_to_ours() {
    let gq = Gq::new();
    let help = gq.ok(&["help", "convert"]);
    for name in ["tt2 … tt6", "tt2-s12", "tt2-s14", "tq1 … tq8", "grid", "exact"] {
        assert!(help.contains(name), "{name}");
    }
    let llama = testdata("tiny/llama");
    for (args, parts) in [
        (["-e", "Q4_K_M"], ["llama.cpp, 4.9 bits per weight", "-e tt5"]),
        (["--embedding", "Q8_0"], ["--bpw 8.5", "-e tq8"]),
        (["--override", "down_proj=iq4_xs"], ["--bpw 4.5", "-e tt4"]),
        (["--bits", "4.5"], ["--bpw 4.5 plans 4.5 bits", "1 to 8"]),
        (["--bits", "0"], ["from 1 to 8", "0"]),
    ] {
        let told = gq.fails(2, &[&["convert", &llama][..], &args].concat());
        assert!(parts.iter().all(|part| told.contains(part)), "{args:?}: {told}");
    }
}
