//! The search that the constants of the trellis codes come from: for each (bits, states), all odd multipliers (of 2^14
//! states a sixteenth of them), and
//! the deviation that rows should have. Prints the best with its error on N(0, 1), on rows not searched with.
//!
//! `cargo run --release -p gq-codec --example trellis_search [-- POWER... | s14]`
//!
//! With `s10`, `s12` or `s14`, only that number of states. Magnitudes of the codebook are Gaussian quantiles to this
//! POWER; 1 is the codebook of the format, more gives it wider tails.

use gq_codec::{Trellis, TrellisScratch};
use gq_tensor::{Encoding, Isa, States};
use std::io::Write;

#[path = "../tests/it/source.rs"]
mod source;

const ROWS: usize = Encoding::STRIP_ROWS;

/// Of `x`, a whole number of columns: the relative error that the best scale leaves.
fn error(trellis: &Trellis, deviation: f64, x: &[f32]) -> f64 {
    let mut codes = vec![0; trellis.column_bytes(ROWS)];
    let (mut targets, mut levels) = ([0.0; ROWS], [0.0; ROWS]);
    let mut scratch = TrellisScratch::default();
    let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
    for column in x.chunks_exact(ROWS) {
        for (target, x) in targets.iter_mut().zip(column) {
            *target = x * deviation as f32;
        }
        trellis.encode_column(Isa::detect(), &targets, &[1.0; ROWS], &mut codes, &mut levels, &mut scratch);
        for (&x, &y) in column.iter().zip(&levels) {
            let (x, y) = (f64::from(x), f64::from(y));
            (xx, xy, yy) = (xx + x * x, xy + x * y, yy + y * y);
        }
    }
    1.0 - xy * xy / (xx * yy)
}

/// Quantile of the normal distribution, by bisection of the series of its distribution function.
fn quantile(p: f64) -> f64 {
    let distribution = |x: f64| {
        let (mut term, mut sum) = (x, x);
        for k in 1..200 {
            term *= x * x / f64::from(2 * k + 1);
            sum += term;
        }
        0.5 + sum * (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
    };
    let (mut low, mut high) = (0.0, 6.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if distribution(middle) < p { low = middle } else { high = middle }
    }
    low
}

/// Magnitudes of the codebook.
fn codebook(power: f64) -> [i8; 128] {
    let top = quantile(255.5 / 256.0);
    std::array::from_fn(|i| {
        let gaussian = quantile((i as f64 + 128.5) / 256.0) / top;
        (127.0 * gaussian.powf(power)).round() as i8
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (states, powers): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|argument| argument.starts_with('s'));
    let powers: Vec<f64> = powers.iter().map(|power| power.parse()).collect::<Result<_, _>>()?;
    let wanted = |of: &States| states.is_empty() || states.contains(&format!("s{}", of.log2()));
    let powers = if powers.is_empty() { vec![1.0] } else { powers };
    let mut out = std::io::stdout();
    let columns = |count: usize, seed| source::rows(source::Source::Gaussian, count, ROWS, seed);
    let (few, some, many, fresh) = (columns(16, 1), columns(96, 2), columns(512, 3), columns(4096, 4));
    for states in States::ALL.into_iter().filter(wanted) {
        for (bits, first_ratio) in [(2, 1.04), (3, 1.10), (4, 1.15), (5, 1.26), (6, 1.36)] {
            for &power in &powers {
                let book = codebook(power);
                let square: f64 = book.iter().map(|&level| f64::from(level).powi(2)).sum();
                let own = (square / 128.0).sqrt();
                // Codebooks wider than the rows pay off as bits grow; the best ratio is found along the way.
                let deviation = |ratio: f64| own / ratio;
                // Of 2^14 states every sixteenth: thousands would take hours and bring a few thousandths.
                let step = if states.log2() > 12 { 32 } else { 2 };
                let multipliers = (1..1u32 << states.log2()).step_by(step).map(|m| (m as u16, first_ratio));
                let mut candidates: Vec<(u16, f64)> = multipliers.collect();
                let (first, second) = if states.log2() > 12 { (16, 3) } else { (48, 6) };
                let stages = [(&few, first, 0), (&some, second, 2), (&many, 1, 4)];
                for (data, keep, steps) in stages {
                    let mut scored = Vec::new();
                    for &(multiplier, ratio) in &candidates {
                        for step in -steps..=steps {
                            let ratio = ratio * (1.0 + 0.02 * f64::from(step));
                            let trellis =
                                Trellis::experimental(bits, states, multiplier, book, deviation(ratio));
                            scored.push((error(&trellis, deviation(ratio), data), (multiplier, ratio)));
                        }
                    }
                    scored.sort_by(|a, b| a.0.total_cmp(&b.0));
                    scored.dedup_by_key(|(_, (multiplier, _))| *multiplier);
                    scored.truncate(keep);
                    candidates = scored.into_iter().map(|(_, candidate)| candidate).collect();
                }
                let (multiplier, ratio) = candidates[0];
                let best = Trellis::experimental(bits, states, multiplier, book, deviation(ratio));
                writeln!(
                    out,
                    "2^{} states, {bits} bits, power {power}: multiplier {:#06X}, deviation {:.3}, error {:.6}",
                    states.log2(),
                    multiplier,
                    deviation(ratio),
                    error(&best, deviation(ratio), &fresh),
                )?;
            }
        }
    }
    if let [power] = *powers {
        writeln!(out, "codebook {:?}", codebook(power))?;
    }
    Ok(())
}
