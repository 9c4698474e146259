//! `cvt`: between integers, and to and from floats.

use crate::arithmetic::canonical;
use crate::types::{LANES, Row, Type};
use half::{bf16, f16};

/// One conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Conversion {
    to: Type,
    from: Type,
    rounding: Rounding,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rounding {
    /// Exact, or an integer cut to its width.
    None,
    /// To the nearest float, ties to even.
    Nearest,
    /// To an integer: nearest even, towards zero, down, up.
    IntegerNearest,
    IntegerZero,
    IntegerDown,
    IntegerUp,
}

impl Conversion {
    /// From the parts of the opcode after `cvt`; `None` where it is not known or has no defined bits.
    pub(crate) fn of(parts: &[&str]) -> Option<Conversion> {
        let (rounding, types) = match parts {
            ["rn", types @ ..] => (Rounding::Nearest, types),
            ["rni", types @ ..] => (Rounding::IntegerNearest, types),
            ["rzi", types @ ..] => (Rounding::IntegerZero, types),
            ["rmi", types @ ..] => (Rounding::IntegerDown, types),
            ["rpi", types @ ..] => (Rounding::IntegerUp, types),
            types => (Rounding::None, types),
        };
        let [to, from] = types else { return None };
        let (to, from) = (Type::of(to)?, Type::of(from)?);
        let integral = !matches!(rounding, Rounding::None | Rounding::Nearest);
        let known = match (to.is_float(), from.is_float()) {
            (false, false) => rounding == Rounding::None,
            (false, true) => integral,
            (true, false) => rounding == Rounding::Nearest,
            (true, true) if integral => to == from,
            (true, true) => (to.bytes() > from.bytes()) == (rounding == Rounding::None) && to != from,
        };
        (known && to != Type::Pred && from != Type::Pred).then_some(Conversion { to, from, rounding })
    }

    /// All lanes.
    pub(crate) fn apply(self, x: &Row) -> Row {
        let mut out = [0; LANES];
        for (out, bits) in out.iter_mut().zip(x) {
            *out = self.one(*bits);
        }
        out
    }

    fn one(self, bits: u64) -> u64 {
        match (self.to.is_float(), self.from.is_float()) {
            (false, false) => cut(integer(bits, self.from) as u64, self.to),
            (false, true) => saturated(self.rounded(float(bits, self.from)), self.to),
            (true, false) => match self.to {
                Type::F32 => u64::from((integer(bits, self.from) as f32).to_bits()),
                Type::F64 => (integer(bits, self.from) as f64).to_bits(),
                Type::F16 => u64::from(half_of_integer(integer(bits, self.from)).to_bits()),
                _ => u64::from(bf16::from_f64(integer(bits, self.from) as f64).to_bits()),
            },
            (true, true) => narrowed(self.rounded(float(bits, self.from)), self.to),
        }
    }

    fn rounded(self, x: f64) -> f64 {
        match self.rounding {
            Rounding::None | Rounding::Nearest => x,
            Rounding::IntegerNearest => x.round_ties_even(),
            Rounding::IntegerZero => x.trunc(),
            Rounding::IntegerDown => x.floor(),
            Rounding::IntegerUp => x.ceil(),
        }
    }
}

/// Integers above 2^53 are beyond the largest half anyway.
fn half_of_integer(x: i128) -> f16 {
    f16::from_f64(x as f64)
}

/// The integer in the low bits.
fn integer(bits: u64, of: Type) -> i128 {
    match of {
        Type::S8 => i128::from(bits as i8),
        Type::S16 => i128::from(bits as i16),
        Type::S32 => i128::from(bits as i32),
        Type::S64 => i128::from(bits as i64),
        _ => i128::from(cut(bits, of)),
    }
}

fn cut(bits: u64, to: Type) -> u64 {
    match to.bytes() {
        1 => bits & 0xff,
        2 => bits & 0xffff,
        4 => bits & 0xffff_ffff,
        _ => bits,
    }
}

/// Exactly: every smaller float is an f64.
fn float(bits: u64, of: Type) -> f64 {
    match of {
        Type::F16 => f16::from_bits(bits as u16).to_f64(),
        Type::Bf16 => bf16::from_bits(bits as u16).to_f64(),
        Type::F32 => f64::from(f32::from_bits(bits as u32)),
        _ => f64::from_bits(bits),
    }
}

fn narrowed(x: f64, to: Type) -> u64 {
    match to {
        Type::F16 if x.is_nan() => 0x7fff,
        Type::Bf16 if x.is_nan() => 0x7fff,
        Type::F16 => u64::from(f16::from_f64(x).to_bits()),
        Type::Bf16 => u64::from(bf16::from_f64(x).to_bits()),
        Type::F32 => u64::from(canonical(x as f32).to_bits()),
        _ => x.to_bits(),
    }
}

/// The integer of a whole number; limits beyond the range, 0 for NaN.
fn saturated(x: f64, to: Type) -> u64 {
    let bits = match to {
        Type::S8 => x as i8 as u64,
        Type::S16 => x as i16 as u64,
        Type::S32 => x as i32 as u64,
        Type::S64 => x as i64 as u64,
        Type::U8 | Type::B8 => u64::from(x as u8),
        Type::U16 | Type::B16 => u64::from(x as u16),
        Type::U32 | Type::B32 => u64::from(x as u32),
        _ => x as u64,
    };
    cut(bits, to)
}
