//! Files from the Hub into the cache.
//!
//! A pull is planned (one commit, one list of files, what is here already), then executed: streams take
//! chunks of all files in turn, each chunk is written in place and noted in a journal next to the file, and
//! a file whose chunks are all there is hashed, renamed and linked. Killed at any moment, the next pull
//! asks only for the chunks that the journal lacks.

mod chunks;
mod finish;
mod rate;
mod stream;

use crate::cache::{RepoCache, Snapshot};
use crate::client::{Control, Hub};
use crate::tree::RemoteFile;
use crate::{CancelToken, Globs, HubError, Progress, RepoId, RetryPolicy};
use chunks::Partial;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How files are fetched.
#[derive(Clone, Debug)]
pub struct PullOptions {
    /// Which files.
    pub files: Globs,
    /// Requests at a time.
    pub streams: usize,
    /// Bytes per request: what a kill can cost each stream. Unfinished files keep the size they began with.
    pub chunk_bytes: u64,
    /// Patience with the server.
    pub retry: RetryPolicy,
    /// Longest silence of a connection.
    pub read_timeout: Duration,
    /// Longest wait for another process that fetches the same file.
    pub lock_wait: Duration,
    /// Fewest bytes per second, all streams together; slower than this is as good as no answer.
    pub least_rate: u64,
    /// Time over which the rate counts.
    pub rate_window: Duration,
    /// Longest time for all questions about which files there are.
    pub questions: Duration,
    /// Bytes that stay free on the disk.
    pub reserve_bytes: u64,
    /// Stops the transfer.
    pub cancel: CancelToken,
}

impl Default for PullOptions {
    fn default() -> Self {
        PullOptions {
            files: Globs::default(),
            streams: 8,
            chunk_bytes: 8 << 20,
            retry: RetryPolicy::default(),
            read_timeout: Duration::from_secs(30),
            lock_wait: Duration::from_secs(3600),
            least_rate: 8 << 10, // a fax line of the nineties
            rate_window: Duration::from_secs(30),
            questions: Duration::from_secs(300),
            reserve_bytes: 64 << 20,
            cancel: CancelToken::default(),
        }
    }
}

impl PullOptions {
    pub(crate) fn control<'a>(&'a self, progress: &'a Progress<'a>) -> Control<'a> {
        let until = Some((Instant::now() + self.questions, self.questions));
        Control { retry: self.retry, cancel: &self.cancel, progress, until }
    }
}

/// How much of a file the cache has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileState {
    /// All of it, under its digest.
    Cached,
    /// This many bytes of an interrupted download.
    Partial(u64),
    /// Nothing.
    Missing,
}

/// One file of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedFile {
    /// What it is.
    pub file: RemoteFile,
    /// What is here already.
    pub state: FileState,
}

/// What a pull will do; `--dry-run` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullPlan {
    /// The repository.
    pub repo: RepoId,
    /// As asked for.
    pub revision: String,
    /// What the revision stood for when it was asked, once.
    pub commit: String,
    /// The wanted files, by path.
    pub files: Vec<PlannedFile>,
    /// Every file of the commit, wanted or not.
    pub(crate) tree: Vec<RemoteFile>,
}

impl PullPlan {
    /// Bytes of the wanted files.
    pub fn total_bytes(&self) -> u64 {
        self.files.iter().map(|f| f.file.size).sum()
    }

    /// Bytes still to be fetched; a file that occurs twice counts once.
    pub fn fetch_bytes(&self) -> u64 {
        let mut seen = std::collections::HashSet::new();
        let left = |f: &PlannedFile| match f.state {
            FileState::Cached => 0,
            FileState::Partial(have) => f.file.size - have.min(f.file.size),
            FileState::Missing => f.file.size,
        };
        self.files.iter().filter(|f| seen.insert(f.file.digest)).map(left).sum()
    }

    /// Files of the commit that the patterns leave out.
    pub fn skipped_files(&self) -> usize {
        self.tree.len() - self.files.len()
    }
}

impl Hub {
    /// Asks the Hub what `revision` holds, and the cache what is here. Fetches and writes nothing.
    ///
    /// # Errors
    /// When the Hub is not reachable or not to be used, refuses, or no file passes the patterns.
    pub fn plan_pull(
        &self,
        repo: &RepoId,
        revision: &str,
        options: &PullOptions,
        progress: &Progress<'_>,
    ) -> Result<PullPlan, HubError> {
        self.online(|| format!("{repo}@{revision}"))?;
        let control = options.control(progress);
        let commit = self.resolve_revision(repo, revision, &control)?;
        let tree = self.list_files(repo, &commit, &control)?;
        let cache = self.cache(repo);
        let wanted = tree.iter().filter(|f| options.files.accepts(&f.path));
        let files: Vec<_> =
            wanted.map(|file| PlannedFile { file: file.clone(), state: state_of(&cache, file) }).collect();
        if files.is_empty() {
            return Err(HubError::NothingSelected { repo: repo.clone(), files: tree.len() });
        }
        Ok(PullPlan { repo: repo.clone(), revision: revision.to_owned(), commit, files, tree })
    }

    /// Fetches what a plan lacks, verifies it and links it into the snapshot.
    ///
    /// # Errors
    /// The first file's failure; finished files and chunks stay for the next run.
    pub fn pull(
        &self,
        plan: &PullPlan,
        options: &PullOptions,
        progress: &Progress<'_>,
    ) -> Result<Snapshot, HubError> {
        self.online(|| format!("{}@{}", plan.repo, plan.revision))?;
        let cache = self.cache(&plan.repo);
        let control = Control { until: None, ..options.control(progress) };
        stream::fetch_all(self, &cache, plan, options, &control)?;
        cache.write_tree(&plan.commit, &plan.tree)?;
        cache.write_ref(&plan.revision, &plan.commit)?;
        let dir = cache.snapshot_dir(&plan.commit);
        Ok(Snapshot { repo: plan.repo.clone(), commit: plan.commit.clone(), dir })
    }

    pub(crate) fn cache(&self, repo: &RepoId) -> RepoCache {
        RepoCache::new(&self.config().cache_dir, repo)
    }
}

/// Whether a blob has the right length and is no link; a pull hashes it before it believes that.
fn is_cached(cache: &RepoCache, file: &RemoteFile) -> bool {
    std::fs::symlink_metadata(cache.blob(file.digest)).is_ok_and(|m| m.is_file() && m.len() == file.size)
}

fn state_of(cache: &RepoCache, file: &RemoteFile) -> FileState {
    if is_cached(cache, file) {
        return FileState::Cached;
    }
    match Partial::peek(&partial_paths(cache, file), file.size) {
        0 => FileState::Missing,
        have => FileState::Partial(have),
    }
}

/// The unfinished file and its journal. Not the names `huggingface_hub` uses: our file has holes.
struct PartialPaths {
    data: PathBuf,
    journal: PathBuf,
}

fn partial_paths(cache: &RepoCache, file: &RemoteFile) -> PartialPaths {
    let name = file.digest.to_hex();
    PartialPaths {
        data: cache.blobs_dir().join(format!("{name}.gq.incomplete")),
        journal: cache.blobs_dir().join(format!("{name}.gq.journal")),
    }
}
