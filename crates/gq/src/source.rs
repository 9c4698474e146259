//! What a SRC on the command line is: a checkpoint directory or a file, here, in the Hub's cache or on the Hub.

use crate::adapters::Adapters;
use crate::explain::tell;
use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::options::kinds::{Activations, Kv};
use crate::output::Output;
use crate::sums::{self, SUMS};
use crate::{hub, looks, units};
use gq_checkpoint::{Adapter, Checkpoint, CheckpointError, ModelSpec, StandIn};
use gq_container::Container;
use gq_convert::{Origin, Plan, Step};
use gq_eval::{Computed, Sizes, checkpoint_sizes, container_sizes};
use gq_hub::{Globs, Hub, HubError, Located, PullOptions, RepoRef, Snapshot};
use gq_model::{ActivationMode, Model, RunOptions};
use gq_text::{IdDisagreement, ModelTexts, Tokenizer, id_disagreements};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A SRC, found on this disk.
pub struct Found {
    /// The folder or file.
    pub path: PathBuf,
    /// What people call it: the last part of what was given, without directories, revisions and commits.
    pub name: String,
    /// The repository and commit it came from, when it came from one.
    pub origin: Option<Origin>,
}

/// Where a snapshot came from.
fn origin(snapshot: &Snapshot) -> Origin {
    Origin { repo: snapshot.repo.to_string(), revision: snapshot.commit.clone() }
}

/// Finds what was given: a path, a repository in the Hub's cache, or one on the Hub, which is fetched.
///
/// Offline first: the network is used for `hf://` and `ORG/NAME` only, when the cache lacks files of it.
pub fn find(given: &Path, global: &Global) -> Result<Found, Failure> {
    let missing = match std::fs::metadata(given) {
        Ok(found) if !found.is_file() && !found.is_dir() => {
            let given = units::printable(&given.to_string_lossy());
            let message =
                format!("{given} is a pipe or a device: a model is read in any order, and more than once");
            let failure = Failure::new(Exit::Input, "source.special", message);
            return Err(failure.at(given).limit("a file or a folder"));
        }
        Ok(_) => {
            let absolute = given.canonicalize().unwrap_or_else(|_| given.to_owned());
            let name =
                absolute.file_name().map_or_else(|| "model".to_owned(), |n| n.to_string_lossy().into_owned());
            return Ok(Found { path: given.to_owned(), name, origin: None });
        }
        Err(error) => Failure::io(given, &error),
    };
    let Some(text) = given.to_str().filter(|text| names_a_repository(text)) else { return Err(missing) };
    let hub = hub::connect()?;
    let (reference, exact) = match hub.locate(text) {
        Ok(Located::Here(source)) => {
            let name = source.snapshot.as_ref().map_or(text, |s| s.repo.name()).to_owned();
            let origin = source.snapshot.as_ref().map(origin);
            return Ok(Found { path: source.path, name, origin });
        }
        // A single word is a path that is missing unless the cache knows it.
        Ok(Located::Remote(_)) if !text.contains('/') => return Err(missing),
        Ok(Located::Remote(reference)) if hub.config().offline => {
            let what = format!("{}@{}", reference.repo, reference.revision());
            return Err(both_readings(text, HubError::Offline { what }));
        }
        Ok(Located::Partly { snapshot, missing, wanted, .. }) if hub.config().offline => {
            return Err(HubError::Incomplete { repo: snapshot.repo, missing, wanted }.into());
        }
        Ok(Located::Remote(reference) | Located::Partly { reference, .. }) => {
            let exact = reference.path.clone();
            (reference, exact)
        }
        Err(HubError::NotFound { .. }) => return Err(missing),
        Err(error) => return Err(both_readings(text, error)),
    };
    let files = match &exact {
        Some(path) => Globs::including(&[path.clone(), format!("{path}/")]),
        None => Globs::model(),
    };
    fetch(&hub, &reference, files, text, global)
}

/// Finds what was given to be checked as a whole: of a repository every file, not only those of a checkpoint.
///
/// Offline first: a release in the cache that has all files of its list is taken as it is.
pub fn find_release(given: &Path, global: &Global) -> Result<Found, Failure> {
    let text = given.to_str().filter(|text| !given.exists() && text.starts_with("hf://"));
    let Some(text) = text else { return find(given, global) };
    let hub = hub::connect()?;
    let (reference, snapshot) = match hub.locate(text)? {
        Located::Here(source) => match source.snapshot {
            Some(snapshot) => (RepoRef::parse(text)?, Some(snapshot)),
            None => return find(given, global),
        },
        Located::Partly { reference, snapshot, .. } => (reference, Some(snapshot)),
        Located::Remote(reference) => (reference, None),
    };
    if reference.path.is_some() {
        return find(given, global);
    }
    match snapshot.filter(|snapshot| hub.config().offline || is_whole(&snapshot.dir)) {
        Some(snapshot) => {
            let name = snapshot.repo.name().to_owned();
            Ok(Found { path: snapshot.dir.clone(), name, origin: Some(origin(&snapshot)) })
        }
        None if hub.config().offline => find(given, global),
        None => fetch(&hub, &reference, Globs::default(), text, global),
    }
}

/// Whether every file that a release lists is there.
fn is_whole(dir: &Path) -> bool {
    let sums = std::fs::read_to_string(dir.join(SUMS)).ok();
    let listed = sums.and_then(|text| sums::parse(&text));
    listed.is_some_and(|listed| listed.iter().all(|(name, _)| dir.join(name).exists()))
}

/// Fetches files of a repository.
fn fetch(
    hub: &Hub,
    reference: &RepoRef,
    files: Globs,
    text: &str,
    global: &Global,
) -> Result<Found, Failure> {
    let output = global.output();
    let options = PullOptions { files, ..PullOptions::default() };
    let talk = |event: gq_hub::Event<'_>| hub::chatter(&event, output);
    let plan = hub.plan_pull(&reference.repo, reference.revision(), &options, &talk);
    let plan = plan.map_err(|error| both_readings(text, error))?;
    let commit = plan.commit.get(..12).unwrap_or(&plan.commit);
    output.note(&format!("fetching {} at {commit}: {}", plan.repo, units::bytes(plan.fetch_bytes())));
    let (snapshot, ..) = hub::pull(hub, &plan, &options, global)?;
    let path = reference.path.as_ref().map_or(snapshot.dir.clone(), |path| snapshot.dir.join(path));
    Ok(Found { path, name: snapshot.repo.name().to_owned(), origin: Some(origin(&snapshot)) })
}

/// A failure to find a repository, where the text may have been meant as a path.
fn both_readings(text: &str, error: HubError) -> Failure {
    let failure = Failure::from(error);
    match text.starts_with("hf://") {
        true => failure,
        false => {
            let text = units::printable(text);
            failure.prefixed(&format!("no file or folder {text} here; as hf://{text}: "))
        }
    }
}

/// Whether a text that is no path here can mean a repository: `hf://…`, `ORG/NAME[@REV]`, or a cached `NAME`.
fn names_a_repository(text: &str) -> bool {
    let file = [".gq", ".gguf", ".safetensors", ".json", ".txt"].iter().any(|end| text.ends_with(end));
    text.starts_with("hf://") || !file
}

/// Reads a text that was given; a pointer in its place is no text.
pub fn text_bytes(path: &Path) -> Result<Vec<u8>, Failure> {
    let bytes = std::fs::read(path).map_err(|e| Failure::io(path, &e))?;
    match StandIn::recognize(&bytes) {
        Some(what @ (StandIn::LfsPointer { .. } | StandIn::AnnexPointer)) => {
            Err(CheckpointError::StandIn { path: path.to_owned(), what }.into())
        }
        _ => Ok(bytes),
    }
}

/// Whether a path is a checkpoint: a directory, or a file that begins as a GGUF does.
pub fn is_checkpoint(path: &Path) -> Result<bool, Failure> {
    let failed = |error: std::io::Error| Failure::io(path, &error);
    if std::fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(true);
    }
    if let Some(what) = StandIn::of_file(path).map_err(failed)? {
        return Err(CheckpointError::StandIn { path: path.to_owned(), what }.into());
    }
    let mut magic = Vec::new();
    std::fs::File::open(path).map_err(failed)?.take(4).read_to_end(&mut magic).map_err(failed)?;
    Ok(magic == *b"GGUF")
}

/// Opens a checkpoint directory or a GGUF.
pub fn checkpoint(path: &Path, global: &Global) -> Result<Checkpoint, Failure> {
    if !is_checkpoint(path)? {
        let seems = looks::like(path);
        let place = path.display();
        let found = seems.map_or_else(String::new, |seems| format!("; this is {seems}"));
        let message = format!("{place}: a checkpoint directory or a GGUF is expected{found}");
        let code = if looks::is_gq(path) { "source.converted" } else { "source.unknown" };
        let failure = Failure::new(Exit::Input, code, message).at(place);
        return Err(failure.limit("a directory or a GGUF").actual(seems.unwrap_or("another file")));
    }
    Ok(Checkpoint::open_with(path, &global.reading.options())?)
}

/// Refuses to quantize the blocks of a GGUF or integer codes, unless that was asked for.
pub fn refuse_quantized(checkpoint: &Checkpoint, allowed: bool) -> Result<(), Failure> {
    let coded = checkpoint
        .tensors()
        .iter()
        .any(|tensor| tensor.is_integers() || tensor.gguf.is_some_and(|s| s.kind().is_quantized()));
    match checkpoint.quantized() {
        Some(types) if coded && !allowed => {
            let place = checkpoint.dir().display();
            let message = format!(
                "{place}: the weights are quantized already ({types}); a second time adds to the loss"
            );
            let failure = Failure::new(Exit::Usage, "source.quantized", message);
            Err(failure.at(place).limit("floating point weights").actual(types))
        }
        _ => Ok(()),
    }
}

/// Refuses a plan that rounds what the source has as 4-bit floats, unless that was asked for; kept as it is, nothing is
/// lost.
pub fn refuse_rounding(checkpoint: &Checkpoint, plan: &Plan, allowed: bool) -> Result<(), Failure> {
    let rounds = |step: &&Step| {
        let source = checkpoint.tensor(&step.tensor);
        // What an adapter changes is on no grid any more.
        let coded = source.is_some_and(|tensor| tensor.is_mxfp4() && !checkpoint.is_merged(tensor));
        coded && !step.encoding.is_grid() && !step.encoding.is_exact()
    };
    let rounded = plan.steps.iter().filter(rounds).count();
    let Some(first) = plan.steps.iter().find(rounds).filter(|_| !allowed) else { return Ok(()) };
    let message = format!(
        "{}: {rounded} tensors are stored as mxfp4 in the source, and {} would be rounded again, to {}",
        checkpoint.dir().display(),
        first.tensor,
        first.encoding
    );
    let failure = Failure::new(Exit::Usage, "source.mxfp4", message).at(&first.tensor);
    Err(failure.limit("mxfp4").actual(first.encoding))
}

/// Opens a checkpoint directory or a GGUF and merges adapters into it.
pub fn checkpoint_with(path: &Path, loras: &Adapters, global: &Global) -> Result<Checkpoint, Failure> {
    let open = |(given, weight)| Ok(Adapter::open(find(given, global)?.path, weight)?);
    let adapters = loras.given().map(open).collect::<Result<Vec<_>, Failure>>()?;
    let checkpoint = checkpoint(path, global)?.with_adapters_and_texts(adapters, &loras.texts_from())?;
    tell(checkpoint.notes(), global.output());
    Ok(checkpoint)
}

/// Says what a checkpoint lacks to be run on text.
pub fn warn_incomplete(checkpoint: &Checkpoint, output: Output) {
    if !checkpoint.has_tokenizer() {
        output.warn("the checkpoint has no tokenizer.json: the file can be evaluated against reference outputs, not on text");
    }
}

/// Tries a checkpoint's tokenizer before anything is made with it, and says where its files name different tokens.
pub fn try_checkpoints_tokenizer(
    checkpoint: &Checkpoint,
    output: Output,
) -> Result<Option<Tokenizer>, Failure> {
    refuse_tekken_alone(checkpoint)?;
    let texts = ModelTexts::from_checkpoint(checkpoint)?;
    let tokenizer = try_tokenizer(&texts, checkpoint.spec())?;
    for found in tokenizer.iter().flat_map(|tokenizer| id_disagreements(&texts, checkpoint.spec(), tokenizer))
    {
        output.warn(&disagreement(&found));
    }
    Ok(tokenizer)
}

/// Refuses a checkpoint whose only tokenizer is in Mistral's own format: what is made of it would read no text.
fn refuse_tekken_alone(checkpoint: &Checkpoint) -> Result<(), Failure> {
    const TEKKEN: &str = "tekken.json";
    let place = checkpoint.dir().display();
    if checkpoint.has_tokenizer() || !checkpoint.dir().join(TEKKEN).is_file() {
        return Ok(());
    }
    let message =
        format!("{place}: the tokenizer is {TEKKEN}, which gq does not read; there is no tokenizer.json");
    Err(Failure::new(Exit::Input, "tokenizer.tekken", message)
        .at(place)
        .limit("tokenizer.json")
        .actual(TEKKEN))
}

fn disagreement(found: &IdDisagreement) -> String {
    let files = [
        ("config.json", &found.config),
        ("generation_config.json", &found.generation),
        (found.tokenizer_file, &found.tokenizer),
    ];
    let said =
        files.iter().filter(|(_, ids)| !ids.is_empty()).map(|(file, ids)| format!("{ids:?} in {file}"));
    let said = said.collect::<Vec<_>>().join(", ");
    let effect = match found.name {
        "eos" => {
            "gq ends a text at each of them, transformers at those of generation_config.json if it has any"
        }
        "bos" => "text begins with the tokenizer's",
        _ => "padding does not change what a model says",
    };
    format!("{}_token is {said}: {effect}", found.name)
}

/// Loads a tokenizer and tries it on a short text; `None` where there is none.
pub fn try_tokenizer(texts: &ModelTexts, spec: &ModelSpec) -> Result<Option<Tokenizer>, Failure> {
    Ok(texts.tokenizer.is_some().then(|| Tokenizer::new(texts, spec)).transpose()?)
}

/// A model with its sizes.
pub struct Loaded {
    /// Ready to run.
    pub model: Model,
    /// Its bytes and weights.
    pub sizes: Sizes,
    origins: Origins,
}

/// What a model was loaded from, and reads from as it runs.
enum Origins {
    Checkpoint(Arc<Checkpoint>),
    Container(Arc<Container>),
}

impl Loaded {
    /// What computes with it, for a report.
    pub fn computed(&self) -> Computed {
        let activations = match self.model.options().activations {
            ActivationMode::Int8 => "int8",
            ActivationMode::F32 => "f32",
        };
        let model_sha256 = match &self.origins {
            Origins::Checkpoint(_) => String::new(),
            Origins::Container(container) => container.file_sha256().to_string(),
        };
        let program = concat!("gq ", env!("CARGO_PKG_VERSION")).to_owned();
        let device = self.model.gpu().map(|(gpu, _)| gpu.name).unwrap_or_default();
        Computed { program, activations: activations.to_owned(), model_sha256, device }
    }

    /// Checks that what was computed is of what is there.
    pub fn check_unchanged(&self) -> Result<(), Failure> {
        match &self.origins {
            Origins::Checkpoint(checkpoint) => Ok(checkpoint.check_unchanged()?),
            Origins::Container(container) => Ok(container.check_unchanged()?),
        }
    }
}

/// Loads a checkpoint directory, a GGUF or a `.gq` file. Codes meet int8 activations, floats f32, unless told otherwise.
pub fn model(path: &Path, activations: Option<Activations>, global: &Global) -> Result<Loaded, Failure> {
    model_with(path, &Adapters::default(), activations, global)
}

/// The same with adapters merged into a checkpoint.
pub fn model_with(
    path: &Path,
    loras: &Adapters,
    activations: Option<Activations>,
    global: &Global,
) -> Result<Loaded, Failure> {
    model_how(path, loras, activations, Kv::F32, global)
}

/// The same with keys and values stored as asked for.
pub fn model_how(
    path: &Path,
    loras: &Adapters,
    activations: Option<Activations>,
    kv: Kv,
    global: &Global,
) -> Result<Loaded, Failure> {
    let mode = |default| match activations {
        None => default,
        Some(Activations::Int8) => ActivationMode::Int8,
        Some(Activations::F32) => ActivationMode::F32,
    };
    let options = |activations| -> Result<RunOptions, Failure> {
        Ok(RunOptions { level: global.isa()?, activations, kv: kv.into() })
    };
    if is_checkpoint(path)? {
        let checkpoint = Arc::new(checkpoint_with(path, loras, global)?);
        let sizes = checkpoint_sizes(&checkpoint);
        let model = Model::from_checkpoint(checkpoint.clone(), options(mode(ActivationMode::F32))?)?;
        return Ok(Loaded { model, sizes, origins: Origins::Checkpoint(checkpoint) });
    }
    if !loras.is_empty() {
        let message = format!("{}: adapters are merged into checkpoints, not into .gq files", path.display());
        let failure = Failure::new(Exit::Usage, "adapter.not_a_checkpoint", message);
        return Err(failure.at(path.display()).limit("a checkpoint directory").actual("a file"));
    }
    let container = Arc::new(Container::open(path)?);
    let model = Model::from_container(container.clone(), options(mode(ActivationMode::Int8))?)?;
    let sizes = container_sizes(&container, model.spec());
    Ok(Loaded { model, sizes, origins: Origins::Container(container) })
}

/// Runs `work` with the threads that were asked for.
pub fn with_threads<T: Send>(global: &Global, work: impl FnOnce() -> T + Send) -> Result<T, Failure> {
    Ok(threads(global)?.install(work))
}

/// The threads that were asked for.
pub fn threads(global: &Global) -> Result<rayon::ThreadPool, Failure> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(global.threads()).build();
    pool.map_err(|e| Failure::new(Exit::Environment, "threads", format!("threads: {e}")))
}
