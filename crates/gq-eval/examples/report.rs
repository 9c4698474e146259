//! Reports written by `gq eval --json`, as a page: `cargo run --example report -- a.json b.json > page.html`.

use gq_eval::{EvalReport, html};
use std::io::Write;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let read = |path: String| -> Result<EvalReport, Box<dyn std::error::Error>> {
        Ok(serde_json::from_slice(&std::fs::read(path)?)?)
    };
    let reports = std::env::args().skip(1).map(read).collect::<Result<Vec<_>, _>>()?;
    Ok(std::io::stdout().write_all(html::render(&reports).as_bytes())?)
}
