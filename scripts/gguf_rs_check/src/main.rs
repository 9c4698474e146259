//! gguf-rs 0.1.8 next to our reader: where it agrees, and the faults for which it is not used.
//!
//! `cargo test --manifest-path scripts/gguf_rs_check/Cargo.toml`. A test that fails means that gguf-rs got better.

fn main() {
    println!("run me with cargo test");
}

#[cfg(test)]
mod tests {
    use gguf_rs::{GGUFModel, get_gguf_container, get_gguf_container_array_size};
    use gq_checkpoint::gguf::{GgmlType, Gguf, Header, Metadata, NewTensor};
    use std::path::{Path, PathBuf};

    fn types() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/gguf/types.gguf")
    }

    fn decode(path: &Path) -> GGUFModel {
        get_gguf_container_array_size(path.to_str().unwrap(), u64::MAX).unwrap().decode().unwrap()
    }

    /// A file with one tensor of each given type, 4096 elements.
    fn file_of(kinds: &[GgmlType]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf");
        let tensors: Vec<_> = kinds
            .iter()
            .map(|&kind| NewTensor { name: kind.name().to_owned(), shape: vec![16, 256], kind })
            .collect();
        let mut writer = gq_checkpoint::gguf::GgufWriter::create(&path, &Metadata::default(), &tensors).unwrap();
        tensors.iter().for_each(|t| writer.append(&vec![0; t.bytes().unwrap() as usize]).unwrap());
        writer.finish().unwrap();
        (dir, path)
    }

    fn with_bytes(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf");
        std::fs::write(&path, bytes).unwrap();
        (dir, path)
    }

    fn header(tensors: u64, entries: u64) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3u32.to_le_bytes());
        bytes.extend(tensors.to_le_bytes());
        bytes.extend(entries.to_le_bytes());
        bytes
    }

    #[test]
    fn agrees_on_names_shapes_types_offsets_and_scalars() {
        let (theirs, ours) = (decode(&types()), Gguf::open(types()).unwrap());
        assert_eq!(theirs.num_kv() as usize, ours.metadata().len());
        assert_eq!(theirs.metadata()["value.u64"].to_string(), (2u64.pow(63) + 1).to_string());
        assert_eq!(theirs.metadata()["value.string"], "Grüße ▁");
        for (theirs_t, ours_t) in theirs.tensors().iter().zip(ours.tensors()) {
            let ours_t = &ours_t.info;
            assert_eq!((&theirs_t.name, theirs_t.kind), (&ours_t.name, ours_t.kind.code()));
            let shape: Vec<u64> = ours_t.shape.iter().rev().map(|&d| d as u64).collect();
            assert_eq!((theirs_t.shape.clone(), theirs_t.offset + theirs.data_offset()), (shape, ours_t.offset));
        }
    }

    #[test]
    fn agrees_on_these_sizes() {
        use GgmlType as T;
        let kinds = [T::F32, T::F16, T::Q4_0, T::Q5_1, T::Q8_0, T::Q2_K, T::Q3_K, T::Q4_K, T::Q6_K, T::IQ2_XXS, T::IQ4_XS, T::TQ1_0];
        let (_dir, path) = file_of(&kinds);
        for (theirs, ours) in decode(&path).tensors().iter().zip(Gguf::open(&path).unwrap().tensors()) {
            assert_eq!(theirs.size, ours.info.bytes, "{}", ours.info.kind);
        }
    }

    #[test]
    fn fault_sizes_of_types_with_other_blocks_than_256() {
        use GgmlType as T;
        let kinds = [T::Q8_1, T::IQ4_NL, T::I8, T::I32, T::F64, T::BF16, T::MXFP4];
        let (_dir, path) = file_of(&kinds);
        for (theirs, ours) in decode(&path).tensors().iter().zip(Gguf::open(&path).unwrap().tensors()) {
            assert_ne!(theirs.size, ours.info.bytes, "{}", ours.info.kind);
        }
    }

    #[test]
    fn fault_newer_types_are_unknown() {
        for kind in [GgmlType::Q1_0, GgmlType::Q2_0] {
            let (_dir, path) = file_of(&[kind]);
            assert!(get_gguf_container(path.to_str().unwrap()).unwrap().decode().is_err());
        }
    }

    #[test]
    fn fault_the_default_opener_keeps_three_tokens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf");
        let mut metadata = Metadata::default();
        let tokens = ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec();
        let tokens = gq_checkpoint::gguf::Value::Array(gq_checkpoint::gguf::Array::String(tokens));
        metadata.set("tokenizer.ggml.tokens", tokens);
        gq_checkpoint::gguf::GgufWriter::create(&path, &metadata, &[]).unwrap().finish().unwrap();
        let model = get_gguf_container(path.to_str().unwrap()).unwrap().decode().unwrap();
        assert_eq!(model.metadata()["tokenizer.ggml.tokens"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn fault_widths_of_integers_are_lost() {
        let model = decode(&types());
        assert_eq!(model.metadata()["value.u8"], 200); // as is value.u32: a writer cannot give them back
        assert_eq!(model.metadata()["array.u8"].as_array().unwrap()[0], 1);
    }

    #[test]
    fn fault_hostile_files_are_accepted() {
        let tensor = |dims: &[u64], kind: u32, offset: u64| {
            let mut bytes = header(1, 0);
            bytes.extend(1u64.to_le_bytes());
            bytes.push(b't');
            bytes.extend((dims.len() as u32).to_le_bytes());
            dims.iter().for_each(|d| bytes.extend(d.to_le_bytes()));
            bytes.extend(kind.to_le_bytes());
            bytes.extend(offset.to_le_bytes());
            bytes.resize(bytes.len() + 64, 0);
            bytes
        };
        let ends_after_the_file = tensor(&[1 << 20], 0, 0);
        let offset_overflows = tensor(&[8], 0, u64::MAX - 31);
        let misaligned = tensor(&[8], 0, 5);
        let split_block = tensor(&[33], 8, 0);
        let no_elements = tensor(&[0], 0, 0);
        for bytes in [ends_after_the_file, offset_overflows, misaligned, split_block, no_elements] {
            assert!(Header::read(&mut &bytes[..], bytes.len() as u64).is_err(), "ours refuses");
            let (_dir, path) = with_bytes(&bytes);
            assert!(get_gguf_container(path.to_str().unwrap()).unwrap().decode().is_ok(), "theirs does not");
        }
    }

    #[test]
    fn fault_a_key_given_twice_takes_the_last_and_bytes_that_are_no_text_are_replaced() {
        let mut bytes = header(0, 2);
        for value in [1u8, 2] {
            bytes.extend(1u64.to_le_bytes());
            bytes.extend(b"k\0\0\0\0");
            bytes.push(value);
        }
        let (_dir, path) = with_bytes(&bytes);
        assert_eq!(decode(&path).metadata()["k"], 2);
        let mut bytes = header(0, 1);
        bytes.extend(1u64.to_le_bytes());
        bytes.extend([0xFF, 0, 0, 0, 0, 7]);
        let (_dir, path) = with_bytes(&bytes);
        assert_eq!(decode(&path).metadata()["\u{FFFD}"], 7);
    }
}
