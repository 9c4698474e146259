//! What a reader must find in a file, as JSON that readers in any language can compare with.

use gq_container::{Digest, TextKind, validate};
use serde_json::{Value, json};

pub fn listing(bytes: &[u8]) -> String {
    let layout = validate(bytes).unwrap();
    let header = layout.header();
    let text = |entry: &gq_container::TextEntry| {
        let kind = TextKind::from_code(entry.kind);
        let text = kind.map(|kind| layout.text(bytes, kind).unwrap().unwrap());
        json!({
            "kind": entry.kind,
            "name": kind.map(TextKind::name),
            "coding": entry.coding,
            "offset": entry.offset,
            "stored_bytes": entry.stored_bytes,
            "plain_bytes": entry.plain_bytes,
            "sha256": text.map(|text| Digest::of(text.as_bytes())),
        })
    };
    let texts: Vec<Value> = layout.texts().iter().map(text).collect();
    let listing = json!({
        "file_bytes": header.file_bytes,
        "payload_sha256": header.payload_sha256,
        "file_sha256": header.file_sha256,
        "tensors": layout.tensors(),
        "texts": texts,
    });
    let mut text = serde_json::to_string_pretty(&listing).unwrap();
    text.push('\n');
    text
}
