//! Valid files, damaged at random from a fixed seed: never a panic, a hang or an allocation beyond the file.

use crate::allocations;
use crate::forge::Forged;
use crate::golden::golden;
use gq_container::{StoredText, TextKind, VerifyError, limits, validate};
use std::collections::BTreeMap;
use std::time::Instant;

/// What a small file may make us allocate beyond its own length: entries of tables, names, a message.
const CONSTANT: usize = 64 << 10;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// Changes bytes in place: a bit, a byte, a number, or a copy from elsewhere.
fn damage(bytes: &mut [u8], begin: usize, random: &mut Random) {
    let at = begin + random.below(bytes.len() - begin);
    let room = bytes.len() - at;
    match random.below(4) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = [0, 1, 0x7F, 0x80, 0xFF, random.next() as u8][random.below(6)],
        2 => {
            let length = bytes.len() as u64;
            let values = [0, 1, 255, 256, length, length - 1, 1 << 28, 1 << 31, 1 << 32, 1 << 63, u64::MAX];
            let value = values[random.below(values.len())].to_le_bytes();
            let size = [2, 4, 8][random.below(3)].min(room);
            bytes[at..at + size].copy_from_slice(&value[..size]);
        }
        _ => {
            let size = random.below(room.min(64)) + 1;
            let from = random.below(bytes.len() - size + 1);
            bytes.copy_within(from..from + size, at);
        }
    }
}

/// Reads everything there is; gives the code of the rule that stopped it.
fn read(bytes: &[u8]) -> Result<(), VerifyError> {
    let layout = validate(bytes)?;
    for tensor in layout.tensors() {
        let payload = &bytes[tensor.offset as usize..(tensor.offset + tensor.bytes) as usize];
        let matrix = tensor.matrix(payload).unwrap();
        assert_eq!(matrix.codes().len() + matrix.scales().len(), payload.len());
        assert_eq!(layout.tensor(&tensor.name), Some(tensor));
    }
    layout.verify(bytes, |_, _| {})
}

/// Runs `cases` mutations of `valid`, of which every second is signed again; counts outcomes by code.
fn mutate(valid: &[u8], cases: usize, seed: u64) -> BTreeMap<&'static str, usize> {
    let mut random = Random(seed);
    let mut outcomes = BTreeMap::new();
    let begin = Instant::now();
    for case in 0..cases {
        let mut forged = Forged::new(valid.to_vec());
        let table = forged.entry(0);
        for _ in 0..=random.below(3) {
            let bytes = &mut forged.bytes;
            match random.below(4) {
                0 => damage(&mut bytes[..112], 0, &mut random),
                1 => damage(bytes, 0, &mut random),
                _ => damage(bytes, table, &mut random),
            }
        }
        let mut bytes = if case % 2 == 0 { forged.sign() } else { forged.bytes };
        match random.below(32) {
            0 => bytes.truncate(random.below(bytes.len())),
            1 => bytes.extend((0..random.below(300)).map(|_| random.next() as u8)),
            _ => {}
        }
        let before = Instant::now();
        let (outcome, peak) = allocations::peak(|| read(&bytes));
        let code = outcome.as_ref().map_or_else(VerifyError::code, |()| "valid");
        // Texts grow by at most the ratio, one at a time.
        let text = if code == "valid" { bytes.len() * limits::TEXT_RATIO as usize } else { 0 };
        assert!(peak <= bytes.len() + CONSTANT + text, "case {case}: {peak} bytes allocated, {code}");
        assert!(before.elapsed().as_secs() < 5, "case {case} hangs");
        *outcomes.entry(code).or_insert(0) += 1;
    }
    let rate = cases as f64 / begin.elapsed().as_secs_f64();
    println!("{cases} cases, {rate:.0} per second, {} outcomes: {outcomes:?}", outcomes.len());
    outcomes
}

#[test]
fn mutations_of_a_small_file() {
    let outcomes = mutate(&golden("v1-two-tensors.gq"), 150_000, 1);
    assert!(outcomes.len() >= 40, "the mutations reach too few rules: {outcomes:?}");
    assert!(outcomes.contains_key("text-corrupt") && outcomes.contains_key("payload-sha256"));
}

#[test]
fn mutations_of_a_file_with_every_encoding() {
    let outcomes = mutate(&golden("v1-everything.gq"), 5_000, 2);
    assert!(outcomes.len() >= 25, "the mutations reach too few rules: {outcomes:?}");
}

#[test]
fn a_bomb_is_refused_before_it_is_decompressed() {
    let plain = vec![b' '; 64 << 20];
    let bomb = zstd::bulk::compress(&plain, 9).unwrap();
    let mut forged = Forged::new(golden("v1-two-tensors.gq"));
    forged.last_text(1, plain.len() as u64, &bomb);
    let bytes = forged.fit().sign();
    let (outcome, peak) = allocations::peak(|| read(&bytes));
    assert_eq!(outcome.unwrap_err().code(), "text-ratio");
    assert!(peak < CONSTANT, "{peak}");
}

#[test]
fn texts_that_shrink_too_much_are_stored_as_they_are() {
    let text = " ".repeat(1 << 20);
    let stored = StoredText::new(TextKind::Report, &text).unwrap();
    assert_eq!(stored.stored_bytes(), 1 << 20);
    let settings = "{\"relative_mse\": 0.0095, \"encoding\": \"tq4\"}, 1234567890".repeat(8);
    let stored = StoredText::new(TextKind::Report, &settings).unwrap();
    assert!(stored.stored_bytes() < settings.len() as u64 / 4, "{}", stored.stored_bytes());
}
