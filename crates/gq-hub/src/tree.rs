//! What a repository holds: revision to commit, commit to files with sizes and digests.

use crate::address::encode_revision;
use crate::client::{Asked, Control, Hub};
use crate::repo::{check_path, check_revision, is_commit};
use crate::{FileDigest, HubError, RepoId};
use serde::Deserialize;

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
const MAX_FILES: usize = 1 << 17;
const MAX_PAGES: usize = 1 << 14;

/// What is wanted of the Hub's description of a repository.
#[derive(Deserialize)]
struct Info {
    sha: String,
}

/// What is wanted of an entry of a file list.
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: Option<String>,
    path: String,
    oid: Option<String>,
    size: Option<u64>,
    lfs: Option<Lfs>,
    #[serde(rename = "xetHash")]
    xet_hash: Option<String>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

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
        let url = self.info_url(repo, revision);
        let (info, _): (Info, _) = self.get_json(repo, Asked::Revision(revision), &url, control)?;
        match is_commit(&info.sha) {
            true => Ok(info.sha),
            false => Err(HubError::BadAnswer { url, field: "sha is not a commit".to_owned() }),
        }
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
            let (page, next): (Vec<Entry>, _) =
                self.get_json(repo, Asked::Revision(commit), &url, control)?;
            for entry in page.into_iter().filter(|entry| entry.kind.as_deref() != Some("directory")) {
                files.push(remote_file(entry, &url)?);
            }
            pages += 1;
            match next {
                Some(next) if files.len() < MAX_FILES && pages < MAX_PAGES => url = next,
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
        if files.iter().try_fold(0, |sum: u64, file| sum.checked_add(file.size)).is_none() {
            return Err(HubError::BadAnswer {
                url,
                field: "the sizes of the files sum past 2^64".to_owned(),
            });
        }
        Ok(files)
    }
}

fn remote_file(entry: Entry, url: &str) -> Result<RemoteFile, HubError> {
    let bad = |field: &str| HubError::BadAnswer { url: url.to_owned(), field: field.to_owned() };
    check_path(&entry.path)?;
    let blob_id = entry.oid.ok_or_else(|| bad("a file without oid"))?;
    let (name, size) = match entry.lfs {
        Some(lfs) => (lfs.oid, Some(lfs.size)),
        None => (blob_id.clone(), entry.size),
    };
    Ok(RemoteFile {
        path: entry.path,
        size: size.ok_or_else(|| bad("a file without size"))?,
        digest: FileDigest::from_hex(&name).ok_or_else(|| bad("a malformed digest"))?,
        blob_id,
        xet_hash: entry.xet_hash,
    })
}
