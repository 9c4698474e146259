//! `SHA256SUMS`, and files that appear whole or not at all.

use crate::failure::{Exit, Failure};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Checksums of all other files of a folder, as `sha256sum -c` reads them.
pub const SUMS: &str = "SHA256SUMS";

/// Names of a folder's files, sorted, without `SHA256SUMS` and names that begin with a dot.
pub fn list(dir: &Path) -> Result<Vec<String>, Failure> {
    let io = |e| Failure::io(dir, &e);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && name != SUMS {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Lines of `sha256sum` for these files.
pub fn render(sums: &[(String, String)]) -> String {
    sums.iter().map(|(name, sha256)| format!("{sha256}  {name}\n")).collect()
}

/// Digests by file name; `None` when a line is not of that form or a name could leave the folder.
pub fn parse(text: &str) -> Option<Vec<(String, String)>> {
    let line = |line: &str| {
        let (sha256, name) = line.split_once("  ").or_else(|| line.split_once(" *"))?;
        let digest = sha256.len() == 64 && sha256.bytes().all(|b| b.is_ascii_hexdigit());
        let plain = !name.is_empty() && !name.contains(['/', '\\']) && !name.starts_with('.');
        (digest && plain).then(|| (name.to_owned(), sha256.to_ascii_lowercase()))
    };
    text.lines().map(line).collect()
}

/// sha256 of a file in hexadecimal, and its length; `progress` gets the bytes of each step.
pub fn sha256(path: &Path, mut progress: impl FnMut(u64)) -> Result<(String, u64), Failure> {
    let io = |e| Failure::io(path, &e);
    let mut file = File::open(path).map_err(io)?;
    let (mut hash, mut buffer, mut bytes) = (Sha256::new(), vec![0; 1 << 20], 0);
    loop {
        let now = file.read(&mut buffer).map_err(io)?;
        if now == 0 {
            return Ok((hex::encode(hash.finalize()), bytes));
        }
        hash.update(&buffer[..now]);
        bytes += now as u64;
        progress(now as u64);
    }
}

/// sha256 of a text in hexadecimal.
pub fn sha256_of(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Writes a file next to its place, then gives it its name.
pub fn write_whole(path: &Path, text: &str) -> Result<(), Failure> {
    gq_files::write_whole(path, text.as_bytes()).map_err(|e| {
        let message = format!("{}: {e}", path.display());
        Failure::new(Exit::Environment, "output.io", message).at(path.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_read_as_they_are_written() {
        let sums = vec![("a b.gq".to_owned(), sha256_of(b"a")), ("README.md".to_owned(), sha256_of(b""))];
        assert_eq!(parse(&render(&sums)), Some(sums));
        let digest = sha256_of(b"");
        for text in ["x", &format!("{digest}  ../x"), &format!("{digest}  a/b"), &format!("{digest}x a")] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
