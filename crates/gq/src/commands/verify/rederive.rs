//! `gq verify --rederive`: tensors of a file encoded again from its source.

use crate::adapters::Adapters;
use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::progress::{Progress, Stage, Unit};
use crate::{source, units};
use gq_calibrate::MeasurementsDir;
use gq_checkpoint::FileKind;
use gq_container::{Container, Digest, TensorEntry};
use gq_convert::{Rederiver, Verdict, WhyNot, compare_files};
use std::fmt::Write;
use std::path::Path;

/// Names that a sentence lists.
const NAMED: usize = 5;

/// What is asked for.
pub struct Asked<'a> {
    pub container: &'a Container,
    pub source: &'a Path,
    pub loras: &'a Adapters,
    pub sample: Option<u32>,
    pub measurements: Option<&'a Path>,
}

/// What was found.
pub struct Rederived {
    /// Files of the source that are not those that the file records.
    other_files: Vec<String>,
    /// Tensors that were looked at, in the file's order.
    verdicts: Vec<(String, Verdict)>,
    /// Tensors of the file.
    tensors: usize,
}

/// Compares the source's files and tensors with what the file says.
pub fn rederive(asked: &Asked<'_>, global: &Global) -> Result<Rederived, Failure> {
    let container = asked.container;
    let found = source::find(asked.source, global)?;
    let checkpoint = source::checkpoint_with(&found.path, asked.loras, global)?;
    let measurements = asked.measurements.map(MeasurementsDir::open).transpose()?;
    let mut rederiver = Rederiver::new(container, &checkpoint, measurements.as_ref(), global.isa()?)?;
    let chosen = chosen(container, &rederiver, asked.sample);
    let files = checkpoint.files().iter().filter(|file| file.kind != FileKind::Adapter);
    let bytes_of = |tensor: &&TensorEntry| checkpoint.tensor(&tensor.name).map_or(0, |source| source.bytes);
    let stages = vec![
        Stage { name: "source", unit: Unit::Bytes, total: files.map(|file| file.bytes).sum(), seconds: None },
        Stage { name: "coding", unit: Unit::Bytes, total: chosen.iter().map(bytes_of).sum(), seconds: None },
    ];
    let totals = [stages[0].total, stages[1].total];
    let mut progress = Progress::staged(global, "rederive", stages);
    let mut done = 0;
    let other_files = compare_files(rederiver.provenance(), &checkpoint, &mut |bytes, name| {
        done += bytes;
        progress.stage("source", done, totals[0], name);
    })?;
    done = 0;
    let pool = source::threads(global)?;
    let mut verdicts = Vec::new();
    for tensor in chosen {
        let mut seen = |bytes| {
            done += bytes;
            progress.stage("coding", done, totals[1], &tensor.name);
        };
        let verdict = pool.install(|| rederiver.compare(tensor, &mut seen))?;
        verdicts.push((tensor.name.clone(), verdict));
    }
    progress.finish();
    checkpoint.check_unchanged()?;
    Ok(Rederived { other_files, verdicts, tensors: container.tensors().len() })
}

/// All tensors, or `sample` of the rounded ones that can be encoded again, in the file's order.
fn chosen<'a>(
    container: &'a Container,
    rederiver: &Rederiver<'_>,
    sample: Option<u32>,
) -> Vec<&'a TensorEntry> {
    let mut tensors: Vec<&TensorEntry> = container.tensors().iter().collect();
    let Some(sample) = sample else { return tensors };
    let seed = container.payload_sha256();
    tensors.retain(|tensor| rederiver.why_not(tensor).is_none());
    // Rounded ones first; what is stored as it is where there are too few.
    let draw = |tensor: &&TensorEntry| {
        (tensor.encoding.is_exact(), Digest::of(format!("{seed} {}", tensor.name).as_bytes()).0)
    };
    tensors.sort_by_cached_key(draw);
    tensors.truncate(sample as usize);
    tensors.sort_by_key(|tensor| tensor.offset);
    tensors
}

impl Rederived {
    fn names(&self, wanted: impl Fn(&Verdict) -> bool) -> Vec<&str> {
        self.verdicts.iter().filter(|(_, verdict)| wanted(verdict)).map(|(name, _)| name.as_str()).collect()
    }

    fn count(&self, wanted: impl Fn(&Verdict) -> bool) -> usize {
        self.names(wanted).len()
    }

    /// What keeps the file from being shown to derive from this source.
    pub fn failure(&self, file: &Path) -> Option<Failure> {
        let place = file.display();
        let failed =
            |code, message: String| Some(Failure::new(Exit::Check, code, message).at(place.to_string()));
        if !self.other_files.is_empty() {
            let names = listed(self.other_files.iter().map(String::as_str));
            return failed(
                "verify.other_source",
                format!("{place}: not made from this source: {names} differs"),
            );
        }
        let differ = self.names(|verdict| matches!(verdict, Verdict::Differs { .. } | Verdict::NotInSource));
        if !differ.is_empty() {
            let (count, names) = (differ.len(), listed(differ.into_iter()));
            let message = format!("{place}: {count} tensors are not what the source gives: {names}");
            return failed("verify.rederive", message);
        }
        let message = format!("{place}: no tensor could be encoded again, nothing is shown");
        match self.count(|verdict| matches!(verdict, Verdict::Same | Verdict::SameCodes)) {
            0 => failed("verify.nothing_rederived", message),
            _ => None,
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let same = self.count(|verdict| *verdict == Verdict::Same);
        let of = match self.verdicts.len() {
            all if all == self.tensors => String::new(),
            some => format!(" of {some} chosen from {}", self.tensors),
        };
        let files = match self.other_files.is_empty() {
            true => "its files are those recorded",
            false => "its files are not those recorded",
        };
        let mut text =
            format!("source          {files}\nencoded again   {same} tensors{of}, bit for bit the same\n");
        let codes = self.count(|verdict| *verdict == Verdict::SameCodes);
        if codes > 0 {
            let _ = writeln!(
                text,
                "                {codes} with the same codes; their scales were tuned afterwards"
            );
        }
        let reasons = [
            (WhyNot::Measurements, "were rounded by measurements: --measurements DIR encodes them again"),
            (WhyNot::RoundedAgain, "were rounded again by `gq improve`, which is not repeated here"),
            (WhyNot::Tuned, "are stored as they are and were tuned with the scales"),
        ];
        for (why, sentence) in reasons {
            let count = self.count(|verdict| *verdict == Verdict::Not(why));
            if count > 0 {
                let _ = writeln!(text, "not compared    {} {sentence}", units::count(count as u64));
            }
        }
        for (name, verdict) in &self.verdicts {
            let _ = match verdict {
                Verdict::Differs { at } => {
                    writeln!(text, "differs         {name}, from byte {at} of its payload on")
                }
                Verdict::NotInSource => writeln!(text, "not in source   {name}, in this shape and dtype"),
                _ => Ok(()),
            };
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> serde_json::Value {
        let tensors = self.verdicts.iter().map(|(name, verdict)| {
            let (verdict, at) = match verdict {
                Verdict::Same => ("same", None),
                Verdict::SameCodes => ("same_codes", None),
                Verdict::Differs { at } => ("differs", Some(at)),
                Verdict::NotInSource => ("not_in_source", None),
                Verdict::Not(WhyNot::Measurements) => ("needs_measurements", None),
                Verdict::Not(WhyNot::RoundedAgain) => ("rounded_again", None),
                Verdict::Not(WhyNot::Tuned) => ("tuned", None),
            };
            serde_json::json!({ "name": name, "verdict": verdict, "at": at })
        });
        serde_json::json!({
            "other_files": self.other_files,
            "same": self.count(|verdict| matches!(verdict, Verdict::Same | Verdict::SameCodes)),
            "differing": self.count(|verdict| matches!(verdict, Verdict::Differs { .. } | Verdict::NotInSource)),
            "not_compared": self.count(|verdict| matches!(verdict, Verdict::Not(_))),
            "tensors": tensors.collect::<Vec<_>>(),
        })
    }
}

/// The first few names.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    let more = match names.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", names[..names.len().min(NAMED)].join(", "))
}
