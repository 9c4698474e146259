//! A checksum against accidents: torn writes, bad disks. It does not resist anyone who wants to deceive.

/// Lanes that do not wait for each other.
const LANES: usize = 4;
/// The 64-bit prime of FNV-1a.
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// FNV-1a over 8-byte words instead of bytes, in four interleaved lanes; every part must be whole words, except that
/// the last is filled with zeros.
#[derive(Clone, Debug)]
pub(crate) struct Checksum {
    lanes: [u64; LANES],
    words: u64,
}

impl Default for Checksum {
    fn default() -> Checksum {
        Checksum { lanes: [0xcbf2_9ce4_8422_2325; LANES], words: 0 }
    }
}

impl Checksum {
    /// Adds bytes.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        let (blocks, rest) = bytes.as_chunks::<{ 8 * LANES }>();
        for block in blocks {
            for (lane, word) in self.lanes.iter_mut().zip(block.as_chunks().0) {
                *lane = mix(*lane, u64::from_le_bytes(*word));
            }
        }
        self.words += 4 * blocks.len() as u64;
        for (lane, word) in self.lanes.iter_mut().zip(rest.chunks(8)) {
            let mut padded = [0; 8];
            padded.iter_mut().zip(word).for_each(|(to, from)| *to = *from);
            *lane = mix(*lane, u64::from_le_bytes(padded));
            self.words += 1;
        }
    }

    /// The checksum of everything added.
    pub(crate) fn finish(self) -> u64 {
        self.lanes.iter().fold(self.words, |sum, lane| mix(sum, *lane))
    }
}

/// One step; the rotation brings high bits, which multiplication never moves down, back into play.
fn mix(sum: u64, word: u64) -> u64 {
    (sum ^ word).wrapping_mul(PRIME).rotate_left(29)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> u64 {
        let mut checksum = Checksum::default();
        checksum.add(bytes);
        checksum.finish()
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_seen() {
        let bytes: Vec<u8> = (0..100).collect();
        let sum = of(&bytes);
        for bit in 0..800 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(of(&changed), sum, "bit {bit}");
        }
        assert_ne!(of(&bytes[..96]), sum);
        assert_ne!(of(&[0; 32]), of(&[0; 64]));
    }
}
