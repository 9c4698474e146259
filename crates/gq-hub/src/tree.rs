//! What a repository holds: revision to commit, commit to files with sizes and digests.

use crate::client::{Asked, Control, Hub};
use crate::repo::{check_path, check_revision, is_commit};
use crate::{FileDigest, HubError, RepoId};
use serde_json::Value;

/// One file of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteFile {
    /// Path in the repository, forward slashes.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Checksum of the content.
    pub digest: FileDigest,
    /// Git's name of what is in git: the content, or the pointer to LFS.
    pub(crate) blob_id: String,
    pub(crate) xet_hash: Option<String>,
}

/// More files than any model has; a list that goes on is not one.
const MAX_FILES: usize = 1 << 20;

impl Hub {
    /// The commit that `revision` stands for now. Asked once per transfer, so that all files are of one commit.
    ///
    /// # Errors
    /// When the Hub cannot be reached, or does not know the repository or revision.
    pub(crate) fn resolve_revision(
        &self,
        repo: &RepoId,
        revision: &str,
        control: &Control<'_>,
    ) -> Result<String, HubError> {
        check_revision(revision)?;
        if is_commit(revision) {
            return Ok(revision.to_owned());
        }
        let (url, info) = self.repo_info(repo, revision, control)?;
        info.get("sha")
            .and_then(Value::as_str)
            .filter(|sha| is_commit(sha))
            .map(str::to_owned)
            .ok_or(HubError::BadAnswer { url, field: "sha is not a commit".to_owned() })
    }

    /// All files of a commit, by path.
    ///
    /// # Errors
    /// As [`Hub::resolve_revision`]; also when a path is unsafe or a digest malformed.
    pub(crate) fn list_files(
        &self,
        repo: &RepoId,
        commit: &str,
        control: &Control<'_>,
    ) -> Result<Vec<RemoteFile>, HubError> {
        let mut url =
            format!("{}/api/models/{repo}/tree/{}?recursive=true", self.endpoint(), encode_revision(commit));
        let mut files = Vec::new();
        let mut pages = 0;
        loop {
            let (page, next) = self.get_json(repo, Asked::Revision(commit), &url, control)?;
            let entries = page
                .as_array()
                .ok_or_else(|| HubError::BadAnswer { url: url.clone(), field: "not a list".to_owned() })?;
            for entry in entries.iter().filter(|e| e.get("type").and_then(Value::as_str) != Some("directory"))
            {
                files.push(remote_file(entry, &url)?);
            }
            pages += 1;
            match next {
                Some(next) if files.len() < MAX_FILES && pages < MAX_FILES / 8 => url = next,
                Some(_) => {
                    return Err(HubError::BadAnswer { url, field: "the file list does not end".to_owned() });
                }
                None => break,
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        if let Some(pair) = files.windows(2).find(|pair| pair[0].path == pair[1].path) {
            return Err(HubError::BadAnswer { url, field: format!("{:?} is listed twice", pair[0].path) });
        }
        Ok(files)
    }
}

fn remote_file(entry: &Value, url: &str) -> Result<RemoteFile, HubError> {
    let bad = |field: &str| HubError::BadAnswer { url: url.to_owned(), field: field.to_owned() };
    let path = entry.get("path").and_then(Value::as_str).ok_or_else(|| bad("a file without path"))?;
    check_path(path)?;
    let blob_id = entry.get("oid").and_then(Value::as_str).ok_or_else(|| bad("a file without oid"))?;
    let (name, size) = match entry.get("lfs").filter(|lfs| !lfs.is_null()) {
        Some(lfs) => (lfs.get("oid").and_then(Value::as_str), lfs.get("size")),
        None => (Some(blob_id), entry.get("size")),
    };
    Ok(RemoteFile {
        path: path.to_owned(),
        size: size.and_then(Value::as_u64).ok_or_else(|| bad("a file without size"))?,
        digest: name.and_then(FileDigest::from_hex).ok_or_else(|| bad("a malformed digest"))?,
        blob_id: blob_id.to_owned(),
        xet_hash: entry.get("xetHash").and_then(Value::as_str).map(str::to_owned),
    })
}

/// A revision as one path segment of an address.
pub(crate) fn encode_revision(revision: &str) -> String {
    encode(revision, "")
}

/// A path as segments of an address.
pub(crate) fn encode_path(path: &str) -> String {
    encode(path, "/")
}

fn encode(text: &str, keep: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || "-_.~".contains(c) || keep.contains(c) {
            out.push(c);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_percent_encoded() {
        assert_eq!(encode_path("a b/c#d?.json"), "a%20b/c%23d%3F.json");
        assert_eq!(encode_revision("refs/pr/1"), "refs%2Fpr%2F1");
    }
}
