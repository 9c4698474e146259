//! Names of repositories and revisions.

use crate::error::HubError;
use crate::repo_id::RepoId;

impl RepoId {
    /// A repository with this id.
    ///
    /// # Errors
    /// [`HubError::BadRepoId`] when the Hub would not allow such a name.
    pub fn new(id: &str) -> Result<RepoId, HubError> {
        let parts: Vec<&str> = id.split('/').collect();
        let valid = |part: &str| {
            !part.is_empty()
                && part.len() <= 96
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
                && !part.starts_with(['.', '-'])
                && !part.ends_with(['.', '-'])
                && !part.contains("--")
                && !part.contains("..")
        };
        if parts.len() > 2 || !parts.iter().all(|p| valid(p)) {
            return Err(HubError::BadRepoId { id: id.to_owned() });
        }
        Ok(RepoId::unchecked(id))
    }
}

/// A repository at a revision, and perhaps one file of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoRef {
    /// The repository.
    pub repo: RepoId,
    /// Branch, tag or commit; `None` stands for `main`.
    pub revision: Option<String>,
    /// A file or folder inside it.
    pub path: Option<String>,
}

impl RepoRef {
    /// Parses `hf://org/name@rev/path`, or the same without `hf://`.
    ///
    /// A revision that holds a slash is written with `%2F`. Without `hf://` a path cannot follow.
    ///
    /// # Errors
    /// [`HubError::BadRepoId`], [`HubError::BadRevision`] or [`HubError::UnsafePath`].
    pub fn parse(text: &str) -> Result<RepoRef, HubError> {
        let bad = || HubError::BadRepoId { id: text.to_owned() };
        let (uri, rest) = match text.strip_prefix("hf://") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let rest = rest.strip_prefix("models/").filter(|_| uri).unwrap_or(rest);
        let (head, revision, tail) = match rest.split_once('@') {
            Some((head, after)) => {
                let (revision, tail) = match after.split_once('/') {
                    Some((revision, tail)) if uri => (revision, Some(tail)),
                    Some(_) | None => (after, None),
                };
                (head.to_owned(), Some(revision.replace("%2F", "/").replace("%2f", "/")), tail)
            }
            None if uri => {
                let mut parts = rest.splitn(3, '/');
                let owner = parts.next().ok_or_else(bad)?;
                let head = parts.next().map_or(owner.to_owned(), |name| format!("{owner}/{name}"));
                (head, None, parts.next())
            }
            None => (rest.to_owned(), None, None),
        };
        if let Some(revision) = &revision {
            check_revision(revision)?;
        }
        let tail = tail.map(|t| t.trim_end_matches('/')).filter(|t| !t.is_empty());
        if let Some(path) = tail {
            check_path(path)?;
        }
        Ok(RepoRef { repo: RepoId::new(&head)?, revision, path: tail.map(str::to_owned) })
    }

    /// The revision, `main` when none was named.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }
}

/// Refuses revisions that could name a file outside of `refs/`.
pub(crate) fn check_revision(revision: &str) -> Result<(), HubError> {
    let valid = !revision.is_empty()
        && revision.len() <= 256
        && revision.split('/').all(|part| !part.is_empty() && !part.starts_with('.'))
        && revision.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'\\' | b'?' | b'#' | b'%' | b':'));
    if valid { Ok(()) } else { Err(HubError::BadRevision { revision: revision.to_owned() }) }
}

/// Refuses paths that could leave the folder they are joined to, on any system.
pub(crate) fn check_path(path: &str) -> Result<(), HubError> {
    let valid = !path.is_empty()
        && path.len() <= 4096
        && path.split('/').all(|part| !part.is_empty() && part != "." && part != ".." && part.len() <= 255)
        && !path.chars().any(|c| c.is_control() || matches!(c, '\\' | ':'));
    if valid { Ok(()) } else { Err(HubError::UnsafePath { path: path.to_owned() }) }
}

/// Whether `text` is a full commit id.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_in_every_spelling() {
        let cases = [
            ("org/name", "org/name", "main", None),
            ("gpt2", "gpt2", "main", None),
            ("org/name@v1.0", "org/name", "v1.0", None),
            ("org/name@refs/pr/3", "org/name", "refs/pr/3", None),
            ("hf://org/name", "org/name", "main", None),
            ("hf://models/org/name@dev", "org/name", "dev", None),
            ("hf://org/name@refs%2Fpr%2F3/sub/m.gguf", "org/name", "refs/pr/3", Some("sub/m.gguf")),
            ("hf://org/name/m.gguf", "org/name", "main", Some("m.gguf")),
            ("hf://org/name/", "org/name", "main", None),
        ];
        for (text, repo, revision, path) in cases {
            let parsed = RepoRef::parse(text).unwrap();
            assert_eq!(
                (parsed.repo.as_str(), parsed.revision(), parsed.path.as_deref()),
                (repo, revision, path),
                "{text}"
            );
        }
    }

    #[test]
    fn names_that_could_leave_the_cache_are_refused() {
        for id in ["", "a/b/c", "../x", "a/..", "a//b", "a/b--c", "-a/b", "a b/c", "a/\u{e9}"] {
            assert!(matches!(RepoId::new(id), Err(HubError::BadRepoId { .. })), "{id:?}");
        }
        for text in ["a/b@", "a/b@../x", "a/b@x//y", "a/b@.git", "a/b@x\\y"] {
            assert!(matches!(RepoRef::parse(text), Err(HubError::BadRevision { .. })), "{text:?}");
        }
        for path in ["", "/etc/passwd", "../x", "a/../b", "a//b", "C:x", "a\\b", "a\nb", "./a"] {
            assert!(matches!(check_path(path), Err(HubError::UnsafePath { .. })), "{path:?}");
        }
    }
}
