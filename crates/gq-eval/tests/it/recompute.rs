//! Every figure again from two files of outputs, by plain formulas, as anyone could.

use crate::fixtures::{Made, against, close, model_logit, reference_logit};
use gq_eval::{
    EvalReport, OutputsReader, OutputsWriter, ReferenceRun, Sizes, TextOptions, Windows, compare_on_text,
};
use std::path::Path;

const VOCAB: usize = 37;

fn log_softmax(logits: &[f64]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let norm = most + logits.iter().map(|x| (x - most).exp()).sum::<f64>().ln();
    logits.iter().map(|x| x - norm).collect()
}

fn mean_and_error(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, (variance / n).sqrt())
}

fn top(values: &[f64]) -> usize {
    let mut best = 0;
    (1..values.len()).for_each(|i| best = if values[i] > values[best] { i } else { best });
    best
}

/// The figures of `report` from the outputs of `model` and `reference`.
fn check(report: &EvalReport, model: &Path, reference: &Path) {
    let (model, reference) = (OutputsReader::open(model).unwrap(), OutputsReader::open(reference).unwrap());
    assert_eq!(model.input_ids(), reference.input_ids());
    let (mut klds, mut same) = (Vec::new(), Vec::new());
    let (mut ours, mut theirs, mut ratio, mut delta) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (row, tokens) in model.input_ids().iter().enumerate() {
        for col in report.scored.begin..report.scored.end {
            let q = log_softmax(&model.logits(row, col).unwrap());
            let p = log_softmax(&reference.logits(row, col).unwrap());
            klds.push(p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>());
            same.push(f64::from(u8::from(top(&p) == top(&q))));
            if let Some(&next) = tokens.get(col + 1) {
                let (q, p) = (q[next as usize], p[next as usize]);
                ours.push(-q);
                theirs.push(-p);
                ratio.push(p - q);
                delta.push(q.exp() - p.exp());
            }
        }
    }
    let (kld, error) = mean_and_error(&klds);
    close(report.kld.mean, kld);
    close(report.kld.stderr, error);
    let mut sorted = klds.clone();
    sorted.sort_by(f64::total_cmp);
    let quantile = |q: f64| {
        let at = q * (sorted.len() - 1) as f64;
        let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
        low + (high - low) * at.fract()
    };
    for (actual, q) in [
        (report.kld.min, 0.0),
        (report.kld.median, 0.5),
        (report.kld.p90, 0.9),
        (report.kld.p99, 0.99),
        (report.kld.p999, 0.999),
        (report.kld.max, 1.0),
    ] {
        close(actual, quantile(q));
    }
    let (agreement, error) = mean_and_error(&same);
    close(report.top1, agreement);
    close(report.top1_stderr, error);
    let ppl = report.ppl.unwrap();
    for (value, stderr, nll) in
        [(ppl.model, ppl.model_stderr, &ours), (ppl.reference, ppl.reference_stderr, &theirs)]
    {
        let (mean, error) = mean_and_error(nll);
        close(value, mean.exp());
        close(stderr, mean.exp() * error);
    }
    let (ln_ratio, error) = mean_and_error(&ratio);
    close(report.ln_ratio.unwrap().value, ln_ratio);
    close(report.ln_ratio.unwrap().stderr, error);
    let squares: Vec<f64> = delta.iter().map(|d| d * d).collect();
    let (square, error) = mean_and_error(&squares);
    close(report.rms_delta_p, square.sqrt());
    close(report.rms_delta_p_stderr, 0.5 * error / square.sqrt());
    close(report.mean_delta_p, mean_and_error(&delta).0);
    assert_eq!((report.tokens, report.targets), (klds.len(), ours.len()));
    let width = report.scored.end - report.scored.begin;
    assert_eq!((report.kld_by_position.len(), report.kld_by_window.len()), (width, model.input_ids().len()));
    for (i, &actual) in report.kld_by_position.iter().enumerate() {
        let column: Vec<f64> = klds.iter().skip(i).step_by(width).copied().collect();
        close(actual, column.iter().sum::<f64>() / column.len() as f64);
    }
    for (window, &actual) in klds.chunks(width).zip(&report.kld_by_window) {
        close(actual, window.iter().sum::<f64>() / width as f64);
    }
}

fn write_reference(path: &Path, rows: &[Vec<u32>]) {
    let mut writer = OutputsWriter::create(path, rows, VOCAB).unwrap();
    for tokens in rows {
        for (position, &token) in tokens.iter().enumerate() {
            let logits: Vec<f32> = (0..VOCAB).map(|entry| reference_logit(position, token, entry)).collect();
            writer.append(&logits).unwrap();
        }
    }
    writer.finish().unwrap();
}

#[test]
fn against_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let (model, reference) = (dir.path().join("model"), dir.path().join("reference"));
    let rows: Vec<Vec<u32>> = (0..3).map(|row| (0..50).map(|i| (7 * row + 3 * i) % 37).collect()).collect();
    write_reference(&reference, &rows);
    let options = TextOptions { save_outputs: Some(&model), ..TextOptions::default() };
    let report = against(&mut Made::new(VOCAB, model_logit), &reference, options);
    assert_eq!((report.tokens, report.targets), (150, 147));
    check(&report, &model, &reference);
}

#[test]
fn on_text_with_windows_longer_than_a_piece() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (dir.path().join("model"), dir.path().join("reference"));
    let tokens: Vec<u32> = (0..3000).map(|i| (i * i + 5 * i) % 37).collect();
    let windows = Windows::new(&tokens, 1100, None, Some(1)).unwrap();
    assert_eq!(windows.windows().len(), 2);
    write_reference(&theirs, windows.windows());
    let report = |options: TextOptions<'_>| {
        let mut reference = Made::new(VOCAB, reference_logit);
        let reference = ReferenceRun { logits: &mut reference, again: None };
        let mut model = Made::new(VOCAB, model_logit);
        let sizes = Sizes::default();
        compare_on_text(&mut model, reference, &windows, sizes, options, &mut |_, _| {}).unwrap()
    };
    let saving = report(TextOptions { save_outputs: Some(&ours), ..TextOptions::default() });
    assert_eq!((saving.scored.begin, saving.scored.end, saving.tokens), (550, 1099, 2 * 549));
    check(&saving, &ours, &theirs);
    assert_eq!(report(TextOptions::default()), saving, "saving changes no figure");
}
