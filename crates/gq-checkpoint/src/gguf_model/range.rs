//! Whether a type holds a tensor's weights: nothing becomes infinite, and numbers in half precision, scales of blocks
//! among them, do not lose small ones.

use crate::gguf::{GgmlType, decode_blocks, encode_blocks};

/// From here on f16 rounds to infinity.
const F16_OVERFLOW: f32 = 65520.0;
/// Root mean square below which f16 keeps a tensor less closely than to a thousandth: its smallest step is 2^-24, so that
/// errors are about 2^-26.
const F16_COARSE: f64 = 1.5e-5;

/// Largest weight below which scales of blocks may be too small for f16: they are down to a four-thousandth of it, and
/// below 2^-14 they lose bits.
const SMALL: f32 = 0.25;
/// Squared error of small weights by that of the larger ones from which on their type does not hold them.
const COARSER: f64 = 6.0;

/// Squared error by squared norm from which on blocks that others made do not hold their weights: two bits leave a tenth.
const LOST: f64 = 0.5;

/// A tensor that its type does not hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Beyond {
    /// Canonical name.
    pub name: String,
    /// The type that was to hold it.
    pub kind: GgmlType,
    /// One that does.
    pub holds: GgmlType,
    /// Its largest weight, without the sign.
    pub largest: f32,
}

/// What is seen of a tensor while it is encoded.
#[derive(Clone, Debug)]
pub(super) struct Reach {
    kind: GgmlType,
    largest: f32,
    energy: f64,
    count: usize,
    /// Squared error of blocks of small weights, and what it is of the same weights made larger.
    error: (f64, f64),
    /// Bits that bf16 cuts off, of all values.
    cut_bits: u32,
    infinite: bool,
}

impl Reach {
    pub(super) fn new(kind: GgmlType) -> Reach {
        Reach { kind, largest: 0.0, energy: 0.0, count: 0, error: (0.0, 0.0), cut_bits: 0, infinite: false }
    }

    /// Takes in whole rows and what they became. Gives the place of the first value that is no number or infinite.
    pub(super) fn rows(&mut self, values: &[f32], bytes: &[u8]) -> Option<usize> {
        let exponent = f32::INFINITY.to_bits();
        let mut bad = false;
        let (mut largest, mut energy) = (0.0f32, 0.0f64);
        for part in values.chunks(4096) {
            let mut sum = 0.0f32;
            for value in part {
                bad |= value.to_bits() & exponent == exponent;
                self.cut_bits |= value.to_bits() & 0xFFFF;
                largest = largest.max(value.abs());
                // In units in which no square that matters is lost.
                sum += (value * 1e9).powi(2).min(1e30);
            }
            energy += f64::from(sum);
        }
        if bad {
            return values.iter().position(|value| !value.is_finite());
        }
        self.largest = self.largest.max(largest);
        self.energy += energy * 1e-18;
        self.count += values.len();
        self.infinite |= match self.kind {
            GgmlType::F32 => false,
            GgmlType::F16 => largest >= F16_OVERFLOW,
            // Scales are f16 there: of at most the largest weight, and of a small part of it at the least.
            _ if (SMALL..65504.0).contains(&largest) => false,
            kind if largest < SMALL => {
                self.small(kind, values, bytes, largest);
                false
            }
            kind => {
                let mut decoded = vec![0.0; values.len()];
                decode_blocks(kind, bytes, &mut decoded);
                decoded.iter().any(|value| !value.is_finite())
            }
        };
        None
    }

    /// Takes in whole rows of finite values and the blocks that others made of them: what is beyond a scale's range leaves
    /// an error as large as the weights.
    pub(super) fn coded(&mut self, values: &[f32], bytes: &[u8]) {
        let mut decoded = vec![0.0; values.len()];
        decode_blocks(self.kind, bytes, &mut decoded);
        for (&value, &is) in values.iter().zip(&decoded) {
            let (value, is) = (f64::from(value), f64::from(is));
            self.error.0 += (value - is).powi(2);
            self.error.1 += value * value * LOST / COARSER;
            self.largest = self.largest.max(value.abs() as f32);
            self.cut_bits |= (value as f32).to_bits() & 0xFFFF;
            self.infinite |= !is.is_finite();
        }
    }

    /// Compares what blocks lose of small weights with what they lose of larger ones of the same kind.
    fn small(&mut self, kind: GgmlType, values: &[f32], bytes: &[u8], largest: f32) {
        // A power of two: nothing is rounded.
        let up = if largest > 0.0 { 2f32.powi((-largest.log2().floor() as i32).clamp(0, 120)) } else { 1.0 };
        let larger: Vec<f32> = values.iter().map(|value| value * up).collect();
        let (mut encoded, mut decoded) = (vec![0; bytes.len()], vec![0.0; values.len()]);
        encode_blocks(kind, &larger, &mut encoded);
        decode_blocks(kind, &encoded, &mut decoded);
        let error = |decoded: &[f32], by: f64| -> f64 {
            let pairs = larger.iter().zip(decoded);
            let sum: f64 = pairs.map(|(&large, &is)| (f64::from(large) - by * f64::from(is)).powi(2)).sum();
            sum / f64::from(up).powi(2)
        };
        self.error.1 += error(&decoded, 1.0);
        decode_blocks(kind, bytes, &mut decoded);
        self.error.0 += error(&decoded, f64::from(up));
    }

    /// A type that holds what this one does not: BF16 where that is exact, else F32.
    pub(super) fn beyond(&self, name: &str) -> Option<Beyond> {
        let mean = (self.energy / self.count.max(1) as f64).sqrt();
        let coarse = match self.kind {
            GgmlType::F16 => self.largest > 0.0 && mean < F16_COARSE,
            _ => self.error.0 > COARSER * self.error.1,
        };
        let holds = if self.cut_bits == 0 { GgmlType::BF16 } else { GgmlType::F32 };
        (self.infinite || coarse).then(|| Beyond {
            name: name.to_owned(),
            kind: self.kind,
            holds,
            largest: self.largest,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::encode_blocks;

    fn beyond(kind: GgmlType, values: &[f32]) -> Option<GgmlType> {
        let mut bytes = vec![0; kind.row_bytes(values.len()).unwrap()];
        encode_blocks(kind, values, &mut bytes);
        let mut reach = Reach::new(kind);
        assert_eq!(reach.rows(values, &bytes), None);
        reach.beyond("w").map(|beyond| beyond.holds)
    }

    #[test]
    fn types_hold_what_stays_finite_and_close() {
        let ordinary: Vec<f32> = (0..256).map(|i| ((i * 37 % 101) as f32 - 50.0) / 1024.0).collect();
        let with = |value: f32| [&[value], &ordinary[1..]].concat();
        let scaled = |factor: f32| ordinary.iter().map(|value| value * factor).collect::<Vec<_>>();
        for kind in GgmlType::all().filter(|kind| crate::gguf::is_encodable(*kind)) {
            assert_eq!(beyond(kind, &ordinary), None, "{kind}");
            assert_eq!(beyond(kind, &with(65504.0)), None, "{kind}");
        }
        use GgmlType as G;
        // Exact in bf16, and not.
        assert_eq!(beyond(G::F16, &with(98304.0)), Some(G::BF16));
        assert_eq!(beyond(G::F16, &with(100_001.0)), Some(G::F32));
        assert_eq!(beyond(G::F16, &with(65519.0)), None);
        assert_eq!(beyond(G::F16, &scaled(2f32.powi(-12))), Some(G::BF16));
        assert_eq!(beyond(G::F16, &vec![0.0; 256]), None);
        // Blocks have scales in f16, or none at all.
        for kind in GgmlType::all().filter(|kind| crate::gguf::is_encodable(*kind)) {
            let lost = (!matches!(kind, G::F32 | G::BF16)).then_some(G::BF16);
            assert_eq!(beyond(kind, &scaled(2f32.powi(-34))), lost, "{kind}");
            assert_eq!(beyond(kind, &vec![0.0; 256]), None, "{kind}");
        }
        assert_eq!(beyond(G::Q8_0, &scaled(2f32.powi(-4))), None);
        // A block's scale is a part of its largest weight.
        assert_eq!(beyond(G::Q8_0, &with(98304.0)), None);
        assert_eq!(beyond(G::Q8_0, &with(1e7)), Some(G::F32));
        assert_eq!(beyond(G::Q4_1, &with(-98304.0)), Some(G::BF16));
        assert_eq!(beyond(G::BF16, &with(3.4e38)), Some(G::F32));
        assert_eq!(beyond(G::BF16, &with(98304.0)), None);
    }

    #[test]
    fn what_is_no_number_is_found() {
        let mut reach = Reach::new(GgmlType::F16);
        assert_eq!(reach.rows(&[1.0, f32::NAN], &[]), Some(1));
        assert_eq!(reach.rows(&[f32::NEG_INFINITY], &[]), Some(0));
    }
}
