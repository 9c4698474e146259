//! The calls around an upload: make the repository, ask which files are large, commit.

use super::{PushFile, PushOptions, PushPlan};
use crate::address::encode_revision;
use crate::answer;
use crate::client::{Control, Hub};
use crate::digest::sha256;
use crate::repo::is_commit;
use crate::{HubError, RepoId};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;

/// The Hub looks at the first bytes of a file to decide where it goes.
const SAMPLE_BYTES: u64 = 512;
/// Files per question.
const BATCH: usize = 256;

/// Makes the repository; one that appeared meanwhile is as good.
pub(super) fn create_repo(
    hub: &Hub,
    repo: &RepoId,
    private: bool,
    control: &Control<'_>,
) -> Result<(), HubError> {
    let url = format!("{}/api/repos/create", hub.endpoint());
    let visibility = if private { "private" } else { "public" };
    let body =
        json!({"name": repo.name(), "organization": repo.owner(), "visibility": visibility, "type": "model"});
    hub.post(repo, &url, "application/json", body.to_string().as_bytes(), control).map(|_| ())
}

/// The files that go to LFS and those that go into git, as the Hub decides; ignored files are in neither.
#[allow(clippy::type_complexity)]
pub(super) fn sort_by_mode<'f>(
    hub: &Hub,
    repo: &RepoId,
    files: &[&'f PushFile],
    options: &PushOptions,
    control: &Control<'_>,
) -> Result<(Vec<&'f PushFile>, Vec<&'f PushFile>), HubError> {
    let url =
        format!("{}/api/models/{repo}/preupload/{}", hub.endpoint(), encode_revision(&options.revision));
    let (mut large, mut small) = (Vec::new(), Vec::new());
    for batch in files.chunks(BATCH) {
        let mut entries = Vec::new();
        for file in batch {
            let mut sample = Vec::new();
            let read = |e| HubError::io("read", &file.source)(e);
            File::open(&file.source)
                .map_err(read)?
                .take(SAMPLE_BYTES)
                .read_to_end(&mut sample)
                .map_err(read)?;
            entries.push(json!({"path": file.path, "sample": base64(&sample), "size": file.size}));
        }
        let body = json!({"files": entries}).to_string();
        let response = hub.post(repo, &url, "application/json", body.as_bytes(), control)?;
        let answer: Value = answer::read_once(&url, response)?;
        let list = answer.get("files").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let modes: HashMap<&str, &Value> =
            list.iter().filter_map(|f| Some((f.get("path")?.as_str()?, f))).collect();
        for &file in batch {
            let mode = modes.get(file.path.as_str());
            if mode.and_then(|m| m.get("shouldIgnore")).and_then(Value::as_bool) == Some(true) {
                continue;
            }
            match mode.and_then(|m| m.get("uploadMode")).and_then(Value::as_str) {
                Some("lfs") if file.size > 0 => large.push(file), // LFS stores refuse empty objects
                Some("lfs" | "regular") => small.push(file),
                _ => {
                    let field = format!("no upload mode for {:?}", file.path);
                    return Err(HubError::BadAnswer { url, field });
                }
            }
        }
    }
    Ok((large, small))
}

/// One commit of all files; gives its id.
pub(super) fn send(
    hub: &Hub,
    plan: &PushPlan,
    small: &[&PushFile],
    large: &[&PushFile],
    options: &PushOptions,
    control: &Control<'_>,
) -> Result<String, HubError> {
    let mut header = json!({"summary": options.summary, "description": options.description});
    if let Some(parent) = &plan.parent {
        // A commit whose answer was lost is then refused the second time instead of made twice.
        header["parentCommit"] = json!(parent);
    }
    let mut lines = vec![json!({"key": "header", "value": header})];
    for file in small {
        let bytes = std::fs::read(&file.source).map_err(HubError::io("read", &file.source))?;
        if sha256(bytes.as_slice()).ok() != Some(file.sha256) {
            return Err(HubError::SourceChanged { path: file.source.clone() });
        }
        let value = json!({"content": base64(&bytes), "path": file.path, "encoding": "base64"});
        lines.push(json!({"key": "file", "value": value}));
    }
    for file in large {
        let value =
            json!({"path": file.path, "algo": "sha256", "oid": file.sha256.to_hex(), "size": file.size});
        lines.push(json!({"key": "lfsFile", "value": value}));
    }
    let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let url =
        format!("{}/api/models/{}/commit/{}", hub.endpoint(), plan.repo, encode_revision(&options.revision));
    let response = hub.post(&plan.repo, &url, "application/x-ndjson", body.as_bytes(), control)?;
    if !response.status().is_success() {
        let status = response.status().as_u16();
        return Err(HubError::Status { url, status, message: "the branch has moved".to_owned() });
    }
    let answer: Value = answer::read_once(&url, response)?;
    answer
        .get("commitOid")
        .and_then(Value::as_str)
        .filter(|oid| is_commit(oid))
        .map(str::to_owned)
        .ok_or(HubError::BadAnswer { url, field: "commitOid is not a commit".to_owned() })
}

/// RFC 4648 with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= group.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_of_the_rfc() {
        let cases = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (plain, encoded) in cases {
            assert_eq!(super::base64(plain.as_bytes()), encoded);
        }
    }
}
