//! Relative error and bits per weight of every encoding on Gaussian and heavy-tailed rows.
//!
//! `cargo run --release -p gq-codec --example encodings [-- WIDTH ROWS]`

use gq_codec::{Rotation, study_encoding};
use gq_tensor::{Encoding, Isa, RotationKind, RotationSpec};

#[path = "../tests/it/source.rs"]
mod source;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let cols = arguments.next().map_or(Ok(576), |s| s.parse())?;
    let rows: usize = arguments.next().map_or(Ok(256), |s| s.parse())?;
    let rotation = Rotation::new(RotationSpec { kind: RotationKind::Hadamard, seed: 1 }, cols)?;
    let mut text =
        String::from("| encoding | bits per weight | Gaussian | Laplace | Student t5 | coefficient |\n");
    text.push_str("|---|--:|--:|--:|--:|--:|\n");
    for encoding in
        Encoding::all().into_iter().filter(|e| !e.is_exact() && !e.is_grid() && e.supports_cols(cols))
    {
        let studies = source::ALL.map(|kind| {
            study_encoding(Isa::detect(), encoding, &rotation, &source::rows(kind, rows, cols, 7))
        });
        let [gaussian, laplace, student] = studies;
        let (gaussian, laplace, student) = (gaussian?, laplace?, student?);
        let error = |study: &gq_codec::EncodingStudy| study.distortion.relative_mse();
        text.push_str(&format!(
            "| {encoding} | {:.3} | {:.3e} | {:.3e} | {:.3e} | {:.2} |\n",
            gaussian.bits_per_weight,
            error(&gaussian),
            error(&laplace),
            error(&student),
            gaussian.coefficient(),
        ));
    }
    std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes())?;
    Ok(())
}
