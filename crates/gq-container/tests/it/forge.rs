//! Files made byte by byte: the golden ones, and one malformed file per broken rule.

use gq_container::{Provenance, Source, SourceFile, StoredText, TensorSpec, TextKind, Writer, validate};
use gq_tensor::{DType, Encoding, RotationKind, RotationSpec};
use sha2::{Digest, Sha256};
use std::path::Path;

const HADAMARD: RotationSpec = RotationSpec { kind: RotationKind::Hadamard, seed: 7 };
const FIXED: usize = 96;
const TEXT_ENTRY: usize = 32;

/// Payload bytes that look like nothing in particular.
pub fn noise(seed: u64, bytes: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..bytes).map(next).collect()
}

pub fn spec(name: &str, shape: &[u64], encoding: Encoding) -> TensorSpec {
    let rotation = if encoding.is_exact() { RotationSpec::NONE } else { HADAMARD };
    let source_dtype = DType::BF16;
    TensorSpec { name: name.to_owned(), shape: shape.to_vec(), encoding, rotation, source_dtype }
}

fn write(dir: &Path, tensors: &[TensorSpec], texts: Vec<StoredText>) -> Vec<u8> {
    let path = dir.join("forged.gq");
    let mut writer = Writer::create(&path).unwrap();
    for (seed, spec) in tensors.iter().enumerate() {
        let payload = noise(seed as u64, spec.payload_bytes().unwrap());
        writer.write_tensor(spec.clone(), &payload).unwrap();
    }
    writer.finish(texts).unwrap();
    std::fs::read(&path).unwrap()
}

/// The worked example of the format: two f32 values and an empty configuration.
pub fn smallest(dir: &Path) -> Vec<u8> {
    let mut spec = spec("w", &[2], Encoding::Exact(DType::F32));
    spec.source_dtype = DType::F32;
    let path = dir.join("smallest.gq");
    let mut writer = Writer::create(&path).unwrap();
    writer.write_tensor(spec, &[1.0_f32.to_le_bytes(), (-2.0_f32).to_le_bytes()].concat()).unwrap();
    writer.finish(vec![StoredText::new(TextKind::Config, "{}").unwrap()]).unwrap();
    std::fs::read(&path).unwrap()
}

/// What the malformed files are made from: two tensors, three texts.
pub fn two_tensors(dir: &Path) -> Vec<u8> {
    let tq4 = Encoding::from_name("tq4").unwrap();
    let tensors = [spec("norm", &[96], Encoding::Exact(DType::BF16)), spec("proj", &[2, 32], tq4)];
    let config = format!("{{\"layers\": [{}0]}}", "0, ".repeat(60));
    let texts = [(TextKind::Config, config.as_str()), (TextKind::ChatTemplate, "{{ x }}")];
    let mut texts: Vec<_> = texts.map(|(kind, text)| StoredText::new(kind, text).unwrap()).into();
    texts.push(provenance().to_text().unwrap());
    write(dir, &tensors, texts)
}

pub fn provenance() -> Provenance {
    let sha256 = gq_container::Digest::of(b"source");
    let file = SourceFile { name: "model.safetensors".to_owned(), bytes: 6, sha256 };
    Provenance {
        tool: "gq".to_owned(),
        version: "0.1.0".to_owned(),
        source: Source {
            repo: Some("someone/model".to_owned()),
            revision: None,
            files: vec![file],
            adapters: vec![],
            texts: None,
            quantized: None,
        },
        recipe: serde_json::json!({"encoding": "tq4"}),
        calibration_sha256: None,
        seed: 7,
        scales_tuned: None,
        rounded_again: None,
    }
}

/// Every encoding of the first version, rank and text kind, and a name that must be escaped when shown.
pub fn everything(dir: &Path) -> Vec<u8> {
    let mut tensors: Vec<_> = Encoding::all()
        .into_iter()
        .filter(|e| e.strip_rows() == 1 && !e.is_grid())
        .map(|e| spec(&format!("every.{e}"), &[2, 128], e))
        .collect();
    let f32 = Encoding::Exact(DType::F32);
    tensors.push(spec("rank 0", &[], f32));
    tensors.push(spec("rank 3", &[2, 3, 64], Encoding::from_name("tq3-g32").unwrap()));
    tensors.push(spec("rank 4", &[2, 1, 3, 5], f32));
    tensors.push(spec("\u{fc}\u{1b}[31m\n\u{202e}", &[1], f32));
    let haar = RotationSpec { kind: RotationKind::Haar, seed: u64::MAX };
    let haar = TensorSpec { rotation: haar, ..spec("haar", &[1, 32], Encoding::from_name("tq8").unwrap()) };
    tensors.push(TensorSpec { source_dtype: DType::F8E5M2, ..haar });
    let mut texts: Vec<_> = TextKind::ALL
        .into_iter()
        .filter(|kind| *kind != TextKind::Provenance)
        .map(|kind| {
            StoredText::new(kind, &format!("{{\"\u{e4}\": \"{}\"}}", kind.name().repeat(20))).unwrap()
        })
        .collect();
    texts.push(provenance().to_text().unwrap());
    write(dir, &tensors, texts)
}

/// Every trellis code: rows that do not fill bytes, two strips, two matrices stacked.
pub fn trellis(dir: &Path) -> Vec<u8> {
    let mut tensors = strips(|encoding| !encoding.name().ends_with("-s14"));
    tensors.push(spec("two strips", &[260, 32], Encoding::from_name("tt2").unwrap()));
    write(dir, &tensors, vec![provenance().to_text().unwrap()])
}

/// The trellis codes that came later, in a file of their own: files that were written stay as they are.
pub fn trellis_s14(dir: &Path) -> Vec<u8> {
    let tensors = strips(|encoding| encoding.name().ends_with("-s14"));
    write(dir, &tensors, vec![provenance().to_text().unwrap()])
}

/// A matrix of few rows and a stack for each encoding that codes rows together.
fn strips(wanted: fn(Encoding) -> bool) -> Vec<TensorSpec> {
    let mut tensors = Vec::new();
    for encoding in Encoding::all().into_iter().filter(|e| e.strip_rows() > 1 && wanted(*e)) {
        tensors.push(spec(&format!("{encoding}.short"), &[3, 32], encoding));
        tensors.push(spec(&format!("{encoding}.stacked"), &[2, 13, 32], encoding));
    }
    tensors
}

/// `two_tensors` with a text of a kind that nobody knows, which readers must skip.
pub fn skippable(dir: &Path) -> Vec<u8> {
    let mut forged = Forged::new(two_tensors(dir));
    let (table_end, count) = (forged.text(0) + forged.texts() * TEXT_ENTRY, forged.texts());
    for i in 0..count {
        forged.add_u64(forged.text(i) + 8, TEXT_ENTRY as u64);
    }
    let text = b"\xff\xfe not even a text";
    let mut entry = vec![0; TEXT_ENTRY];
    entry[..2].copy_from_slice(&0xFFF0_u16.to_le_bytes());
    entry[8..16].copy_from_slice(&((forged.bytes.len() + TEXT_ENTRY) as u64).to_le_bytes());
    entry[16..24].copy_from_slice(&(text.len() as u64).to_le_bytes());
    entry[24..32].copy_from_slice(&(text.len() as u64).to_le_bytes());
    forged.bytes.splice(table_end..table_end, entry);
    forged.bytes.extend(text);
    forged.put_u32(44, count as u32 + 1);
    forged.fit().sign()
}

/// A file being tampered with. The tables' places are those of the valid file it was made from.
pub struct Forged {
    pub bytes: Vec<u8>,
    table: usize,
    entries: Vec<usize>,
    text_table: usize,
}

impl Forged {
    pub fn new(bytes: Vec<u8>) -> Forged {
        let layout = validate(&bytes).unwrap();
        let table = layout.header().table_offset as usize;
        let mut entries = vec![table];
        for tensor in layout.tensors() {
            entries.push(entries.last().unwrap() + FIXED + tensor.name.len());
        }
        let text_table = entries.pop().unwrap();
        Forged { bytes, table, entries, text_table }
    }

    /// Where a tensor's entry begins.
    pub fn entry(&self, i: usize) -> usize {
        self.entries[i]
    }

    /// Where a text's entry begins.
    pub fn text(&self, i: usize) -> usize {
        self.text_table + i * TEXT_ENTRY
    }

    pub fn texts(&self) -> usize {
        u32::from_le_bytes(self.bytes[44..48].try_into().unwrap()) as usize
    }

    pub fn get_u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes[at..at + 8].try_into().unwrap())
    }

    pub fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub fn put_u32(&mut self, at: usize, value: u32) {
        self.put(at, &value.to_le_bytes());
    }

    pub fn put_u64(&mut self, at: usize, value: u64) {
        self.put(at, &value.to_le_bytes());
    }

    pub fn add_u64(&mut self, at: usize, more: u64) {
        self.put_u64(at, self.get_u64(at).wrapping_add(more));
    }

    /// Replaces the last text's stored bytes.
    pub fn last_text(&mut self, coding: u8, plain_bytes: u64, stored: &[u8]) {
        let entry = self.text(self.texts() - 1);
        let offset = self.get_u64(entry + 8) as usize;
        self.bytes.truncate(offset);
        self.bytes.extend(stored);
        self.bytes[entry + 2] = coding;
        self.put_u64(entry + 16, stored.len() as u64);
        self.put_u64(entry + 24, plain_bytes);
    }

    /// Corrects the length in the header.
    pub fn fit(mut self) -> Forged {
        self.put_u64(16, self.bytes.len() as u64);
        self
    }

    /// Corrects both digests as far as the tables can be followed.
    pub fn sign(mut self) -> Vec<u8> {
        let mut entries: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for &at in &self.entries {
            let length = usize::from(u16::from_le_bytes(self.bytes[at + 94..at + 96].try_into().unwrap()));
            let mut entry = self.bytes[at..(at + FIXED + length).min(self.bytes.len())].to_vec();
            entry[..8].fill(0);
            entries.push((entry[FIXED..].to_vec(), entry));
        }
        entries.sort();
        let digest =
            entries.iter().fold(Sha256::new(), |hash, (_, entry)| hash.chain_update(entry)).finalize();
        self.put(48, &digest);
        self.sign_file()
    }

    /// Corrects the file's digest alone.
    pub fn sign_file(mut self) -> Vec<u8> {
        self.put(80, &[0; 32]);
        let hash = Sha256::new().chain_update(&self.bytes[..256]).chain_update(&self.bytes[self.table..]);
        let digest = hash.finalize();
        self.put(80, &digest);
        self.bytes
    }
}

/// One file per broken rule: the rule's code, two hyphens and a variant where there are several, and the bytes.
pub fn malformed(valid: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let forge = || Forged::new(valid.to_vec());
    let signed = |change: &dyn Fn(&mut Forged)| {
        let mut forged = forge();
        change(&mut forged);
        forged.sign()
    };
    let fitted = |change: &dyn Fn(&mut Forged)| {
        let mut forged = forge();
        change(&mut forged);
        forged.fit().sign()
    };
    let raw = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = valid.to_vec();
        change(&mut bytes);
        bytes
    };
    let (norm, proj) = (forge().entry(0), forge().entry(1));
    let [config, template, last] = [0, 1, 2].map(|i| forge().text(i));
    let frame = |text: &[u8]| zstd::bulk::compress(text, 9).unwrap();
    vec![
        ("too-short", raw(&|b| b.truncate(100))),
        ("too-short--empty", Vec::new()),
        ("magic", signed(&|f| f.put(1, b"Q"))),
        ("version", signed(&|f| f.put(8, &[2, 0]))),
        ("features", signed(&|f| f.put_u32(12, 1))),
        ("header-reserved", signed(&|f| f.put(200, &[1]))),
        ("file-bytes--truncated", raw(&|b| b.truncate(b.len() - 1))),
        ("file-bytes--appended", raw(&|b| b.push(0))),
        ("tensor-count", signed(&|f| f.put_u32(40, (1 << 20) + 1))),
        ("text-count", signed(&|f| f.put_u32(44, 65))),
        ("table-offset--unaligned", signed(&|f| f.add_u64(24, 8))),
        ("table-offset--header", signed(&|f| f.put_u64(24, 0))),
        ("table-offset--past-end", signed(&|f| f.put_u64(24, 1 << 40))),
        ("table-bytes", signed(&|f| f.put_u64(32, u64::MAX))),
        ("table-room", signed(&|f| f.put_u32(40, 3))),
        ("table-leftover", signed(&|f| f.put_u32(40, 1))),
        ("gap", {
            let mut f = forge();
            [config, template, last].into_iter().for_each(|at| f.add_u64(at + 8, 256));
            f.add_u64(24, 256);
            let table = f.table;
            f.bytes.splice(table..table, [0; 256]);
            f.table += 256;
            f.entries.iter_mut().for_each(|at| *at += 256);
            f.fit().sign()
        }),
        ("duplicate-name", signed(&|f| f.put(proj + FIXED, b"norm"))),
        ("padding", signed(&|f| f.put(511, &[1]))),
        ("payload-digest", {
            let mut f = forge();
            f.put(48, &[0; 32]);
            f.sign_file()
        }),
        ("text-table", signed(&|f| f.put_u32(44, 64))),
        ("text-leftover", fitted(&|f| f.bytes.push(b' '))),
        ("file-digest--header", raw(&|b| b[10] ^= 1)),
        ("file-digest--text", raw(&|b| *b.last_mut().unwrap() ^= 1)),
        ("entry-truncated--fixed", signed(&|f| f.put_u64(32, (proj - norm + 95) as u64))),
        ("entry-truncated--name", signed(&|f| f.put(proj + 94, &[5, 0]))),
        ("name-length--empty", signed(&|f| f.put(norm + 94, &[0, 0]))),
        ("name-length--long", signed(&|f| f.put(norm + 94, &[1, 4]))),
        ("name-utf8", signed(&|f| f.put(norm + FIXED, &[0xFF]))),
        ("entry-reserved", signed(&|f| f.put(norm + 93, &[1]))),
        ("rank", signed(&|f| f.put(norm + 92, &[5]))),
        ("unused-dimension", signed(&|f| f.put_u64(norm + 24 + 24, 1))),
        ("dimension--zero", signed(&|f| f.put_u64(proj + 24, 0))),
        ("dimension--huge", signed(&|f| f.put_u64(proj + 24, (1 << 28) + 1))),
        (
            "shape-overflow",
            signed(&|f| {
                (0..4).for_each(|i| f.put_u64(norm + 24 + 8 * i, 1 << 28));
                f.put(norm + 92, &[4]);
            }),
        ),
        ("encoding--unknown", signed(&|f| f.put(norm + 88, &[0xFF, 0xFF]))),
        ("encoding--zero", signed(&|f| f.put(norm + 88, &[0, 0]))),
        ("rotation", signed(&|f| f.put(proj + 90, &[9]))),
        ("seed", signed(&|f| f.put_u64(norm + 16, 1))),
        ("rotated-exact", signed(&|f| f.put(norm + 90, &[1]))),
        ("source-dtype--zero", signed(&|f| f.put(norm + 91, &[0]))),
        ("source-dtype--unknown", signed(&|f| f.put(norm + 91, &[13]))),
        ("width", signed(&|f| f.put_u64(proj + 32, 33))),
        ("payload-bytes", signed(&|f| f.add_u64(proj + 8, 1))),
        ("payload-offset--overlap", signed(&|f| f.put_u64(proj, 256))),
        ("payload-offset--hole", signed(&|f| f.put_u64(proj, 768))),
        ("payload-offset--header", signed(&|f| f.put_u64(norm, 0))),
        (
            "payload-past-table",
            signed(&|f| {
                f.put_u64(proj + 24, 1 << 20);
                f.put_u64(proj + 8, 18 << 20);
            }),
        ),
        ("text-kind", signed(&|f| f.put(template, &[100, 0]))),
        ("text-order--twice", signed(&|f| f.put(template, &[1, 0]))),
        ("text-order--descending", signed(&|f| f.put(config, &[5, 0]))),
        ("text-reserved", signed(&|f| f.put(config + 7, &[1]))),
        ("text-coding", signed(&|f| f.put(config + 2, &[2]))),
        ("text-offset", signed(&|f| f.add_u64(template + 8, 1))),
        ("text-stored-bytes", signed(&|f| f.put_u64(last + 16, u64::MAX))),
        ("text-plain-bytes", signed(&|f| f.put_u64(last + 24, (256 << 20) + 1))),
        ("text-plain-differs", signed(&|f| f.add_u64(template + 24, 1))),
        ("text-ratio", fitted(&|f| f.last_text(1, 1 << 20, &frame(&vec![b' '; 1 << 20])))),
        ("text-frame--magic", fitted(&|f| f.last_text(1, 20, b"twenty bytes of text"))),
        ("text-frame--two", fitted(&|f| f.last_text(1, 20, &[frame(&[b' '; 20]), frame(b"")].concat()))),
        (
            "text-frame--cut",
            fitted(&|f| {
                let whole = frame(b"one two three four five six seven");
                f.last_text(1, 33, &whole[..whole.len() - 1]);
            }),
        ),
        ("text-frame-content", fitted(&|f| f.last_text(1, 21, &frame(&[b' '; 20])))),
        (
            "text-corrupt--bomb",
            fitted(&|f| {
                // A frame of a megabyte that says it holds 256 + 256 bytes (RFC 8878, section 3.1.1.1).
                let mut bomb = frame(&vec![b' '; 1 << 20]);
                let magic_and_descriptor = bomb[..4].to_vec();
                let blocks = bomb.split_off(9);
                let header = [&magic_and_descriptor[..], &[0x60, 0, 1]].concat();
                f.last_text(1, 512, &[header, blocks].concat());
            }),
        ),
        (
            "text-corrupt--short",
            fitted(&|f| {
                // A frame of 20 bytes that says it holds 21.
                let mut short = frame(&[b' '; 20]);
                short[5] += 1;
                f.last_text(1, 21, &short);
            }),
        ),
        ("text-utf8", fitted(&|f| f.last_text(0, 3, b"a\xFFb"))),
        ("text-json", fitted(&|f| f.last_text(0, 14, b"{\"tool\": \"gq\"}"))),
        ("payload-sha256", raw(&|b| b[256] ^= 1)),
    ]
}
