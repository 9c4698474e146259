//! Millions or billions of weights per second, one core, of each kernel at each instruction set.
//!
//! `cargo run --release -p gq-codec --example throughput [-- WIDTH ROWS [PREFIX]]`

use gq_codec::{Activations, Decoder, EncodeScratch, Encoder, Rotation};
use gq_tensor::{
    CodedRows, DType, Encoding, Isa, MatrixShape, RotationKind, RotationSpec, ScaleGroup, States, Storage,
};
use std::{io::Write, time::Instant};

#[path = "../tests/it/source.rs"]
mod source;

/// Best rate of several runs, in weights per second.
fn rate(weights: usize, mut run: impl FnMut()) -> f64 {
    let mut best = 0.0f64;
    let start = Instant::now();
    while start.elapsed().as_millis() < 250 {
        let (mut runs, begin) = (0, Instant::now());
        while begin.elapsed().as_millis() < 10 {
            run();
            runs += 1;
        }
        best = best.max((weights * runs) as f64 / begin.elapsed().as_secs_f64());
    }
    best
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let cols: usize = arguments.next().map_or(Ok(640), |s| s.parse())?;
    let rows: usize = arguments.next().map_or(Ok(1024), |s| s.parse())?;
    // Of encodings whose name starts so.
    let prefix = arguments.next().unwrap_or_default();
    // Encoding uses all threads of the pool.
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global()?;
    let mut out = std::io::stdout();
    let spec = RotationSpec { kind: RotationKind::Hadamard, seed: 1 };
    let data = source::rows(source::Source::Gaussian, rows, cols, 3);
    let x: Vec<f32> = source::rows(source::Source::Gaussian, 1, cols, 4);
    let (mut floats, mut scratch) = (Vec::new(), EncodeScratch::default());
    for level in Isa::available() {
        writeln!(out, "{} [{rows} x {cols}], G weights/s", level.name())?;
        let rotation = Rotation::new(spec, cols)?;
        let mut work = data.clone();
        let forward = rate(work.len(), || rotation.forward(level, &mut work, &mut floats));
        writeln!(out, "rotate {:.3}", forward / 1e9)?;
        let mut activations = Activations::default();
        let quantize = rate(cols, || activations.quantize_into(level, &x));
        writeln!(out, "quantize activations {:.3}", quantize / 1e9)?;
        let turbo = |bits| Encoding::Turbo { bits, group: ScaleGroup::Row };
        let grouped = Encoding::Turbo { bits: 4, group: ScaleGroup::G32 };
        let exact = [DType::BF16, DType::F16, DType::F32, DType::F8E4M3].map(Encoding::Exact);
        let trellis = States::ALL.into_iter().flat_map(|states| (2..=6).map(move |bits| (bits, states)));
        let trellis = trellis.map(|(bits, states)| Encoding::Trellis { bits, states });
        let all: Vec<Encoding> = (1..=8).map(turbo).chain([grouped]).chain(trellis).chain(exact).collect();
        for encoding in all.into_iter().filter(|e| e.name().starts_with(&prefix)) {
            let (code_bytes, scale_bytes) = (encoding.codes_row_bytes(cols), encoding.scales_row_bytes(cols));
            let bytes = encoding.payload_bytes(rows, cols).ok_or("too large")?;
            let mut payload = vec![0u8; usize::try_from(bytes)?];
            let mut encode = 0.0;
            if let Ok(encoder) = Encoder::new(Storage::new(encoding, spec), cols) {
                let split = encoding.codes_bytes(rows, cols).ok_or("too large")?;
                let (codes, scales) = payload.split_at_mut(split);
                // Whole strips, and enough rows of the others.
                let subset = rows.min(64.max(encoding.strip_rows()));
                let split = encoding.codes_bytes(subset, cols).ok_or("too large")?;
                encode = rate(subset * cols, || {
                    let (codes, scales) = (&mut codes[..split], &mut scales[..subset * scale_bytes]);
                    encoder.encode_rows(level, &data[..subset * cols], codes, scales, &mut scratch);
                });
            }
            let matrix = CodedRows::of_payload(encoding, MatrixShape::new(rows, cols), &payload)
                .map_err(|e| format!("{e:?}"))?;
            let decoder = Decoder::new(Storage::new(encoding, spec), cols)?;
            let mut decoded = vec![0.0; rows * cols];
            let decode = rate(rows * cols, || decoder.decode_rows(level, &matrix, 0..rows, &mut decoded));
            let mut result = vec![0.0; rows];
            let dot =
                rate(rows * cols, || decoder.dot_rows(level, &matrix, 0..rows, &activations, &mut result));
            let dot_f32 =
                rate(rows * cols, || decoder.dot_rows_f32(level, &matrix, 0..rows, &x, &mut result));
            writeln!(
                out,
                "{:8} encode {:.4}  decode {:.2}  dot int8 {:.2} ({:.1} GB/s)  dot f32 {:.2}",
                encoding.name(),
                encode / 1e9,
                decode / 1e9,
                dot / 1e9,
                dot / 1e9 * (code_bytes + scale_bytes) as f64 / cols as f64,
                dot_f32 / 1e9,
            )?;
        }
    }
    Ok(())
}
