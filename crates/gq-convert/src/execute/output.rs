//! The file being made: payloads in the plan's order, a journal line after each, texts at the end.

use super::error::ConvertError;
use super::journal::{Entry, Fingerprint, Journal};
use super::options::{Check, ExecuteOptions};
use super::report::{Report, Sums};
use crate::plan::{Budget, Plan, Step};
use crate::provenance::{adapter_file, adapters, digest_of};
use crate::round::{Coded, OutputSums};
use gq_checkpoint::{Adapter, Checkpoint, FileKind, Texts};
use gq_codec::code_of;
use gq_container::{
    Digest, Provenance, Source, SourceFile, SourceTexts, StoredText, TensorEntry, TensorSpec, TextKind,
    WriteError, Writer, partial_path,
};
use gq_tensor::{Encoding, Storage};
use sha2::{Digest as _, Sha256};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// An output that is being written or taken up again.
pub(crate) struct Output<'a> {
    plan: &'a Plan,
    checkpoint: &'a Checkpoint,
    texts: Texts,
    writer: Writer,
    journal: Journal,
    /// Tensors that were done when this execution began.
    finished: usize,
    /// Scale rows of the current tensor: they follow its code rows.
    scales: Vec<u8>,
    current: Sums,
    sums: Vec<Sums>,
}

impl<'a> Output<'a> {
    /// Begins `path`, or takes up what an interrupted execution left next to it.
    pub(crate) fn open(
        plan: &'a Plan,
        checkpoint: &'a Checkpoint,
        path: &Path,
        restart: bool,
    ) -> Result<Output<'a>, ConvertError> {
        let texts = checkpoint.texts()?;
        let fingerprint = fingerprint(plan, checkpoint, &texts);
        let journal_path = journal_path(path);
        if restart {
            discard(path)?;
        }
        let mut journal = Journal::open(&journal_path, &fingerprint)?;
        let usable = journal.entries().iter().zip(&plan.steps).map(|(entry, step)| stored(entry, step));
        let entries: Vec<TensorEntry> = usable.map_while(|entry| entry).collect();
        let intact = match entries.is_empty() || !partial_path(path).exists() {
            true => 0,
            false => Writer::intact(path, &entries, |_| {})?,
        };
        journal.keep(intact, &fingerprint)?;
        let writer = match intact {
            0 => Writer::create(path)?,
            _ => Writer::resume(path, &entries[..intact])?,
        };
        let sums = |entry: &Entry| Sums {
            error: f64::from_bits(entry.error),
            energy: f64::from_bits(entry.energy),
            outputs: OutputSums::from_bits(entry.outputs),
        };
        let sums = journal.entries().iter().map(sums).collect();
        Ok(Output {
            plan,
            checkpoint,
            texts,
            writer,
            journal,
            finished: intact,
            scales: Vec::new(),
            current: Sums::default(),
            sums,
        })
    }

    /// Tensors that were done when this execution began.
    pub(crate) fn finished(&self) -> usize {
        self.finished
    }

    /// Takes the next rows of step `index`. For a step that was done already, compares the source instead.
    pub(crate) fn rows(
        &mut self,
        index: usize,
        first: bool,
        last: bool,
        coded: &Coded,
        source_sha256: &str,
    ) -> Result<(), ConvertError> {
        let step = &self.plan.steps[index];
        if index < self.finished {
            return if last { self.compare(index, source_sha256) } else { Ok(()) };
        }
        if first {
            self.writer.begin_tensor(spec(step))?;
            self.scales.clear();
            self.current = Sums::default();
        }
        self.writer.append(&coded.codes)?;
        self.scales.extend_from_slice(&coded.scales);
        for (error, energy) in &coded.sums {
            self.current.error += error;
            self.current.energy += energy;
        }
        coded.outputs.iter().for_each(|row| self.current.outputs.add(row));
        if !last {
            return Ok(());
        }
        if vanished(step.encoding, &self.current) {
            return Err(ConvertError::Vanished { tensor: step.tensor.clone(), limit: step.encoding });
        }
        self.writer.append(&self.scales)?;
        let entry = self.writer.end_tensor()?;
        self.sums.push(self.current);
        self.journal.append(Entry {
            step: index,
            offset: entry.offset,
            bytes: entry.bytes,
            sha256: hex::encode(entry.sha256.0),
            source_sha256: source_sha256.to_owned(),
            error: self.current.error.to_bits(),
            energy: self.current.energy.to_bits(),
            outputs: self.current.outputs.to_bits(),
        })?;
        Ok(())
    }

    fn compare(&self, index: usize, actual: &str) -> Result<(), ConvertError> {
        let entry = self.journal.entries().iter().find(|entry| entry.step == index);
        match entry.filter(|entry| entry.source_sha256 != actual) {
            None => Ok(()),
            Some(entry) => Err(ConvertError::SourceChanged {
                tensor: self.plan.steps[index].tensor.clone(),
                limit: entry.source_sha256.clone(),
                actual: actual.to_owned(),
            }),
        }
    }

    /// Adds the texts, gives the file its name once it was looked at, and removes the journal. `digests`: sha256 of every
    /// source file.
    pub(crate) fn finish(
        self,
        digests: &[String],
        options: ExecuteOptions<'_>,
    ) -> Result<Report, ConvertError> {
        let origin = options.origin;
        let report = Report::new(self.plan, &self.sums);
        // An adapter's file that some tensors are read from is among the adapter's.
        let files = self.checkpoint.files().iter().zip(digests);
        let files =
            files.filter(|(file, _)| file.kind != FileKind::Adapter).map(|(file, digest)| SourceFile {
                name: file.name.clone(),
                bytes: file.bytes,
                sha256: digest_of(digest).unwrap_or(Digest::ZERO),
            });
        let calibration = self.plan.policy.calibration.as_ref();
        let provenance = Provenance {
            tool: "gq".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            source: Source {
                repo: origin.map(|origin| origin.repo.clone()),
                revision: origin.map(|origin| origin.revision.clone()),
                files: files.collect(),
                adapters: adapters(self.checkpoint),
                texts: self.checkpoint.taken_texts().map(|taken| SourceTexts {
                    from: taken.from.clone(),
                    files: taken.files.iter().map(adapter_file).collect(),
                }),
                quantized: self.checkpoint.quantized(),
            },
            recipe: serde_json::to_value(&self.plan.policy)?,
            calibration_sha256: calibration.and_then(|calibration| digest_of(&calibration.text_sha256)),
            seed: self.plan.policy.seed,
            scales_tuned: None,
            rounded_again: None,
        };
        let mut texts = carried(&self.texts)?;
        texts.push(provenance.to_text()?);
        texts.push(StoredText::new(TextKind::Report, &serde_json::to_string(&report)?)?);
        if let Some(Budget::FileBytes(limit)) = self.plan.policy.budget {
            let tensors = self.plan.steps.iter().map(|step| (step.tensor.as_str(), step.bytes));
            let stored = |texts: &[StoredText]| {
                let texts = texts.iter().map(StoredText::stored_bytes);
                gq_container::layout::file_bytes(tensors.clone(), texts).unwrap_or(u64::MAX)
            };
            if stored(&texts) > limit {
                // Reasons are repeated by a plan at any time: the budget comes first.
                let mut short = report.clone();
                short.tensors.iter_mut().for_each(|tensor| tensor.reason.clear());
                texts.pop();
                texts.push(StoredText::new(TextKind::Report, &serde_json::to_string(&short)?)?);
            }
            let actual = stored(&texts);
            if actual > limit {
                return Err(ConvertError::Budget { limit, actual });
            }
        }
        let sealed = self.writer.seal(texts)?;
        if let Some(Check(look)) = options.check {
            let path = sealed.partial();
            look(path).map_err(|source| ConvertError::Refused { path: path.to_owned(), source })?;
        }
        let placed = sealed.place(options.existing);
        // Finished, under whatever name: there is nothing to take up.
        if let Ok(_) | Err(WriteError::Taken { .. }) = &placed {
            self.journal.remove()?;
        }
        placed?;
        Ok(report)
    }
}

/// Whether nothing is left of a tensor that is not zero: its scales were too small to be stored.
fn vanished(encoding: Encoding, sums: &Sums) -> bool {
    // The one bit of the coarsest code whose distortion is known leaves no more than 0.37.
    let code = code_of(Storage::unrotated(encoding));
    code.is_ok_and(|code| code.distortion().is_some())
        && sums.energy > 0.0
        && sums.error >= 0.98 * sums.energy
}

/// Bytes that the checkpoint's texts and their table take in a file; texts that cannot be stored fail later, by name.
pub(crate) fn stored_text_bytes(checkpoint: &Checkpoint) -> u64 {
    let texts = checkpoint.texts().ok().and_then(|texts| carried(&texts).ok()).unwrap_or_default();
    let entry = gq_container::layout::TEXT_ENTRY_BYTES as u64;
    texts.iter().map(|text| text.stored_bytes() + entry).sum::<u64>() + 2 * entry
}

/// Texts of the checkpoint as they are stored.
fn carried(texts: &Texts) -> Result<Vec<StoredText>, ConvertError> {
    let mut licence = String::new();
    for file in &texts.licences {
        licence += &format!("==> {} <==\n{}\n", file.name, file.text);
    }
    if licence.is_empty() {
        licence = texts.licence_name.clone().unwrap_or_default();
    }
    let licence = Some(licence).filter(|text| !text.is_empty());
    let kinds = [
        (TextKind::Config, Some(&texts.config)),
        (TextKind::Tokenizer, texts.tokenizer.as_ref()),
        (TextKind::TokenizerConfig, texts.tokenizer_config.as_ref()),
        (TextKind::ChatTemplate, texts.chat_template.as_ref()),
        (TextKind::GenerationConfig, texts.generation_config.as_ref()),
        (TextKind::SpecialTokensMap, texts.special_tokens_map.as_ref()),
        (TextKind::Licence, licence.as_ref()),
    ];
    let present = kinds.into_iter().filter_map(|(kind, text)| Some((kind, text?)));
    present.map(|(kind, text)| Ok(StoredText::new(kind, text)?)).collect()
}

fn spec(step: &Step) -> TensorSpec {
    TensorSpec {
        name: step.tensor.clone(),
        shape: step.shape.clone(),
        encoding: step.encoding,
        rotation: step.rotation,
        source_dtype: step.source_dtype,
    }
}

/// The journal's entry as the container's; `None` when it is not this step's.
fn stored(entry: &Entry, step: &Step) -> Option<TensorEntry> {
    let spec = spec(step);
    Some(TensorEntry {
        name: spec.name,
        shape: spec.shape,
        encoding: spec.encoding,
        rotation: spec.rotation,
        source_dtype: spec.source_dtype,
        offset: entry.offset,
        bytes: entry.bytes,
        sha256: digest_of(&entry.sha256)?,
    })
}

fn fingerprint(plan: &Plan, checkpoint: &Checkpoint, texts: &Texts) -> Fingerprint {
    let mut facts = Sha256::new();
    for text in [Some(&texts.config), texts.tokenizer.as_ref(), texts.tokenizer_config.as_ref()]
        .into_iter()
        .chain([
            texts.chat_template.as_ref(),
            texts.generation_config.as_ref(),
            texts.special_tokens_map.as_ref(),
        ])
        .chain(texts.licences.iter().map(|file| Some(&file.text)))
    {
        facts.update(text.map_or(u64::MAX, |text| text.len() as u64).to_le_bytes());
        facts.update(text.map_or("", String::as_str));
    }
    for tensor in checkpoint.tensors() {
        facts.update(format!("{:?} {:?} {} {}\n", tensor.name, tensor.shape, tensor.file, tensor.offset));
        for piece in &tensor.pieces {
            facts.update(format!("{} {}\n", piece.file, piece.offset));
        }
    }
    let weights = checkpoint.files().iter().filter(|file| file.kind == FileKind::Weights);
    Fingerprint {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        policy: plan.policy.clone(),
        files: weights.map(|file| (file.name.clone(), file.bytes)).collect(),
        adapters: checkpoint.adapters().iter().map(Adapter::identity).collect(),
        facts: hex::encode(facts.finalize()),
    }
}

/// Removes what an interrupted conversion to `path` left next to it.
pub(crate) fn discard(path: &Path) -> Result<(), ConvertError> {
    for stale in [journal_path(path), partial_path(path)] {
        match gq_files::remove(&stale) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(ConvertError::Read { path: stale, source });
            }
            _ => {}
        }
    }
    Ok(())
}

/// `path.journal`.
fn journal_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path.as_os_str());
    name.push(".journal");
    PathBuf::from(name)
}
