//! SplitMix64 (Steele, Lea and Flood 2014): seeded words, the same on every machine. What files hold depends on it.

/// A stream of 64-bit words that is read in order, or at any place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    /// What the state grows by from word to word.
    pub const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

    /// The stream of a seed.
    pub const fn new(seed: u64) -> SplitMix64 {
        SplitMix64 { state: seed }
    }

    /// The output function: scatters the bits of a state.
    pub const fn mix(state: u64) -> u64 {
        let z = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    /// The next word.
    pub const fn next_word(&mut self) -> u64 {
        self.state = self.state.wrapping_add(Self::STEP);
        Self::mix(self.state)
    }

    /// Word number `index` from here, counted from 0.
    pub const fn word(self, index: u64) -> u64 {
        Self::mix(self.state.wrapping_add(Self::STEP.wrapping_mul(index.wrapping_add(1))))
    }

    /// The upper 53 bits of a word as a number in [0, 1).
    pub const fn unit(word: u64) -> f64 {
        (word >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_that_were_published() {
        // Of the generator seeded with 1234567.
        let mut stream = SplitMix64::new(1_234_567);
        assert_eq!([stream.word(0), stream.word(1)], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
        assert_eq!(
            [stream.next_word(), stream.next_word()],
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]
        );
        assert_eq!(stream.word(0), SplitMix64::new(1_234_567).word(2));
        assert_eq!((SplitMix64::unit(0), SplitMix64::unit(u64::MAX)), (0.0, 1.0 - f64::EPSILON / 2.0));
    }
}
