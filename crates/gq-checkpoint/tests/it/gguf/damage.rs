//! Files that lie: each rule once by hand, then thousands of seeded mutations.

use super::support::{fixture, open_bytes};
use gq_checkpoint::gguf::{Gguf, GgufError, Header};

struct Bytes(Vec<u8>);

impl Bytes {
    fn new(tensors: u64, entries: u64) -> Bytes {
        Bytes(b"GGUF".to_vec()).u32(3).u64(tensors).u64(entries)
    }
    fn u8(mut self, v: u8) -> Bytes {
        self.0.push(v);
        self
    }
    fn u32(mut self, v: u32) -> Bytes {
        self.0.extend(v.to_le_bytes());
        self
    }
    fn u64(mut self, v: u64) -> Bytes {
        self.0.extend(v.to_le_bytes());
        self
    }
    fn text(mut self, v: &[u8]) -> Bytes {
        self.0.extend((v.len() as u64).to_le_bytes());
        self.0.extend(v);
        self
    }
    /// A tensor with innermost-first dimensions.
    fn tensor(mut self, name: &str, dims: &[u64], kind: u32, offset: u64) -> Bytes {
        self = self.text(name.as_bytes()).u32(dims.len() as u32);
        for dim in dims {
            self = self.u64(*dim);
        }
        self.u32(kind).u64(offset)
    }
    fn data(mut self, len: usize) -> Bytes {
        self.0.resize(self.0.len().next_multiple_of(32) + len, 0);
        self
    }
    fn error(&self) -> GgufError {
        open_bytes(&self.0).unwrap_err()
    }
}

macro_rules! refused {
    ($bytes:expr, $pattern:pat) => {
        let error = $bytes.error();
        assert!(matches!(error, $pattern), "{error:?}");
    };
}

#[test]
fn each_rule_of_the_header() {
    refused!(Bytes(vec![]), GgufError::StandIn { what: gq_checkpoint::StandIn::Empty, .. });
    refused!(Bytes(b"GGU".to_vec()), GgufError::Truncated { .. });
    refused!(Bytes(b"GGML0000".to_vec()), GgufError::Magic { .. });
    refused!(Bytes(b"GGUF".to_vec()).u32(1).u64(0).u64(0), GgufError::Version { actual: 1 });
    refused!(Bytes(b"GGUF".to_vec()).u32(3 << 24).u64(0).u64(0), GgufError::Version { .. });
    refused!(Bytes::new(u64::MAX, 0), GgufError::Count { what: "tensors", .. });
    refused!(Bytes::new(0, 1 << 40), GgufError::Count { what: "metadata entries", .. });
    refused!(Bytes::new(0, 5), GgufError::Truncated { .. });
    assert!(open_bytes(&Bytes::new(0, 0).0).is_ok());
}

#[test]
fn each_rule_of_metadata() {
    let key = || Bytes::new(0, 1).text(b"k");
    refused!(Bytes::new(0, 1).u64(1 << 62), GgufError::StringLen { .. });
    refused!(Bytes::new(0, 1).u64(60_000), GgufError::Truncated { .. });
    refused!(Bytes::new(0, 1).text(&[0xFF]).u32(0).u8(0), GgufError::Utf8 { .. });
    refused!(key().u32(13).u8(0), GgufError::ValueType { actual: 13, .. });
    refused!(key().u32(7).u8(2), GgufError::Bool { actual: 2, .. });
    refused!(key().u32(8).u64(1 << 40), GgufError::StringLen { .. });
    refused!(key().u32(9).u32(4).u64(u64::MAX), GgufError::ArrayLen { .. });
    refused!(key().u32(9).u32(4).u64(1 << 24), GgufError::Truncated { .. });
    refused!(key().u32(9).u32(8).u64(1 << 24), GgufError::Truncated { .. });
    refused!(key().u32(9).u32(9).u64(1 << 24), GgufError::Truncated { .. });
    refused!(key().u32(9).u32(99).u64(0), GgufError::ValueType { actual: 99, .. });
    let mut deep = key().u32(9);
    for _ in 0..5 {
        deep = deep.u32(9).u64(1);
    }
    refused!(deep.data(64), GgufError::TooDeep { limit: 4, .. });
    refused!(
        Bytes::new(0, 2).text(b"k").u32(0).u8(1).text(b"k").u32(0).u8(1),
        GgufError::DuplicateKey { .. }
    );
    for alignment in [0, 3, 48, 1 << 31] {
        let bytes = Bytes::new(0, 1).text(b"general.alignment").u32(4).u32(alignment);
        refused!(bytes, GgufError::Alignment { .. });
    }
    refused!(Bytes::new(0, 1).text(b"general.alignment").u32(6).u32(0), GgufError::KeyType { .. });
}

#[test]
fn each_rule_of_tensors() {
    let one = || Bytes::new(1, 0);
    refused!(one().text(b"t").u32(5).data(64), GgufError::Count { what: "dimensions", .. });
    refused!(one().tensor("t", &[32], 4, 0).data(64), GgufError::UnknownType { actual: 4, .. });
    refused!(one().tensor("t", &[0, 32], 0, 0).data(64), GgufError::Dims { .. });
    refused!(one().tensor("t", &[1 << 33, 1 << 33], 0, 0).data(64), GgufError::Dims { .. });
    refused!(one().tensor("t", &[u64::MAX, 2], 0, 0).data(64), GgufError::Dims { .. });
    refused!(one().tensor("t", &[33], 8, 0).data(64), GgufError::RowLen { cols: 33, block: 32, .. });
    refused!(
        one().tensor("t", &[8], 0, 8).data(64),
        GgufError::Place { fault: "the offset is not aligned", .. }
    );
    refused!(
        one().tensor("t", &[17], 0, 0).data(64),
        GgufError::Place { fault: "it ends after the file", .. }
    );
    refused!(
        one().tensor("t", &[8], 0, u64::MAX - 31).data(64),
        GgufError::Place { fault: "it ends after the file", .. }
    );
    let two = |second: u64| Bytes::new(2, 0).tensor("a", &[16], 0, 0).tensor("b", &[8], 0, second).data(96);
    refused!(two(32), GgufError::Place { fault: "it overlaps the tensor before it", .. });
    assert!(open_bytes(&two(64).0).is_ok());
    let twice = Bytes::new(2, 0).tensor("a", &[8], 0, 0).tensor("a", &[8], 0, 32).data(64);
    refused!(twice, GgufError::DuplicateTensor { .. });
}

#[test]
fn seeded_mutations_never_panic() {
    let good = std::fs::read(fixture("types.gguf")).unwrap();
    let header = 2600; // metadata and tensor table
    let mut state = 99u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let (mut refused, mut read) = (0, 0);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    for case in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..1 + random() % 4 {
            let at = (random() % header) as usize;
            match random() % 4 {
                0 => bytes[at] = random() as u8,
                1 => bytes[at] ^= 1 << (random() % 8),
                2 => bytes[at..at + 8].copy_from_slice(&(u64::MAX >> (random() % 64)).to_le_bytes()),
                _ => bytes.truncate(at.max(1)),
            }
            if bytes.len() < good.len() {
                break;
            }
        }
        let verdict = Header::read(&mut &bytes[..], bytes.len() as u64);
        if case % 10 > 0 {
            continue;
        }
        std::fs::write(&path, &bytes).unwrap();
        match Gguf::open(&path) {
            Err(error) => {
                refused += 1;
                assert!(verdict.is_err());
                assert!(!error.to_string().is_empty());
            }
            Ok(gguf) => {
                read += 1;
                for tensor in gguf.tensors() {
                    let mut row = vec![0.0; tensor.info.cols()];
                    gguf.read_rows_f32(tensor, 0..1, &mut row).ok();
                }
            }
        }
    }
    println!("{refused} refused, {read} read");
    assert!(refused > 1000 && read > 100);
}
