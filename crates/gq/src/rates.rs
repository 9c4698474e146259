//! How fast bytes go on this machine, from short trials.

use sha2::{Digest, Sha256};
use std::sync::OnceLock;
use std::time::Instant;

/// Bytes of a trial.
const TRIAL: u64 = 8 << 20;

/// Bytes a second that a disk takes which is not known: a solid-state one of the slower kind.
const WRITTEN: f64 = 5e8;

/// Seconds that the sha256 of so many bytes takes, on one thread, where the disk keeps up.
pub fn digesting(bytes: u64) -> f64 {
    static TRIED: OnceLock<f64> = OnceLock::new();
    // Less than a trial takes is nobody's concern.
    if bytes <= TRIAL {
        return 0.0;
    }
    let rate = TRIED.get_or_init(|| {
        // Pages that were touched before, as those of a file that is read.
        let bytes = vec![1u8; TRIAL as usize];
        let began = Instant::now();
        std::hint::black_box(Sha256::digest(&bytes));
        TRIAL as f64 / began.elapsed().as_secs_f64().max(1e-9)
    });
    bytes as f64 / rate
}

/// Seconds that writing so many bytes takes.
pub fn writing(bytes: u64) -> f64 {
    bytes as f64 / WRITTEN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_take_what_their_bytes_take() {
        let (one, two) = (digesting(1 << 30), digesting(2 << 30));
        assert!(one > 0.05 && (two / one - 2.0).abs() < 1e-9, "{one} {two}");
        assert_eq!(digesting(1), 0.0);
    }
}
