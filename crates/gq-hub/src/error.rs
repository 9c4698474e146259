//! Everything that can go wrong between here and the Hub.

use crate::repo_id::RepoId;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A failed transfer or look-up. Messages say what was asked, where, and what came back; hints are the caller's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// Not a possible repository name.
    #[error("{id:?} is not a repository name (org/name)")]
    BadRepoId {
        /// As given.
        id: String,
    },
    /// Not a possible branch, tag or commit.
    #[error("{revision:?} is not a revision name")]
    BadRevision {
        /// As given.
        revision: String,
    },
    /// A path in a repository that could leave the folder it is written to.
    #[error("unsafe path {path:?} in a repository")]
    UnsafePath {
        /// As the Hub sent it.
        path: String,
    },
    /// The network is needed and not allowed.
    #[error("{what} is not in the cache, and the network is not to be used")]
    Offline {
        /// What was looked for.
        what: String,
    },
    /// In the cache, but not all of it.
    #[error("{repo} is only partly in the cache: {} is missing ({} of {wanted} files)", missing.first().map_or("", String::as_str), missing.len())]
    Incomplete {
        /// The repository.
        repo: RepoId,
        /// Files that are not there.
        missing: Vec<String>,
        /// Files that belong there.
        wanted: usize,
    },
    /// The Hub does not know the repository, or hides it from us.
    #[error("repository {repo} not found on {endpoint}{}", if *authenticated { "" } else { " (or it is private and no token was given)" })]
    RepoNotFound {
        /// The repository.
        repo: RepoId,
        /// Who was asked.
        endpoint: String,
        /// Whether a token was sent.
        authenticated: bool,
    },
    /// The repository has no such branch, tag or commit.
    #[error("repository {repo} has no revision {revision:?}")]
    RevisionNotFound {
        /// The repository.
        repo: RepoId,
        /// As asked for.
        revision: String,
    },
    /// The revision has no such file.
    #[error("repository {repo} has no file {path:?}")]
    FileNotFound {
        /// The repository.
        repo: RepoId,
        /// As asked for.
        path: String,
    },
    /// No file passed the include and exclude patterns.
    #[error("no file of {repo} passes the patterns ({files} files listed)")]
    NothingSelected {
        /// The repository.
        repo: RepoId,
        /// Files that the repository has.
        files: usize,
    },
    /// The repository's conditions have not been accepted with this token.
    #[error("repository {repo} is gated: {message}")]
    Gated {
        /// The repository.
        repo: RepoId,
        /// In the Hub's words.
        message: String,
        /// Whether a token was sent.
        authenticated: bool,
    },
    /// The token is not valid.
    #[error("the Hub does not accept the token: {message}")]
    Unauthorized {
        /// In the Hub's words.
        message: String,
    },
    /// A 403: whoever asks may not do this.
    #[error("not permitted by {url}: {message}")]
    Forbidden {
        /// What was asked for.
        url: String,
        /// In the Hub's words.
        message: String,
        /// What for.
        access: Access,
    },
    /// Too many requests, and the server wants a longer wait than allowed or retries are used up.
    #[error("rate limited by {url}{}", retry_after.map_or(String::new(), |w| format!(", which asks to wait {} s", w.as_secs())))]
    RateLimited {
        /// What was asked for.
        url: String,
        /// As the server asked.
        retry_after: Option<Duration>,
    },
    /// Another status that retrying did not cure.
    #[error("{url} answered with status {status}: {message}")]
    Status {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
        /// In the server's words.
        message: String,
    },
    /// The connection could not be made or kept.
    #[error("no connection to {url}{}", if *attempts > 1 { format!(" after {attempts} attempts") } else { String::new() })]
    Transport {
        /// What was asked for.
        url: String,
        /// How often it was tried without progress.
        attempts: u32,
        /// The last failure.
        #[source]
        source: Box<ureq::Error>,
    },
    /// The connection ended before the body, again and again.
    #[error("{url} kept ending after {got} of {expected} bytes ({attempts} attempts)")]
    CutShort {
        /// What was asked for.
        url: String,
        /// Bytes of the range that came.
        got: u64,
        /// Bytes of the range.
        expected: u64,
        /// How often it was tried without progress.
        attempts: u32,
    },
    /// Bytes come so slowly that the file would not arrive.
    #[error("{url} is too slow: {bytes} bytes in {} s ({attempts} attempts)", time.as_secs())]
    TooSlow {
        /// What was asked for.
        url: String,
        /// Bytes that came in the last window.
        bytes: u64,
        /// How long the window was.
        time: Duration,
        /// How often it was that slow in a row.
        attempts: u32,
    },
    /// Questions about a repository took longer than they may in all.
    #[error("{url}: the answers took longer than the {} s that they may take in all", limit.as_secs())]
    TimeLimit {
        /// The question that was being asked.
        url: String,
        /// How long they may take.
        limit: Duration,
    },
    /// A folder or lock of the cache is a link to somewhere else, where nothing is to be written.
    #[error("{} is a link, and nothing is written through it", path.display())]
    PlantedLink {
        /// The link.
        path: PathBuf,
    },
    /// The server sends another part of the file than asked for.
    #[error("{url} answered bytes {expected} with {actual}")]
    WrongRange {
        /// What was asked for.
        url: String,
        /// The range asked for and the whole size, as in `Content-Range`.
        expected: String,
        /// What came.
        actual: String,
    },
    /// A redirect without an address, to another protocol, or in a circle.
    #[error("{url} redirects to {location:?}, which cannot be followed")]
    BadRedirect {
        /// What was asked for.
        url: String,
        /// Where it pointed.
        location: String,
    },
    /// The answer is not what the Hub's API promises.
    #[error("unexpected answer from {url}: {field}")]
    BadAnswer {
        /// What was asked for.
        url: String,
        /// What is wrong with which part of the answer.
        field: String,
    },
    /// All bytes came and are not those the Hub promises.
    #[error("{path} of {repo} hashes to {actual}, the Hub says {expected}")]
    HashMismatch {
        /// The repository.
        repo: RepoId,
        /// Path in the repository.
        path: String,
        /// From the file list.
        expected: String,
        /// Of what came.
        actual: String,
    },
    /// The files would not fit.
    #[error("{} has {available} bytes free, {needed} are needed", path.display())]
    DiskFull {
        /// A folder on the full disk.
        path: PathBuf,
        /// Bytes that were or will be written.
        needed: u64,
        /// Bytes free.
        available: u64,
    },
    /// Another process is fetching the same file.
    #[error("{} is held by another process ({} s waited)", path.display(), waited.as_secs())]
    Locked {
        /// The lock.
        path: PathBuf,
        /// How long.
        waited: Duration,
    },
    /// Stopped by the caller's [`crate::CancelToken`].
    #[error("cancelled")]
    Cancelled,
    /// The file system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The LFS server refused an object.
    #[error("{path} was not accepted: {message} (code {code})")]
    ObjectRefused {
        /// Path in the repository.
        path: String,
        /// The server's number.
        code: i64,
        /// In the server's words.
        message: String,
    },
    /// A file changed while it was being uploaded.
    #[error("{} changed while it was read", path.display())]
    SourceChanged {
        /// The file.
        path: PathBuf,
    },
    /// Nothing at that path, and it is not a repository name either.
    #[error("{text:?} is no file or folder here, nor a repository name")]
    NotFound {
        /// As given.
        text: String,
    },
    /// Not a regular file or folder.
    #[error("{} is neither a file nor a folder", path.display())]
    NotAFile {
        /// As given.
        path: PathBuf,
    },
}

/// What somebody may not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read, of the Hub itself.
    Read {
        /// Whether a token was sent.
        authenticated: bool,
    },
    /// Read, of the storage that the Hub sends readers to.
    Storage,
    /// Write.
    Write,
}

impl HubError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> HubError {
        let path = path.to_owned();
        move |source| HubError::Io { action, path, source }
    }
}
