//! A folder to the Hub: the repository is made, large files go to LFS, one commit names them all.
//!
//! What the repository has already is left out, and LFS keeps objects by digest, so an interrupted push
//! goes on at the file where it stopped when it is run again.

mod commit;
mod lfs;

use crate::client::{Control, Hub};
use crate::digest::{git_sha1, sha256};
use crate::tree::RemoteFile;
use crate::{CancelToken, FileDigest, Globs, HubError, Progress, PullOptions, RepoId, RetryPolicy};
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// How a folder is pushed.
#[derive(Clone, Debug)]
pub struct PushOptions {
    /// The branch.
    pub revision: String,
    /// Which files of the folder.
    pub files: Globs,
    /// First line of the commit message.
    pub summary: String,
    /// Rest of the commit message.
    pub description: String,
    /// Make the repository private if it has to be made.
    pub private: bool,
    /// Patience with the server.
    pub retry: RetryPolicy,
    /// Stops the transfer.
    pub cancel: CancelToken,
}

impl Default for PushOptions {
    fn default() -> Self {
        PushOptions {
            revision: "main".to_owned(),
            files: Globs::default(),
            summary: "Upload with gq".to_owned(),
            description: String::new(),
            private: false,
            retry: RetryPolicy::default(),
            cancel: CancelToken::default(),
        }
    }
}

/// Where a local file stands against the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushState {
    /// The repository has it with these bytes.
    Same,
    /// The repository has other bytes there.
    Changed,
    /// The repository has nothing there.
    New,
}

/// One file of the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushFile {
    /// Path in the repository.
    pub path: String,
    /// Where it is here.
    pub source: PathBuf,
    /// Bytes.
    pub size: u64,
    /// sha256 of the content.
    pub sha256: FileDigest,
    /// Where it stands.
    pub state: PushState,
}

/// What a push will do; `--dry-run` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushPlan {
    /// The repository.
    pub repo: RepoId,
    /// Whether it has to be made.
    pub create: bool,
    /// The branch's commit now.
    pub parent: Option<String>,
    /// Every file of the folder, by path.
    pub files: Vec<PushFile>,
}

impl PushPlan {
    /// Files that the repository lacks or has otherwise.
    pub fn to_send(&self) -> impl Iterator<Item = &PushFile> {
        self.files.iter().filter(|f| f.state != PushState::Same)
    }

    /// Their bytes; LFS may know some of them from elsewhere.
    pub fn send_bytes(&self) -> u64 {
        self.to_send().map(|f| f.size).sum()
    }
}

/// What a push did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushReport {
    /// The branch's commit now; `None` when an empty repository got nothing.
    pub commit: Option<String>,
    /// Files named by the new commit.
    pub committed: usize,
    /// Bytes that went to LFS; objects it had already are not counted.
    pub lfs_bytes: u64,
    /// Where the repository can be looked at.
    pub url: String,
}

impl Hub {
    /// Hashes the folder and compares it with the repository. Changes nothing.
    ///
    /// # Errors
    /// When the folder cannot be read or the Hub refuses.
    pub fn plan_push(
        &self,
        repo: &RepoId,
        folder: &Path,
        options: &PushOptions,
        progress: &Progress<'_>,
    ) -> Result<PushPlan, HubError> {
        self.online(|| repo.to_string())?;
        crate::repo::check_revision(&options.revision)?;
        let asking =
            PullOptions { retry: options.retry, cancel: options.cancel.clone(), ..PullOptions::default() };
        let control = asking.control(progress);
        let (create, parent) = match self.resolve_revision(repo, &options.revision, &control) {
            Ok(commit) => (false, Some(commit)),
            Err(HubError::RepoNotFound { .. }) => (true, None),
            Err(HubError::RevisionNotFound { .. }) if options.revision == "main" => (false, None),
            Err(error) => return Err(error),
        };
        let remote = match &parent {
            Some(commit) => self.list_files(repo, commit, &control)?,
            None => Vec::new(),
        };
        let remote: HashMap<&str, &RemoteFile> = remote.iter().map(|f| (f.path.as_str(), f)).collect();
        let mut files = Vec::new();
        for (path, source) in walk(folder)? {
            control.check()?;
            if options.files.accepts(&path) {
                files.push(examine(path, source, &remote)?);
            }
        }
        Ok(PushPlan { repo: repo.clone(), create, parent, files })
    }

    /// Sends what a plan says, in one commit.
    ///
    /// # Errors
    /// The first failure. Objects that reached LFS stay there, and the next push does not send them again.
    pub fn push(
        &self,
        plan: &PushPlan,
        options: &PushOptions,
        progress: &Progress<'_>,
    ) -> Result<PushReport, HubError> {
        self.online(|| plan.repo.to_string())?;
        let asking =
            PullOptions { retry: options.retry, cancel: options.cancel.clone(), ..PullOptions::default() };
        let control = Control { until: None, ..asking.control(progress) };
        if plan.create {
            commit::create_repo(self, &plan.repo, options.private, &control)?;
        }
        let files: Vec<&PushFile> = plan.to_send().collect();
        let url = format!("{}/{}", self.endpoint(), plan.repo);
        if files.is_empty() {
            return Ok(PushReport { commit: plan.parent.clone(), committed: 0, lfs_bytes: 0, url });
        }
        let (large, small) = commit::sort_by_mode(self, &plan.repo, &files, options, &control)?;
        let lfs_bytes = lfs::upload(self, &plan.repo, &large, options, &control)?;
        let commit = match commit::send(self, plan, &small, &large, options, &control) {
            Ok(commit) => commit,
            // A commit whose answer was lost is there all the same.
            Err(error) => match self.landed(plan, small.iter().chain(&large), options, &control) {
                Some(commit) => commit,
                None => return Err(error),
            },
        };
        Ok(PushReport { commit: Some(commit), committed: small.len() + large.len(), lfs_bytes, url })
    }
}

impl Hub {
    /// The branch's commit, if it has moved and holds everything that was to be sent.
    fn landed<'f>(
        &self,
        plan: &PushPlan,
        mut files: impl Iterator<Item = &'f &'f PushFile>,
        options: &PushOptions,
        control: &Control<'_>,
    ) -> Option<String> {
        let commit = self.resolve_revision(&plan.repo, &options.revision, control).ok()?;
        if plan.parent.as_ref() == Some(&commit) {
            return None;
        }
        let remote = self.list_files(&plan.repo, &commit, control).ok()?;
        let remote: HashMap<&str, &RemoteFile> = remote.iter().map(|f| (f.path.as_str(), f)).collect();
        let same = |f: &PushFile| {
            examine(f.path.clone(), f.source.clone(), &remote).is_ok_and(|now| now.state == PushState::Same)
        };
        files.all(|f| same(f)).then_some(commit)
    }
}

fn examine(path: String, source: PathBuf, remote: &HashMap<&str, &RemoteFile>) -> Result<PushFile, HubError> {
    let read = |e| HubError::io("read", &source)(e);
    let size = std::fs::metadata(&source).map_err(read)?.len();
    let sha256 = sha256(File::open(&source).map_err(read)?).map_err(read)?;
    let state = match remote.get(path.as_str()) {
        None => PushState::New,
        Some(remote) => {
            let local = match remote.digest {
                FileDigest::Sha256(_) => sha256,
                FileDigest::GitSha1(_) => git_sha1(File::open(&source).map_err(read)?, size).map_err(read)?,
            };
            if local == remote.digest { PushState::Same } else { PushState::Changed }
        }
    };
    Ok(PushFile { path, source, size, sha256, state })
}

/// Regular files below `folder`, by path; what the Hub's tools keep for themselves is left out.
fn walk(folder: &Path) -> Result<Vec<(String, PathBuf)>, HubError> {
    let mut found = Vec::new();
    let mut open = vec![(String::new(), folder.to_owned())];
    while let Some((prefix, dir)) = open.pop() {
        let list = || std::fs::read_dir(&dir)?.collect::<std::io::Result<Vec<_>>>();
        for entry in list().map_err(HubError::io("list", &dir))? {
            let name = entry.file_name();
            let name = name
                .to_str()
                .ok_or_else(|| HubError::UnsafePath { path: entry.path().display().to_string() })?;
            if matches!(name, ".git" | ".cache" | ".DS_Store") {
                continue;
            }
            let path = format!("{prefix}{name}");
            crate::repo::check_path(&path)?;
            let metadata = std::fs::metadata(entry.path()).map_err(HubError::io("read", &entry.path()))?;
            let linked_folder = metadata.is_dir() && entry.file_type().is_ok_and(|t| t.is_symlink());
            match metadata.is_dir() {
                true if linked_folder => return Err(HubError::NotAFile { path: entry.path() }),
                true => open.push((format!("{path}/"), entry.path())),
                false if metadata.is_file() => found.push((path, entry.path())),
                false => return Err(HubError::NotAFile { path: entry.path() }),
            }
        }
    }
    found.sort();
    Ok(found)
}
