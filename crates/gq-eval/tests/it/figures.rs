//! Figures worked by hand.

use crate::fixtures::{Made, against, close, f64_bytes, id_bytes, safetensors, write};
use gq_eval::{EvalReport, Gate, ReferenceLogits, TextOptions};

/// Reference (1/2, 1/2), (1/4, 3/4), (3/4, 1/4) after tokens 0, 1, 0; the model says (1/2, 1/2) always.
fn report() -> EvalReport {
    let dir = tempfile::tempdir().unwrap();
    let logits: Vec<f64> = [0.5f64, 0.5, 0.25, 0.75, 0.75, 0.25].iter().map(|p| p.ln()).collect();
    let (ids, logits) = (id_bytes(&[0, 1, 0]), f64_bytes(&logits));
    let file = safetensors(&[("input_ids", "I64", &[1, 3], &ids), ("logits", "F64", &[1, 3, 2], &logits)]);
    let path = write(dir.path(), "reference.safetensors", &file);
    against(&mut Made::new(2, |_, _, _| 0.0), &path, TextOptions::default())
}

#[test]
fn a_coin_against_a_biased_one() {
    let report = report();
    let ln = f64::ln;
    // 1/4 ln(1/4 / 1/2) + 3/4 ln(3/4 / 1/2), at two of three positions.
    let kld = 0.25 * ln(0.5) + 0.75 * ln(1.5);
    close(report.kld.mean, 2.0 * kld / 3.0);
    close(report.kld.median, kld);
    close(report.kld.max, kld);
    close(report.kld.min, 0.0);
    // Deviations -2/3, 1/3, 1/3 of kld: variance 6/9/2 = 1/3, over three values.
    close(report.kld.stderr, kld / 3.0);
    assert_eq!((report.windows, report.tokens, report.targets), (1, 3, 2));
    assert_eq!((report.scored.ctx, report.scored.begin, report.scored.end), (3, 0, 3));

    // The next tokens are 1 and 0: reference 1/2 and 1/4, model 1/2 and 1/2.
    let ppl = report.ppl.unwrap();
    close(ppl.model, 2.0);
    close(ppl.model_stderr, 0.0);
    close(ppl.reference, 8f64.sqrt());
    let ratio = report.ln_ratio.unwrap();
    close(ratio.value, -ln(2.0) / 2.0);
    close(ratio.stderr, ln(2.0) / 2.0);
    close(report.rms_delta_p, 0.25 / 2f64.sqrt());
    close(report.mean_delta_p, 0.125);
    assert_eq!(report.min_delta_p, 0.0);
    close(report.max_delta_p, 0.25);

    // A tie goes to the first token, so only the second position differs.
    close(report.top1, 2.0 / 3.0);
    let logits = report.logits.unwrap();
    close(logits.max_abs_error, ln(4.0));
    let squares = 2.0 * ln(2.0).powi(2) + 2.0 * (ln(4.0).powi(2) + ln(4.0 / 3.0).powi(2));
    close(logits.rms_error, (squares / 6.0).sqrt());
    assert_eq!((report.noise_floor, report.reference_logits), (None, ReferenceLogits::Outputs));
    assert_eq!(report.kld_histogram.counts.iter().sum::<u64>(), 3);
}

#[test]
fn json_names_are_the_contract() {
    let json = serde_json::to_value(report()).unwrap();
    let contract = [
        "/ppl/model",
        "/ppl/reference",
        "/kld/mean",
        "/kld/median",
        "/kld/p99",
        "/kld/p999",
        "/kld/max",
        "/top1",
        "/bytes/file",
        "/bytes/body",
        "/bpw/file",
        "/bpw/body",
        "/windows",
        "/tokens",
        "/logits/max_abs_error",
        "/logits/rms_error",
    ];
    for pointer in contract {
        assert!(json.pointer(pointer).is_some_and(serde_json::Value::is_number), "{pointer}");
    }
    assert!(json.get("noise_floor").is_some_and(serde_json::Value::is_null));
    let back: EvalReport = serde_json::from_value(json).unwrap();
    assert_eq!(back, report());
}

#[test]
fn one_position_has_no_perplexity() {
    let dir = tempfile::tempdir().unwrap();
    let (ids, logits) = (id_bytes(&[1]), f64_bytes(&[0.0, 1.0]));
    let file = safetensors(&[("input_ids", "I64", &[1, 1], &ids), ("logits", "F64", &[1, 1, 2], &logits)]);
    let path = write(dir.path(), "one.safetensors", &file);
    let report = against(&mut Made::new(2, |_, _, entry| entry as f32), &path, TextOptions::default());
    assert_eq!((report.ppl, report.ln_ratio, report.targets), (None, None, 0));
    assert_eq!((report.kld.mean, report.kld.stderr, report.top1), (0.0, 0.0, 1.0));
    assert!(!"ppl-ratio=2".parse::<Gate>().unwrap().passes(&report), "what was not measured does not pass");
}

#[test]
fn gates_fail_above_their_limit_and_top1_below() {
    let report = report();
    for (gate, passes) in [
        ("kld=0.09", true),
        ("kld=0.08", false),
        ("kld-median=0.131", true),
        ("kld-max=0.13", false),
        ("ppl-ratio=0.71", true),
        ("ppl-ratio=0.70", false),
        ("top1=0.66", true),
        ("top1=0.67", false),
        ("rms-delta-p=0.17", false),
        ("logit-error=1.4", true),
        ("logit-error=1.3", false),
    ] {
        assert_eq!(gate.parse::<Gate>().unwrap().passes(&report), passes, "{gate}");
    }
    let gates = Gate::parse_list("kld=0.08,top1=0.5,kld-p99=0.1").unwrap();
    let failed: Vec<&str> = Gate::failed(&gates, &report).iter().map(|gate| gate.name.as_str()).collect();
    assert_eq!(failed, ["kld", "kld-p99"]);
}
