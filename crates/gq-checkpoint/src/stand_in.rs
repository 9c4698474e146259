//! What lies where a file of a model should be: a pointer of Git LFS or git-annex, a server's page, nothing, a part.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Longest start of a file that is looked at: pointers have about 130 bytes.
const START_BYTES: u64 = 1024;
/// First lines of pointers, of today and of the years before the specification.
const LFS: [&str; 3] = [
    "version https://git-lfs.github.com/spec/",
    "version https://hawser.github.com/spec/",
    "version http://git-media.io/v/",
];
/// Endings of files that programs which fetch write meanwhile.
const UNFINISHED: [&str; 6] = [".incomplete", ".part", ".aria2", ".crdownload", ".download", ".partial"];
/// Where `hf download --local-dir` keeps them.
pub(crate) const HUB_DOWNLOADS: &str = ".cache/huggingface/download";

/// Something that is not the file it is named after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StandIn {
    /// A pointer of Git LFS.
    LfsPointer {
        /// Bytes of the file that it stands for, when it says so.
        bytes: Option<u64>,
    },
    /// A pointer of git-annex.
    AnnexPointer,
    /// A page or an error message of a server.
    WebPage,
    /// No bytes.
    Empty,
}

impl fmt::Display for StandIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StandIn::LfsPointer { bytes: Some(bytes) } => {
                write!(f, "a Git LFS pointer to {bytes} bytes, not the file itself")
            }
            StandIn::LfsPointer { bytes: None } => f.write_str("a Git LFS pointer, not the file itself"),
            StandIn::AnnexPointer => f.write_str("a git-annex pointer, not the file itself"),
            StandIn::WebPage => f.write_str("a web page or a server's error message, not the file itself"),
            StandIn::Empty => f.write_str("empty: 0 bytes"),
        }
    }
}

impl StandIn {
    /// What a file that begins with `start` is instead; `start` of a short file is all of it.
    pub fn recognize(start: &[u8]) -> Option<StandIn> {
        if start.is_empty() {
            return Some(StandIn::Empty);
        }
        if LFS.iter().any(|line| start.starts_with(line.as_bytes())) {
            let text = String::from_utf8_lossy(start);
            let bytes = text.lines().find_map(|line| line.strip_prefix("size ")?.trim().parse().ok());
            return Some(StandIn::LfsPointer { bytes });
        }
        if start.starts_with(b"/annex/objects/") {
            return Some(StandIn::AnnexPointer);
        }
        let text = start.trim_ascii_start();
        let page = ["<!doctype html", "<html", "<?xml"];
        let begins = |page: &str| {
            text.get(..page.len()).is_some_and(|start| start.eq_ignore_ascii_case(page.as_bytes()))
        };
        page.into_iter().any(begins).then_some(StandIn::WebPage)
    }

    /// What a file is instead.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of_file(path: &Path) -> std::io::Result<Option<StandIn>> {
        let mut start = Vec::new();
        File::open(path)?.take(START_BYTES).read_to_end(&mut start)?;
        Ok(StandIn::recognize(&start))
    }
}

/// Whether a name is that of a model's file which is still being fetched.
fn is_unfinished(name: &str) -> bool {
    let stem = UNFINISHED.iter().find_map(|end| name.strip_suffix(end));
    let parts = [".safetensors", ".gguf", ".json", ".jinja"];
    stem.is_some_and(|stem| parts.iter().any(|part| stem.contains(part)))
}

/// A file in `dir`, whose files are `names`, that says a download did not finish.
pub(crate) fn unfinished(dir: &Path, names: &[String]) -> Option<String> {
    if let Some(name) = names.iter().find(|name| is_unfinished(name)) {
        return Some(name.clone());
    }
    let entries = std::fs::read_dir(dir.join(HUB_DOWNLOADS)).ok()?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".incomplete")).collect();
    names.sort();
    names.first().map(|name| format!("{HUB_DOWNLOADS}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_pages_and_nothing() {
        let lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 396344\n";
        assert_eq!(StandIn::recognize(lfs), Some(StandIn::LfsPointer { bytes: Some(396_344) }));
        assert_eq!(StandIn::recognize(&lfs[..50]), Some(StandIn::LfsPointer { bytes: None }));
        assert_eq!(StandIn::recognize(b"/annex/objects/MD5E-s1--00"), Some(StandIn::AnnexPointer));
        assert_eq!(StandIn::recognize(b"\n <!DOCTYPE html><html>"), Some(StandIn::WebPage));
        assert_eq!(StandIn::recognize(b""), Some(StandIn::Empty));
        for file in [&b"{\"a\": 1}"[..], b"GGUF", b"version of a text", b"<|im_start|>", &[0; 8]] {
            assert_eq!(StandIn::recognize(file), None);
        }
    }

    #[test]
    fn unfinished_names() {
        for name in ["model.safetensors.incomplete", "a.gguf.part", "model-00001-of-00002.safetensors.aria2"]
        {
            assert!(is_unfinished(name), "{name}");
        }
        for name in ["mine.gq.partial", "notes.part", "model.safetensors"] {
            assert!(!is_unfinished(name), "{name}");
        }
    }
}
