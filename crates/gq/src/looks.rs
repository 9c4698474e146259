//! What a file seems to be, by its first bytes: for whoever gave the wrong one.

use std::io::Read;
use std::path::Path;

/// First bytes of formats that are given by mistake.
const MAGICS: [(&[u8], &str); 15] = [
    (b"\x89GQ", "a .gq file"),
    (b"GGUF", "a GGUF"),
    (b"ggml", "a GGML file, older than GGUF"),
    (b"ggjt", "a GGML file, older than GGUF"),
    (b"lmgg", "a GGML file, older than GGUF"),
    (b"PK\x03\x04", "a zip archive, which PyTorch's .bin and .pt files are too"),
    (b"\x89HDF", "an HDF5 file, as Keras writes its weights"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"SQLite", "an SQLite database"),
    (b"\x7fELF", "a program"),
    (b"\x89PNG", "an image"),
    (b"%PDF", "a PDF"),
    (b"\x80\x02", "a pickle, as PyTorch writes its weights"),
];

/// What a file seems to be; `None` where it cannot be read or nothing is known of it.
pub fn like(path: &Path) -> Option<&'static str> {
    let mut start = Vec::new();
    std::fs::File::open(path).ok()?.take(512).read_to_end(&mut start).ok()?;
    if start.is_empty() {
        return Some("an empty file");
    }
    if let Some((_, name)) = MAGICS.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Some(name);
    }
    // The length of a header, and the header.
    if let (Some(length), Some(b'{')) = (start.first_chunk::<8>(), start.get(8))
        && u64::from_le_bytes(*length) < 1 << 27
    {
        return Some("a safetensors file: give the folder that it is in, with config.json");
    }
    let text = match std::str::from_utf8(&start) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(start.get(..error.valid_up_to())?).ok()?
        }
        Err(_) => return None,
    };
    let words = !text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'));
    match text.trim_start().chars().next() {
        Some('{' | '[') if words => Some("a JSON text"),
        _ if words => Some("a text"),
        _ => None,
    }
}

/// Whether a file begins as a `.gq` file does.
pub fn is_gq(path: &Path) -> bool {
    like(path) == Some(MAGICS[0].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_first_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let cases: [(&[u8], Option<&str>); 7] = [
            (b"", Some("an empty file")),
            (b"root:x:0:0\n", Some("a text")),
            (b"{\"a\": 1}", Some("a JSON text")),
            (b"PK\x03\x04\0\0", Some("a zip archive, which PyTorch's .bin and .pt files are too")),
            (
                b"\x40\0\0\0\0\0\0\0{\"__metadata__\"",
                Some("a safetensors file: give the folder that it is in, with config.json"),
            ),
            (b"\x01\x02\x03\xff", None),
            (b"\x89GQ\r\n", Some("a .gq file")),
        ];
        for (bytes, expected) in cases {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(like(&path), expected, "{bytes:?}");
        }
        assert_eq!(like(&dir.path().join("nowhere")), None);
    }
}
