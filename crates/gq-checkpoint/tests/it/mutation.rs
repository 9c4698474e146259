//! Valid files, damaged at random from a seed: never a panic, a hang, or memory beyond the files and a constant.

use crate::headers::verdicts;
use crate::support::testdata;
use gq_checkpoint::safetensors::{parse_header, parse_index};
use gq_checkpoint::{Shard, check_tensors, parse_config};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Damaged sets; with the smallest a second parser judges too.
const CASES: u64 = 48_000;

/// What validation may hold next to the files: layers and expected tensors of the deepest model that the caps allow.
const CONSTANT: usize = 32 << 20;

#[global_allocator]
static MEMORY: peak_alloc::PeakAlloc = peak_alloc::PeakAlloc;

/// One measurement at a time: there is one peak.
static MEASURING: Mutex<()> = Mutex::new(());

/// A checkpoint in memory.
#[derive(Clone)]
struct Files {
    config: Vec<u8>,
    index: Option<Vec<u8>>,
    shards: Vec<(String, Vec<u8>)>,
}

impl Files {
    fn load(folder: &str) -> Files {
        let mut files = Files { config: Vec::new(), index: None, shards: Vec::new() };
        let mut entries: Vec<_> =
            std::fs::read_dir(testdata(folder)).unwrap().map(|entry| entry.unwrap()).collect();
        entries.sort_by_key(|entry| entry.file_name());
        for entry in entries {
            let name = entry.file_name().into_string().unwrap();
            let bytes = std::fs::read(entry.path()).unwrap();
            match name.as_str() {
                "config.json" => files.config = bytes,
                "model.safetensors.index.json" => files.index = Some(bytes),
                _ if name.starts_with("model") => files.shards.push((name, bytes)),
                _ => {}
            }
        }
        files
    }

    fn bytes(&self) -> usize {
        let shards: usize = self.shards.iter().map(|(_, bytes)| bytes.len()).sum();
        self.config.len() + self.index.as_ref().map_or(0, Vec::len) + shards
    }

    /// Everything that opening a directory validates; whether it is valid.
    fn validate(&self) -> bool {
        let Ok(Ok(spec)) = std::str::from_utf8(&self.config).map(parse_config) else { return false };
        let Ok(index) = self.index.as_deref().map(parse_index).transpose() else { return false };
        let mut shards = Vec::new();
        for (name, bytes) in &self.shards {
            let Ok(header) = parse_header(bytes, bytes.len() as u64) else { return false };
            for entry in &header.entries {
                assert!(entry.offset + entry.bytes <= bytes.len() as u64);
            }
            shards.push(Shard { name: name.clone(), header });
        }
        check_tensors(&spec, index.as_ref(), &shards).is_ok()
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

const TOKENS: [&str; 16] = [
    "0",
    "-1",
    "1e999",
    "18446744073709551615",
    "4294967296",
    "1000000",
    "null",
    "true",
    "[]",
    "{}",
    "\"\"",
    "\"a\":",
    "[[[[[[[[",
    "\\u0000",
    "\u{202e}",
    ",",
];

/// Damages `bytes` once.
fn damage(bytes: &mut Vec<u8>, random: &mut Random, span: usize) {
    let at = random.below(span.min(bytes.len()));
    match random.below(9) {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
        1 if !bytes.is_empty() => bytes[at] = random.next() as u8,
        2 => bytes.truncate(at),
        3 => {
            let end = (at + random.below(64)).min(bytes.len());
            bytes.drain(at..end);
        }
        4 => {
            let end = (at + random.below(64)).min(bytes.len());
            let copy = bytes[at..end].to_vec();
            let to = random.below(span.min(bytes.len()));
            bytes.splice(to..to, copy);
        }
        5 => {
            bytes.splice(at..at, TOKENS[random.below(TOKENS.len())].bytes());
        }
        6 | 7 => {
            // A number in place of a number.
            let digit = (at..bytes.len()).find(|at| bytes[*at].is_ascii_digit()).unwrap_or(bytes.len());
            let end = (digit..bytes.len()).find(|at| !bytes[*at].is_ascii_digit()).unwrap_or(bytes.len());
            bytes.splice(digit..end, TOKENS[random.below(6)].bytes());
        }
        _ => {
            let length = random.next() >> random.below(64);
            bytes.splice(..bytes.len().min(8), length.to_le_bytes());
        }
    }
}

#[test]
fn damaged_files_are_judged_in_bounded_time_and_memory() {
    let _alone = MEASURING.lock().unwrap();
    let folders = [
        "malformed/checkpoint/valid-sharded",
        "malformed/checkpoint/valid-f8",
        "tiny/gemma4-moe",
        "tiny/gemma3",
        "tiny/gemma4-vision",
    ];
    let sets: Vec<Files> = folders.into_iter().map(Files::load).collect();
    assert!(sets.iter().all(Files::validate));
    let mut random = Random(20_240_611);
    let (mut valid, mut slowest, mut most) = (0, Duration::ZERO, 0);
    for case in 0..CASES {
        // The small sets mostly: their headers are damaged more densely.
        let set = if random.below(8) == 0 { 2 + random.below(3) } else { random.below(2) };
        let mut files = sets[set].clone();
        for _ in 0..1 + random.below(3) {
            match random.below(4) {
                0 => damage(&mut files.config, &mut random, usize::MAX),
                1 if files.index.is_some() => {
                    damage(files.index.as_mut().unwrap(), &mut random, usize::MAX);
                }
                _ => {
                    let shard = random.below(files.shards.len());
                    let bytes = &mut files.shards[shard].1;
                    let header = bytes.first_chunk::<8>().map_or(8, |length| u64::from_le_bytes(*length));
                    damage(bytes, &mut random, usize::try_from(header).unwrap_or(8).saturating_add(16));
                }
            }
        }
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let start = Instant::now();
        valid += u64::from(files.validate());
        slowest = slowest.max(start.elapsed());
        let used = MEMORY.peak_usage().saturating_sub(before);
        most = most.max(used);
        assert!(used <= files.bytes() + CONSTANT, "case {case}: {used} bytes");
        if set < 2 {
            for (_, bytes) in &files.shards {
                let (ours, theirs) = verdicts(bytes);
                assert!(theirs || !ours, "case {case}: a file that the safetensors crate refuses");
            }
        }
    }
    println!("{valid} of {CASES} still valid, slowest {slowest:?}, most {most} bytes");
    assert!(slowest < Duration::from_secs(5));
    assert!(valid > 0 && valid < CASES / 2);
}

/// The largest model that the caps allow costs a bounded amount.
#[test]
fn the_largest_claims_stay_within_the_constant() {
    let _alone = MEASURING.lock().unwrap();
    let per_layer: String =
        (0..1024).map(|layer| format!(r#","{layer}":{{"head_dim":{}}}"#, 2 * (2048 - layer))).collect();
    let config = format!(
        r#"{{"model_type":"gemma4_text","num_hidden_layers":1024,"enable_moe_block":true,"num_experts":16384,
        "top_k_experts":8,"moe_intermediate_size":524288,"per_layer_config":{{{}}}}}"#,
        per_layer.trim_start_matches(',')
    );
    // Other tests allocate meanwhile: the least of several counts.
    let measured = (0..5).map(|_| {
        let start = Instant::now();
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let spec = parse_config(&config).unwrap();
        let tensors = spec.expected_tensors();
        let used = MEMORY.peak_usage().saturating_sub(before);
        println!("{used} bytes, {:?}", start.elapsed());
        assert!(tensors.len() > 20_000 && start.elapsed() < Duration::from_secs(5));
        used
    });
    let used = measured.min().unwrap();
    assert!(used <= config.len() + CONSTANT, "{used} bytes");
}
