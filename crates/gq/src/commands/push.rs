//! `gq push`: a folder becomes one commit of a repository on the Hub.

use crate::failure::Failure;
use crate::global::Global;
use crate::hub::{self, Bar};
use crate::table::Table;
use crate::units;
use gq_hub::{Globs, PushOptions, PushPlan, PushState, RepoId};
use std::path::PathBuf;

/// Upload a folder, such as a release, to a model repository on the Hub, in one commit.
///
/// The repository is made when it does not exist. What it has already is not sent again.
/// Files that the folder does not have are left as they are.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  gq push ./smol-release me/SmolLM2-135M-gq --dry-run
  gq push ./smol-release me/SmolLM2-135M-gq --private

HF_TOKEN, or the token file of `hf auth login`, must hold a token that may write.
The folder is a plain one: `hf upload me/SmolLM2-135M-gq ./smol-release` does the same.")]
pub struct PushArgs {
    /// Folder.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Repository: ORG/NAME.
    #[arg(value_name = "REPO")]
    repo: String,
    /// Branch.
    #[arg(long, value_name = "NAME", default_value = "main")]
    revision: String,
    /// Upload only the files that match; repeatable, `*` also matches `/`.
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,
    /// Leave out the files that match; repeatable.
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// Make the repository private, if it has to be made.
    #[arg(long)]
    private: bool,
    /// Commit message.
    #[arg(short, long, value_name = "TEXT", default_value = "Upload with gq")]
    message: String,
    /// Compare the folder with the repository, show what would be sent, and stop.
    #[arg(long)]
    dry_run: bool,
}

pub fn run(args: &PushArgs, global: &Global) -> Result<(), Failure> {
    let found = std::fs::metadata(&args.folder).map_err(|e| Failure::io(&args.folder, &e))?;
    if !found.is_dir() {
        return Err(gq_hub::HubError::NotAFile { path: args.folder.clone() }.into());
    }
    let repo = RepoId::new(&args.repo)?;
    let hub = hub::connect()?;
    let options = PushOptions {
        revision: args.revision.clone(),
        files: Globs { include: args.include.clone(), exclude: args.exclude.clone() },
        summary: args.message.clone(),
        private: args.private,
        ..PushOptions::default()
    };
    let output = global.output();
    let talk = |event: gq_hub::Event<'_>| hub::chatter(&event, output);
    let plan = hub.plan_push(&repo, &args.folder, &options, &talk)?;
    if args.dry_run {
        return show(&plan, global);
    }
    let bar = Bar::new("push", plan.send_bytes(), global);
    let outcome = hub.push(&plan, &options, &|event| bar.event(&event));
    let (seconds, _) = bar.finish();
    let report = outcome?;
    if output.json {
        let mut document = document(&plan);
        document["commit"] = report.commit.clone().into();
        document["committed_files"] = report.committed.into();
        document["lfs_bytes"] = report.lfs_bytes.into();
        document["url"] = report.url.clone().into();
        document["seconds"] = seconds.into();
        return output.document(&document);
    }
    let done = match report.committed {
        0 => "nothing to send: the repository has every file".to_owned(),
        n => format!("{n} files in one commit, {} of large files sent", units::bytes(report.lfs_bytes)),
    };
    output.note(&format!("{repo}: {done} in {}", units::seconds(seconds)));
    output.data(&format!("{}\n", report.url))
}

fn state(state: PushState) -> &'static str {
    match state {
        PushState::Same => "same",
        PushState::Changed => "changed",
        PushState::New => "new",
    }
}

fn show(plan: &PushPlan, global: &Global) -> Result<(), Failure> {
    let output = global.output();
    if output.json {
        return output.document(&document(plan));
    }
    let mut table = Table::new(&["<file", "bytes", "<against the repository"]);
    for file in &plan.files {
        table.row([units::printable(&file.path), units::count(file.size), state(file.state).to_owned()]);
    }
    output.data(&format!(
        "{}\n{}{}: {} of {} files to send, {}\n",
        table.render(),
        plan.repo,
        if plan.create { " (to be made)" } else { "" },
        plan.to_send().count(),
        plan.files.len(),
        units::bytes(plan.send_bytes()),
    ))
}

fn document(plan: &PushPlan) -> serde_json::Value {
    let files = plan.files.iter().map(|file| {
        serde_json::json!({
            "path": file.path, "bytes": file.size, "sha256": file.sha256.to_hex(), "state": state(file.state),
        })
    });
    serde_json::json!({
        "repo": plan.repo.as_str(),
        "create": plan.create,
        "parent": plan.parent,
        "files": files.collect::<Vec<_>>(),
        "to_send": plan.send_bytes(),
    })
}
