//! A directory in the Hub's layout or a GGUF, opened as facts: files, specification, tensors. Weights stay on disk.

use crate::assembly::Assembly;
use crate::catalog::{Catalog, Shard};
use crate::family::{EMBEDDING, HEAD};
use crate::folder::{list_dir, list_templates, only_gguf, source_file};
use crate::gguf::{GgmlType, Gguf, GgufError, Storage};
use crate::gguf_model::GgufModel;
use crate::keys::Ignored;
use crate::lora::{Adapter, AdapterError, Merge, Resize, TakenTexts, TextsFrom};
use crate::parse_config::{untied, without_keys};
use crate::scale::WeightScale;
use crate::shards::{INDEX, Weights, open_weights, refuse_unfinished, weights};
use crate::texts::{Texts, is_text_name, read_text, read_texts};
use crate::{
    CheckpointError, ConfigError, FileKind, ModelSpec, Note, OpenOptions, ReadError, Role, SourceFile,
    SourceTensor, TensorError, limits, parse_config_accepting,
};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};

const CONFIG: &str = "config.json";

const ADAPTER_CONFIG: &str = "adapter_config.json";

/// A checkpoint: everything is known about its tensors, nothing of them is in memory but F8 scales.
#[derive(Debug)]
pub struct Checkpoint {
    dir: PathBuf,
    files: Vec<SourceFile>,
    handles: Vec<File>,
    spec: ModelSpec,
    tensors: Vec<SourceTensor>,
    by_name: HashMap<String, usize>,
    scales: HashMap<String, WeightScale>,
    merge: Option<Merge>,
    notes: Vec<Note>,
    taken: Option<TakenTexts>,
    /// Whether the vocabulary has other rows than the configuration says.
    resized: bool,
    /// Of a GGUF, whose metadata they are made from; a directory's are read when they are asked for.
    texts: Option<Texts>,
    /// The configuration, where it is not that of the file: without keys that were accepted, or untied.
    config: Option<String>,
}

impl Checkpoint {
    /// Opens and validates a directory, or a GGUF (of a split, any one of its files). A directory without
    /// `config.json` stands for the one GGUF that it holds.
    ///
    /// Reads `config.json`, the index and the headers; of tensors only F8 scales, and a head that the
    /// configuration ties to the embedding (to compare them).
    ///
    /// # Errors
    /// When a file is missing, broken or contradicts another, or the configuration is not understood in full.
    pub fn open(path: impl AsRef<Path>) -> Result<Checkpoint, CheckpointError> {
        Checkpoint::open_with(path, &OpenOptions::default())
    }

    /// The same, with what the user says where the file does not.
    ///
    /// # Errors
    /// As [`open`](Checkpoint::open).
    pub fn open_with(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Checkpoint, CheckpointError> {
        let dir = path.as_ref();
        if dir.is_file() {
            let failed = |source| CheckpointError::gguf(dir, source);
            return Checkpoint::from_gguf(dir, Gguf::open(dir).map_err(failed)?, options).map_err(failed);
        }
        let names = list_dir(dir)?;
        if !names.iter().any(|name| name == CONFIG) {
            return match only_gguf(dir, &names)? {
                Some(path) => Checkpoint::open_with(path, options),
                None => Err(no_config(dir, &names)),
            };
        }
        // Looked at before they are read: what changes from here on is seen by `check_unchanged`.
        let mut others = Vec::new();
        let templates = list_templates(dir)?;
        for name in names.iter().chain(&templates).filter(|name| *name == INDEX || is_text_name(name)) {
            let kind = if name == INDEX { FileKind::Index } else { FileKind::Text };
            others.push(source_file(dir, name, kind)?);
        }
        let path = dir.join(CONFIG);
        let config = read_text(&path, limits::CONFIG_BYTES)?;
        let in_config = |source: ConfigError| CheckpointError::Config { path: path.clone(), source };
        let (spec, ignored) = parse_config_accepting(&config, &options.ignored_keys).map_err(in_config)?;

        let Weights { names: used, index, whole, mut notes } = weights(dir, &names)?;
        let mut handles = Vec::new();
        let mut files = Vec::new();
        let mut shards = Vec::new();
        for name in used {
            let (handle, file, header) = open_weights(dir, &name, &names)?;
            handles.push(handle);
            files.push(file);
            shards.push(Shard { name, header });
        }
        let catalog = match Catalog::new(&spec, index.as_ref(), &shards) {
            // The files are whole by their names, and every tensor is in them once: the index alone is wrong.
            Err(error) if whole && error.is_of_index() => match Catalog::new(&spec, None, &shards) {
                Ok(catalog) => {
                    notes.push(Note::StaleIndex { path: dir.join(INDEX), why: error.to_string() });
                    catalog
                }
                Err(_) => return Err(error.into()),
            },
            other => other?,
        };
        if !catalog.prefix.is_empty() {
            notes.push(Note::Prefix { prefix: catalog.prefix.clone() });
        }
        notes.extend(catalog.lone_head.clone().map(|head| Note::HeadIsEmbedding { head }));
        notes.extend(Note::of_activation_scales(&catalog.tensors));
        notes.extend(Note::of_keys(&path, &ignored));
        notes.extend(Note::of_card(dir));
        files.append(&mut others);
        let mut checkpoint = Checkpoint::assemble(dir.to_owned(), files, handles, spec, catalog)?;
        checkpoint.notes = notes;
        let accepted = ignored.iter().filter(|ignored| ignored.why == Ignored::Accepted);
        let accepted: Vec<&str> = accepted.map(|ignored| ignored.key.as_str()).collect();
        let mut plain = without_keys(&config, &accepted).map_err(in_config)?;
        if checkpoint.untie()? {
            plain = untied(&plain).map_err(in_config)?;
        }
        checkpoint.config = Some(plain).filter(|plain| *plain != config);
        Ok(checkpoint)
    }

    fn from_gguf(path: &Path, gguf: Gguf, options: &OpenOptions) -> Result<Checkpoint, GgufError> {
        let GgufModel { spec, texts, tensors, ignored } = GgufModel::new(&gguf, options)?;
        let (files, handles) = gguf.into_files().unzip();
        let mut checkpoint = Checkpoint::bare(path.to_owned(), files, handles, spec, tensors);
        checkpoint.texts = Some(texts);
        checkpoint.notes = Note::of_keys(path, &ignored);
        Ok(checkpoint)
    }

    /// Without scales, adapters and texts.
    pub(crate) fn bare(
        dir: PathBuf,
        files: Vec<SourceFile>,
        handles: Vec<File>,
        spec: ModelSpec,
        tensors: Vec<SourceTensor>,
    ) -> Checkpoint {
        let names = tensors.iter().enumerate();
        let by_name = names.map(|(index, tensor)| (tensor.name.clone(), index)).collect();
        let (scales, merge, notes) = (HashMap::new(), None, Vec::new());
        let (taken, resized, texts, config) = (None, false, None, None);
        Checkpoint {
            dir,
            files,
            handles,
            spec,
            tensors,
            by_name,
            scales,
            merge,
            notes,
            taken,
            resized,
            texts,
            config,
        }
    }

    fn assemble(
        dir: PathBuf,
        files: Vec<SourceFile>,
        handles: Vec<File>,
        spec: ModelSpec,
        catalog: Catalog,
    ) -> Result<Checkpoint, CheckpointError> {
        let mut checkpoint = Checkpoint::bare(dir, files, handles, spec, catalog.tensors);
        for source in catalog.scales {
            let Some(tensor) = checkpoint.tensors.get(source.scale) else { continue };
            let mut values = vec![0.0; tensor.rows() * tensor.cols()];
            checkpoint.read_rows_f32(tensor, 0..tensor.rows(), &mut values)?;
            let scale = WeightScale { convention: source.convention, first: source.first, values };
            checkpoint.scales.insert(source.weight, scale);
        }
        Ok(checkpoint)
    }

    /// The directory, or the GGUF.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Everything the graph needs to know.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// All tensors of all files, sorted by file and offset; those the graph does not use as well.
    pub fn tensors(&self) -> &[SourceTensor] {
        &self.tensors
    }

    /// The tensor with this canonical name.
    pub fn tensor(&self, name: &str) -> Option<&SourceTensor> {
        self.by_name.get(name).and_then(|&index| self.tensors.get(index))
    }

    /// Files with their sizes: first the weights, in the order of [`SourceTensor::file`], then index and texts.
    pub fn files(&self) -> &[SourceFile] {
        &self.files
    }

    /// What was noticed on opening, for people to be told.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// Checks that no file has changed since it was opened: what was read is what is there.
    ///
    /// # Errors
    /// [`ReadError::Changed`] with the first file that was written to, replaced or removed.
    pub fn check_unchanged(&self) -> Result<(), ReadError> {
        self.files.iter().try_for_each(|file| file.stamp.check(&file.path))?;
        let adapters = self.adapters().iter().flat_map(Adapter::files);
        adapters
            .chain(self.taken.iter().flat_map(|taken| &taken.files))
            .try_for_each(|file| file.stamp.check(&file.path))
    }

    /// Whether there is a `tokenizer.json`; without it the checkpoint works on token numbers only.
    pub fn has_tokenizer(&self) -> bool {
        let own = match &self.texts {
            Some(texts) => texts.tokenizer.is_some(),
            None => self.files.iter().any(|file| file.name == "tokenizer.json"),
        };
        own || self.taken.as_ref().is_some_and(|taken| taken.texts.tokenizer.is_some())
    }

    /// Types of matrices that are coded, as GGUF calls them or `int4` and `int8`, with the weights in each, most first;
    /// `None` when none is.
    ///
    /// Coding them again loses twice.
    pub fn quantized(&self) -> Option<String> {
        let (mut weights, mut integers): (HashMap<GgmlType, u64>, BTreeMap<u8, u64>) = Default::default();
        for tensor in &self.tensors {
            if let Some(bits) = tensor.assembly.and_then(Assembly::integer_bits) {
                *integers.entry(bits).or_default() += tensor.elements();
            }
            let coded = tensor.is_mxfp4().then_some(GgmlType::MXFP4);
            let kind = tensor.gguf.map(Storage::kind).filter(|kind| kind.is_quantized()).or(coded);
            if let Some(kind) = kind {
                *weights.entry(kind).or_default() += tensor.elements();
            }
        }
        let mut weights: Vec<(GgmlType, u64)> = weights.into_iter().collect();
        weights.sort_by_key(|&(kind, weights)| (std::cmp::Reverse(weights), kind.code()));
        let kinds = weights.iter().map(|(kind, weights)| format!("{kind} x {weights}"));
        let integers = integers.iter().map(|(bits, weights)| format!("int{bits} x {weights}"));
        let listed: Vec<String> = kinds.chain(integers).collect();
        (!listed.is_empty()).then(|| listed.join(", "))
    }

    /// Reads the texts next to the weights.
    ///
    /// # Errors
    /// When one cannot be read, is beyond its cap, is not UTF-8, or hides its chat template in broken JSON.
    pub fn texts(&self) -> Result<Texts, CheckpointError> {
        let mut texts = self.own_texts()?;
        if let Some(taken) = &self.taken {
            texts = taken.over(texts);
        }
        if self.resized {
            let json = |source| CheckpointError::TextJson { path: self.dir.join(CONFIG), source };
            texts = texts.with_vocabulary(self.spec.vocab_size).map_err(json)?;
        }
        Ok(texts)
    }

    /// The texts next to the weights, as they are there.
    fn own_texts(&self) -> Result<Texts, CheckpointError> {
        if let Some(texts) = &self.texts {
            return Ok(texts.clone());
        }
        let texts = self.files.iter().filter(|file| file.kind == FileKind::Text);
        let mut texts = read_texts(&texts.map(|file| file.path.clone()).collect::<Vec<_>>())?;
        texts.config = self.config.clone().unwrap_or(texts.config);
        Ok(texts)
    }

    /// Texts that are not the checkpoint's own, and where they are from.
    pub fn taken_texts(&self) -> Option<&TakenTexts> {
        self.taken.as_ref()
    }

    /// Bytes of memory that the texts next to the weights take once they are read; those of a GGUF are held twice.
    pub fn text_bytes(&self) -> u64 {
        let files = self.files.iter().filter(|file| file.kind == FileKind::Text);
        let taken = self.taken.as_ref().map_or(0, TakenTexts::bytes);
        let twice = 2 * (self.texts.as_ref().map_or(0, Texts::bytes) + taken);
        files.map(|file| file.bytes).fold(twice, u64::saturating_add)
    }

    /// The same checkpoint with adapters merged in: every read of rows gives the merged ones. Tokenizer and chat
    /// template are the adapters', where they have some.
    ///
    /// # Errors
    /// Those of [`with_adapters_and_texts`](Checkpoint::with_adapters_and_texts).
    pub fn with_adapters(self, adapters: Vec<Adapter>) -> Result<Checkpoint, AdapterError> {
        self.with_adapters_and_texts(adapters, &TextsFrom::Adapters)
    }

    /// The same, with tokenizer and chat template from where it is said.
    ///
    /// # Errors
    /// When an adapter does not fit the tensors, changes one of two tied ones alone, or its texts cannot be taken.
    pub fn with_adapters_and_texts(
        mut self,
        adapters: Vec<Adapter>,
        from: &TextsFrom,
    ) -> Result<Checkpoint, AdapterError> {
        self.notes.extend(adapters.iter().filter_map(Adapter::note));
        if let Some(resize) = Resize::find(&adapters, &self.spec, &self.tensors)? {
            self.notes.push(resize.note(&adapters, self.spec.vocab_size));
            self.resize(&resize, &adapters)?;
        }
        if *from != TextsFrom::Adapters || adapters.iter().any(Adapter::has_texts) {
            let own = self.own_texts()?;
            let (taken, notes) = TakenTexts::choose(from, &adapters, &own, self.spec.vocab_size)?;
            self.taken = taken;
            self.notes.extend(notes);
        }
        self.merge = match adapters.is_empty() {
            true => None,
            false => Some(Merge::new(adapters, &self.spec, &self.tensors)?),
        };
        Ok(self)
    }

    /// Takes the tables of an adapter in the place of its own: its file is one of the files then.
    fn resize(&mut self, resize: &Resize, adapters: &[Adapter]) -> Result<(), AdapterError> {
        let Some(adapter) = adapters.get(resize.adapter) else { return Ok(()) };
        let (file, handle) = adapter.weights()?;
        let number = self.handles.len();
        self.files.insert(number, file);
        self.handles.push(handle);
        resize.apply(number, &mut self.spec, &mut self.tensors);
        let names = self.tensors.iter().enumerate();
        self.by_name = names.map(|(index, tensor)| (tensor.name.clone(), index)).collect();
        self.resized = true;
        Ok(())
    }

    /// Adapters that are merged in.
    pub fn adapters(&self) -> &[Adapter] {
        self.merge.as_ref().map_or(&[], Merge::adapters)
    }

    /// Whether an adapter changes a tensor: then its bytes in the file are not its values.
    pub fn is_merged(&self, tensor: &SourceTensor) -> bool {
        self.merge.as_ref().is_some_and(|merge| merge.changes(&tensor.name))
    }

    /// Bytes of memory that merging takes when this many threads read rows.
    pub fn merge_bytes(&self, threads: usize) -> u64 {
        self.merge.as_ref().map_or(0, |merge| merge.memory_bytes(threads, &self.tensors))
    }

    /// Bytes of memory that the checkpoint takes for good and for reading rows with this many threads: F8 scales, and
    /// what merging takes. Headers are not counted.
    pub fn held_bytes(&self, threads: usize) -> u64 {
        let scales = self.scales.values().map(|scale| 4 * scale.values.len() as u64);
        scales.sum::<u64>() + self.merge_bytes(threads)
    }

    pub(crate) fn merge(&self) -> Option<&Merge> {
        self.merge.as_ref()
    }

    /// Open weight files, in the order of [`SourceTensor::file`].
    pub(crate) fn handles(&self) -> &[File] {
        &self.handles
    }

    /// Scales of an F8 tensor.
    pub(crate) fn scale(&self, tensor: &SourceTensor) -> Option<&WeightScale> {
        self.scales.get(&tensor.name).filter(|_| tensor.scaled)
    }

    /// Runs a head in the file that differs from the embedding as a matrix of its own, although the configuration ties
    /// them: so does the reference. Whether that is so.
    fn untie(&mut self) -> Result<bool, CheckpointError> {
        let head = self.tensor(HEAD.name).filter(|head| head.role == Role::Unused);
        let (Some(head), Some(embedding)) = (head, self.tensor(EMBEDDING.name)) else {
            return Ok(false);
        };
        if head.shape != embedding.shape {
            let (name, actual) = (head.source_name.clone(), head.shape.clone());
            return Err(TensorError::WrongShape { name, actual, expected: embedding.shape.clone() }.into());
        }
        if self.equal(head, embedding)? {
            return Ok(false);
        }
        let (name, embedding) = (head.source_name.clone(), embedding.source_name.clone());
        self.notes.push(Note::Untied { head: name, embedding });
        self.spec.tied_head = false;
        if let Some(head) = self.tensors.iter_mut().find(|tensor| tensor.name == HEAD.name) {
            head.role = Role::Head;
        }
        Ok(true)
    }

    /// Whether two matrices of one shape have the same values.
    fn equal(&self, a: &SourceTensor, b: &SourceTensor) -> Result<bool, ReadError> {
        let step = (1 << 18) / a.cols().max(1) + 1;
        let mut values = (Vec::new(), Vec::new());
        for first in (0..a.rows()).step_by(step) {
            let rows = first..(first + step).min(a.rows());
            values.0.resize(rows.len() * a.cols(), 0.0);
            values.1.resize(rows.len() * a.cols(), 0.0);
            self.read_rows_f32(a, rows.clone(), &mut values.0)?;
            self.read_rows_f32(b, rows, &mut values.1)?;
            if values.0 != values.1 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Why a directory without a configuration is no checkpoint.
fn no_config(dir: &Path, names: &[String]) -> CheckpointError {
    if let Err(unfinished) = refuse_unfinished(dir, names) {
        return unfinished;
    }
    match names.iter().any(|name| name == ADAPTER_CONFIG) {
        true => CheckpointError::IsAdapter { dir: dir.to_owned() },
        false => CheckpointError::NoConfig { dir: dir.to_owned() },
    }
}
