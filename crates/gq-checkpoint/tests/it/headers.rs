//! Headers next to the format's own implementation, and the caps that no small file can reach.

use gq_checkpoint::limits;
use gq_checkpoint::safetensors::{header_bytes, parse_header};
use safetensors::{SafeTensorError, SafeTensors};

fn file(json: &str, data: usize) -> Vec<u8> {
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend(json.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

/// Whether we and the `safetensors` crate take a file; what we take, it must describe alike.
pub fn verdicts(bytes: &[u8]) -> (bool, bool) {
    let ours = parse_header(bytes, bytes.len() as u64);
    let theirs = SafeTensors::read_metadata(bytes);
    if let (Ok(ours), Ok((length, theirs))) = (&ours, &theirs) {
        for entry in &ours.entries {
            let info = theirs.info(&entry.name).unwrap();
            let begin = entry.offset as usize - 8 - length;
            assert_eq!(info.data_offsets, (begin, begin + entry.bytes as usize));
            assert_eq!(
                (&info.shape, format!("{:?}", info.dtype)),
                (&entry.shape, entry.dtype.name().to_owned())
            );
        }
        assert_eq!(ours.entries.len(), theirs.tensors().len());
    }
    (ours.is_ok(), theirs.is_ok())
}

#[test]
fn both_parsers_judge_alike_but_for_what_we_refuse_on_purpose() {
    let tensor = |offsets: &str| format!(r#"{{"dtype":"BF16","shape":[2,2],"data_offsets":{offsets}}}"#);
    let (a, b) = (tensor("[0,8]"), tensor("[8,16]"));
    for (json, data, ours, theirs) in [
        (format!(r#"{{"a":{a},"b":{b}}}"#), 16, true, true),
        (format!(r#"{{"b":{b},"a":{a}}}   "#), 16, true, true),
        (format!(r#"{{"__metadata__":{{"format":"pt"}},"a":{a}}}"#), 8, true, true),
        (r#"{"a":{"dtype":"F32","shape":[0,3],"data_offsets":[0,0]}}"#.to_owned(), 0, true, true),
        (r#"{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}"#.to_owned(), 4, true, true),
        ("{}".to_owned(), 0, true, true),
        (format!(r#"{{"a":{a},"b":{}}}"#, tensor("[6,14]")), 14, false, false),
        (format!(r#"{{"a":{a},"b":{}}}"#, tensor("[9,17]")), 17, false, false),
        (format!(r#"{{"a":{a}}}"#), 9, false, false),
        (format!(r#"{{"a":{a}}}"#), 7, false, false),
        // One name twice: the crate keeps the last.
        (format!(r#"{{"a":{a},"a":{a}}}"#), 8, false, true),
        // Dtypes that no weight has.
        (r#"{"a":{"dtype":"C64","shape":[1],"data_offsets":[0,8]}}"#.to_owned(), 8, false, true),
    ] {
        assert_eq!(verdicts(&file(&json, data)), (ours, theirs), "{json} {data}");
    }
}

/// With [`both_parsers_judge_alike_but_for_what_we_refuse_on_purpose`] the reasons of
/// `docs/decisions/safetensors-headers.md`: where the crate does as well as this reader, the page goes.
#[test]
fn what_the_crate_does_not_give() {
    // It judges a whole file in memory; of weights only the header is read, and the file's length.
    let whole = file(r#"{"a":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]}}"#, 8);
    let head = &whole[..whole.len() - 8];
    assert_eq!(parse_header(head, whole.len() as u64).unwrap().entries.len(), 1);
    assert!(matches!(SafeTensors::read_metadata(head), Err(SafeTensorError::MetadataIncompleteBuffer)));
    // It does not say which tensor contradicts itself, nor how.
    let wrong = file(r#"{"a":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,7]}}"#, 7);
    let ours = parse_header(&wrong, wrong.len() as u64).unwrap_err().to_string();
    assert_eq!(ours, r#"tensor "a" has offsets 0..7, shape and dtype call for 8 bytes"#);
    let theirs = SafeTensors::read_metadata(&wrong).map(|_| ()).unwrap_err().to_string();
    assert!(!theirs.contains("\"a\"") && !theirs.contains('7') && !theirs.contains('8'), "{theirs}");
}

#[test]
fn a_stated_length_is_compared_before_anything_is_allocated() {
    let start = (limits::HEADER_BYTES + 1).to_le_bytes();
    let message = |file_bytes| header_bytes(&start, file_bytes).unwrap_err().to_string();
    assert_eq!(message(1 << 40), "header of 100000001 bytes, at most 100000000 are allowed");
    assert_eq!(message(1 << 20), "header of 100000001 bytes in a file of 1048576 bytes");
    assert_eq!(header_bytes(&100u64.to_le_bytes(), 108).unwrap(), 108);
}

#[test]
fn foreign_text_in_a_parser_message_is_escaped() {
    let json = format!(r#"{{"a":{{"{}\u001b[31m":1}}}}"#, "x".repeat(1000));
    let bytes = file(&json, 0);
    let message = parse_header(&bytes, bytes.len() as u64).unwrap_err().to_string();
    assert!(message.len() < 400 && !message.contains('\u{1b}') && message.contains("at line 1"), "{message}");
}
