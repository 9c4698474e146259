//! The Hub's two checksums: sha256 of LFS files and git's name of a blob.

use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::io::Read;

/// What the Hub says a file's content hashes to; in lower-case hexadecimal it is also the blob's name in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FileDigest {
    /// Of the content: files kept in LFS.
    Sha256([u8; 32]),
    /// Of `blob <size>\0` and the content: files kept in git.
    GitSha1([u8; 20]),
}

impl FileDigest {
    /// The digest with this hexadecimal form: 64 digits for sha256, 40 for git.
    pub fn from_hex(text: &str) -> Option<FileDigest> {
        match text.len() {
            64 => hex_decode(text).map(FileDigest::Sha256),
            40 => hex_decode(text).map(FileDigest::GitSha1),
            _ => None,
        }
    }

    /// Lower-case hexadecimal.
    pub fn to_hex(self) -> String {
        match self {
            FileDigest::Sha256(bytes) => hex::encode(bytes),
            FileDigest::GitSha1(bytes) => hex::encode(bytes),
        }
    }

    /// The digest of the same kind of what `reader` gives, `size` bytes in all.
    ///
    /// # Errors
    /// Those of `reader`.
    pub fn of_same_kind(self, reader: impl Read, size: u64) -> std::io::Result<FileDigest> {
        match self {
            FileDigest::Sha256(_) => sha256(reader),
            FileDigest::GitSha1(_) => git_sha1(reader, size),
        }
    }
}

/// sha256 of everything in `reader`.
pub(crate) fn sha256(reader: impl Read) -> std::io::Result<FileDigest> {
    let mut hasher = Sha256::new();
    feed(reader, |bytes| hasher.update(bytes))?;
    Ok(FileDigest::Sha256(hasher.finalize().into()))
}

/// Git's blob name of everything in `reader`.
pub(crate) fn git_sha1(reader: impl Read, size: u64) -> std::io::Result<FileDigest> {
    let mut hasher = Sha1::new_with_prefix(format!("blob {size}\0"));
    feed(reader, |bytes| hasher.update(bytes))?;
    Ok(FileDigest::GitSha1(hasher.finalize().into()))
}

fn feed(mut reader: impl Read, mut update: impl FnMut(&[u8])) -> std::io::Result<()> {
    let mut buffer = vec![0; 1 << 18];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => update(&buffer[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn hex_decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let mut out = [0; N];
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in out.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_digests() {
        let empty = sha256(&b""[..]).unwrap().to_hex();
        assert_eq!(empty, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        // `printf 'hello\n' | git hash-object --stdin`
        let hello = git_sha1(&b"hello\n"[..], 6).unwrap();
        assert_eq!(hello.to_hex(), "ce013625030ba8dba906f756967f9e9ca394464a");
        assert_eq!(FileDigest::from_hex(&hello.to_hex()), Some(hello));
        for bad in ["", "zz", &"G".repeat(64), &"a".repeat(41), &"A".repeat(40)] {
            assert_eq!(FileDigest::from_hex(bad), None);
        }
    }
}
