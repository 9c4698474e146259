//! Ctrl-C of conversions to other programs' formats: what was measured is taken up, and gives the same bytes.
#![cfg(target_os = "linux")]

use crate::live::{interrupt, names, shown, started, until};
use crate::run::{Gq, testdata};
use std::fs;

#[test]
fn a_conversion_to_another_format_goes_on_and_gives_the_same_bytes() {
    let gq = Gq::new();
    let (demo, text) = (testdata("demo"), testdata("demo/eval.txt"));
    let fast = ["--calibration", &text, "--calibration-ctx", "128", "--calibration-tokens", "4096"];
    let fast = [&fast[..], &["--gradient-tokens", "256", "--trial-tokens", "0", "--threads", "1"]].concat();
    for (format, file) in [("gguf", ""), ("compressed-tensors", "/model.safetensors")] {
        let convert =
            |out: &'static str| [&["convert", &demo, "--format", format, "-o", out][..], &fast].concat();
        let whole = |out: &str| fs::read(gq.path(&format!("{out}{file}"))).unwrap();
        gq.ok(&convert("whole"));
        let mut child = started(&gq, &convert("again"));
        let unfinished = gq.path("again.measurements/unfinished.json");
        assert!(until(&mut child, || unfinished.exists()), "it was over before it could be interrupted");
        let code = interrupt(&child);
        let output = child.wait_with_output().unwrap();
        let said = shown(&output);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains("what is done is kept in again.measurements"), "{said}");
        assert_eq!(names(gq.dir.path()), ["again.measurements", "whole"], "{said}");
        gq.ok(&convert("again"));
        assert!(whole("again") == whole("whole"), "{format}");
        assert_eq!(names(gq.dir.path()), ["again", "whole"]);
        for out in ["again", "whole"] {
            let path = gq.path(out);
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
    }
}
