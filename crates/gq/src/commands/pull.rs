//! `gq pull`: a model from the Hub into the cache that the Hub's own tools share.

use crate::failure::Failure;
use crate::global::Global;
use crate::signals::{self, Work};
use crate::table::Table;
use crate::{hub, units};
use gq_hub::{FileState, Globs, Hub, HubError, Located, PullOptions, PullPlan, RepoRef};

/// Fetch a model from the Hub into its cache, which transformers and huggingface_hub share.
///
/// A pull that was interrupted continues where it stopped. Files are verified against the Hub's digests.
/// Without patterns the files of a model or a release are fetched: weights in safetensors or .gq, configuration,
/// tokenizer, licence, checksums; copies of the weights in other formats and folders are left on the Hub.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  gq pull HuggingFaceTB/SmolLM2-135M-Instruct
  gq pull HuggingFaceTB/SmolLM2-135M-Instruct@main --dry-run
  gq pull org/model-gguf --include '*Q8_0*.gguf'

Environment:
  HF_HOME, HF_HUB_CACHE    where the cache is
  HF_TOKEN                 access token, for gated and private repositories; else the token file of `hf auth login`
  HF_ENDPOINT              another Hub
  HF_HUB_OFFLINE           1: never use the network
  HTTPS_PROXY              proxy")]
pub struct PullArgs {
    /// Repository: ORG/NAME, ORG/NAME@REVISION or hf://ORG/NAME@REVISION/PATH.
    #[arg(value_name = "REPO[@REV]")]
    repo: String,
    /// Fetch the files that match instead; repeatable, `*` also matches `/`.
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,
    /// Leave out the files that match; repeatable.
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// Fetch every file of the repository.
    #[arg(long, conflicts_with = "include")]
    all: bool,
    /// Show the files and their sizes and stop.
    #[arg(long)]
    dry_run: bool,
    /// Requests at a time.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    streams: u16,
    /// Bytes per request: what an interruption can cost each stream.
    #[arg(long, value_name = "SIZE", default_value = "8MiB", value_parser = units::parse_bytes)]
    chunk: u64,
}

pub fn run(args: &PullArgs, global: &Global) -> Result<(), Failure> {
    let reference = RepoRef::parse(&args.repo)?;
    let hub = hub::connect()?;
    if hub.config().offline {
        return offline(&hub, args, global);
    }
    let folder = format!("models--{}", reference.repo.to_string().replace('/', "--"));
    let _work = signals::during(Work::that_continues([hub.config().cache_dir.join(folder)]));
    let files = wanted(args, &reference);
    let options = PullOptions {
        files,
        streams: args.streams.into(),
        chunk_bytes: args.chunk.max(4096),
        ..PullOptions::default()
    };
    let output = global.output();
    let talk = |event: gq_hub::Event<'_>| hub::chatter(&event, output);
    let plan = hub.plan_pull(&reference.repo, reference.revision(), &options, &talk)?;
    if args.dry_run {
        return show(&plan, global);
    }
    let (snapshot, seconds, moved) = hub::pull(&hub, &plan, &options, global)?;
    let path = reference.path.map_or(snapshot.dir.clone(), |path| snapshot.dir.join(path));
    if output.json {
        let mut document = document(&plan);
        document["path"] = path.display().to_string().into();
        document["fetched_bytes"] = moved.into();
        document["seconds"] = seconds.into();
        return output.document(&document);
    }
    let rate = units::bytes((moved as f64 / seconds.max(1e-9)) as u64);
    output.note(&format!(
        "{} at {}: {} files, {}; {} fetched in {} ({rate}/s){}",
        plan.repo,
        plan.commit,
        plan.files.len(),
        units::bytes(plan.total_bytes()),
        units::bytes(moved),
        units::seconds(seconds),
        left_out(&plan),
    ));
    output.data(&format!("{}\n", path.display()))
}

/// Files that the arguments ask for.
fn wanted(args: &PullArgs, reference: &RepoRef) -> Globs {
    let mut files = match &reference.path {
        Some(path) => Globs::including(&[path.clone(), format!("{path}/")]),
        None if args.all => Globs::default(),
        None if args.include.is_empty() => Globs::model(),
        None => Globs::including(&args.include),
    };
    if reference.path.is_none() && !args.all && args.include.is_empty() {
        files.include.extend(["*.gq", "SHA256SUMS", "report.html"].map(str::to_owned));
    }
    files.exclude.extend(args.exclude.iter().cloned());
    files
}

/// Without a network a pull can only say where the snapshot is.
fn offline(hub: &Hub, args: &PullArgs, global: &Global) -> Result<(), Failure> {
    let text = match args.repo.starts_with("hf://") {
        true => args.repo.clone(),
        // A folder of that name is not meant.
        false => {
            let reference = RepoRef::parse(&args.repo)?;
            format!("hf://{}@{}", reference.repo, reference.revision().replace('/', "%2F"))
        }
    };
    let source = match hub.locate(&text)? {
        Located::Here(source) => source,
        Located::Partly { snapshot, missing, wanted, .. } => {
            return Err(HubError::Incomplete { repo: snapshot.repo, missing, wanted }.into());
        }
        Located::Remote(reference) => {
            let what = format!("{}@{}", reference.repo, reference.revision());
            return Err(HubError::Offline { what }.into());
        }
    };
    let output = global.output();
    let path = source.path.display().to_string();
    if output.json {
        let commit = source.snapshot.as_ref().map(|s| s.commit.clone());
        return output.document(&serde_json::json!({ "path": path, "commit": commit, "offline": true }));
    }
    output.note("the network is not to be used; this is what the cache has");
    output.data(&format!("{path}\n"))
}

fn left_out(plan: &PullPlan) -> String {
    match plan.skipped_files() {
        0 => String::new(),
        1 => "; 1 other file left on the Hub".to_owned(),
        n => format!("; {n} other files left on the Hub"),
    }
}

fn show(plan: &PullPlan, global: &Global) -> Result<(), Failure> {
    let output = global.output();
    if output.json {
        return output.document(&document(plan));
    }
    let mut table = Table::new(&["<file", "bytes", "<here"]);
    for planned in &plan.files {
        let here = match planned.state {
            FileState::Cached => "all of it".to_owned(),
            FileState::Partial(have) => units::bytes(have),
            FileState::Missing => "nothing".to_owned(),
        };
        table.row([units::printable(&planned.file.path), units::count(planned.file.size), here]);
    }
    output.data(&format!(
        "{}\n{} at {}\n{} files, {} bytes ({}); {} to fetch{}\n",
        table.render(),
        plan.repo,
        plan.commit,
        plan.files.len(),
        units::count(plan.total_bytes()),
        units::bytes(plan.total_bytes()),
        units::bytes(plan.fetch_bytes()),
        left_out(plan),
    ))
}

fn document(plan: &PullPlan) -> serde_json::Value {
    let files = plan.files.iter().map(|planned| {
        let have = match planned.state {
            FileState::Cached => planned.file.size,
            FileState::Partial(have) => have,
            FileState::Missing => 0,
        };
        let file = &planned.file;
        serde_json::json!({
            "path": file.path, "bytes": file.size, "have": have, "digest": file.digest.to_hex(),
        })
    });
    serde_json::json!({
        "repo": plan.repo.as_str(),
        "revision": plan.revision,
        "commit": plan.commit,
        "files": files.collect::<Vec<_>>(),
        "bytes": plan.total_bytes(),
        "to_fetch": plan.fetch_bytes(),
        "left_out": plan.skipped_files(),
    })
}
