//! Arithmetic of 32 lanes at once: a function for every opcode and type that has defined bits.

use crate::types::{Bits, LANES, Row, Type};

/// Three rows to one; opcodes with fewer operands ignore the rest.
pub(crate) type Map = fn(&Row, &Row, &Row) -> Row;

/// Two rows to one bit a lane.
pub(crate) type Test = fn(&Row, &Row) -> u32;

macro_rules! lanes {
    (|$a:ident: $ta:ty| $e:expr) => {
        lanes!(|$a: $ta, _b: u64, _c: u64| $e)
    };
    (|$a:ident: $ta:ty, $b:ident: $tb:ty| $e:expr) => {
        lanes!(|$a: $ta, $b: $tb, _c: u64| $e)
    };
    (|$a:ident: $ta:ty, $b:ident: $tb:ty, $c:ident: $tc:ty| $e:expr) => {{
        fn map(x: &Row, y: &Row, z: &Row) -> Row {
            let mut out = [0; LANES];
            for lane in 0..LANES {
                let ($a, $b, $c) = (<$ta>::take(x[lane]), <$tb>::take(y[lane]), <$tc>::take(z[lane]));
                out[lane] = Bits::put($e);
            }
            out
        }
        Some(map as Map)
    }};
}

/// The same code for every integer type, called `$t` in it.
macro_rules! by_integer {
    ($type:expr, $t:ident => $body:expr) => {
        match $type {
            Type::U16 | Type::B16 => {
                type $t = u16;
                $body
            }
            Type::S16 => {
                type $t = i16;
                $body
            }
            Type::U32 | Type::B32 => {
                type $t = u32;
                $body
            }
            Type::S32 => {
                type $t = i32;
                $body
            }
            Type::U64 | Type::B64 => {
                type $t = u64;
                $body
            }
            Type::S64 => {
                type $t = i64;
                $body
            }
            _ => None,
        }
    };
}

/// A NaN of PTX's arithmetic has one pattern.
pub(crate) fn canonical(x: f32) -> f32 {
    if x.is_nan() { f32::from_bits(0x7fff_ffff) } else { x }
}

/// Smaller of two numbers: NaN only of two NaN, -0 below 0.
fn min(a: f32, b: f32) -> f32 {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => canonical(a),
        (true, false) => b,
        (false, true) => a,
        _ if a == b => f32::from_bits(a.to_bits() | b.to_bits()),
        _ => a.min(b),
    }
}

fn max(a: f32, b: f32) -> f32 {
    -min(-a, -b)
}

fn half_bits(x: f32) -> u32 {
    if x.is_nan() { 0x7fff } else { u32::from(half::f16::from_f32(x).to_bits()) }
}

fn brain_bits(x: f32) -> u32 {
    if x.is_nan() { 0x7fff } else { u32::from(half::bf16::from_f32(x).to_bits()) }
}

/// The function of an opcode, `name` its parts without modifiers of cache or space, such as `mul.wide`; `None` where
/// it is not known or has no defined bits.
pub(crate) fn map(name: &str, of: Type) -> Option<Map> {
    if of == Type::F32 {
        return float(name);
    }
    if of == Type::F64 {
        return double(name);
    }
    let wide = by_integer!(of, T => integer!(name, T));
    wide.or_else(|| bits(name, of))
}

fn float(name: &str) -> Option<Map> {
    match name {
        "mov" => lanes!(|a: u32| a),
        "add.rn" => lanes!(|a: f32, b: f32| canonical(a + b)),
        "sub.rn" => lanes!(|a: f32, b: f32| canonical(a - b)),
        "mul.rn" => lanes!(|a: f32, b: f32| canonical(a * b)),
        "div.rn" => lanes!(|a: f32, b: f32| canonical(a / b)),
        "rcp.rn" => lanes!(|a: f32| canonical(1.0 / a)),
        "sqrt.rn" => lanes!(|a: f32| canonical(a.sqrt())),
        "fma.rn" => lanes!(|a: f32, b: f32, c: f32| canonical(a.mul_add(b, c))),
        "min" => lanes!(|a: f32, b: f32| min(a, b)),
        "max" => lanes!(|a: f32, b: f32| max(a, b)),
        "abs" => lanes!(|a: u32| a & 0x7fff_ffff),
        "neg" => lanes!(|a: u32| a ^ 0x8000_0000),
        "cvt.rn.f16x2" => lanes!(|a: f32, b: f32| half_bits(b) | half_bits(a) << 16),
        "cvt.rn.bf16x2" => lanes!(|a: f32, b: f32| brain_bits(b) | brain_bits(a) << 16),
        "copysign" => lanes!(|a: u32, b: u32| (b & 0x7fff_ffff) | (a & 0x8000_0000)),
        _ => None,
    }
}

fn double(name: &str) -> Option<Map> {
    match name {
        "mov" => lanes!(|a: u64| a),
        "add.rn" => lanes!(|a: f64, b: f64| a + b),
        "sub.rn" => lanes!(|a: f64, b: f64| a - b),
        "mul.rn" => lanes!(|a: f64, b: f64| a * b),
        "div.rn" => lanes!(|a: f64, b: f64| a / b),
        "rcp.rn" => lanes!(|a: f64| 1.0 / a),
        "sqrt.rn" => lanes!(|a: f64| a.sqrt()),
        "fma.rn" => lanes!(|a: f64, b: f64, c: f64| a.mul_add(b, c)),
        "abs" => lanes!(|a: u64| a & !(1 << 63)),
        "neg" => lanes!(|a: u64| a ^ (1 << 63)),
        _ => None,
    }
}

macro_rules! integer {
    ($name:expr, $t:ident) => {
        match $name {
            "mov" => lanes!(|a: $t| a),
            "add" => lanes!(|a: $t, b: $t| a.wrapping_add(b)),
            "sub" => lanes!(|a: $t, b: $t| a.wrapping_sub(b)),
            "mul.lo" => lanes!(|a: $t, b: $t| a.wrapping_mul(b)),
            "mul.hi" => lanes!(|a: $t, b: $t| ((i128::from(a) * i128::from(b)) >> $t::BITS) as $t),
            "mul.wide" => lanes!(|a: $t, b: $t| (i128::from(a) * i128::from(b)) as u64 & wide::<$t>()),
            "mad.lo" => lanes!(|a: $t, b: $t, c: $t| a.wrapping_mul(b).wrapping_add(c)),
            "mad.hi" => {
                lanes!(|a: $t, b: $t, c: $t| (((i128::from(a) * i128::from(b)) >> $t::BITS) as $t)
                    .wrapping_add(c))
            }
            "mad.wide" => lanes!(|a: $t, b: $t, c: u64| {
                ((i128::from(a) * i128::from(b)) as u64).wrapping_add(c) & wide::<$t>()
            }),
            "div" => lanes!(|a: $t, b: $t| if b == 0 { !(0 as $t) } else { a.wrapping_div(b) }),
            "rem" => lanes!(|a: $t, b: $t| if b == 0 { a } else { a.wrapping_rem(b) }),
            "min" => lanes!(|a: $t, b: $t| a.min(b)),
            "max" => lanes!(|a: $t, b: $t| a.max(b)),
            "neg" => lanes!(|a: $t| (0 as $t).wrapping_sub(a)),
            "abs" => lanes!(|a: $t| if i128::from(a) < 0 { (0 as $t).wrapping_sub(a) } else { a }),
            "and" => lanes!(|a: $t, b: $t| a & b),
            "or" => lanes!(|a: $t, b: $t| a | b),
            "xor" => lanes!(|a: $t, b: $t| a ^ b),
            "not" => lanes!(|a: $t| !a),
            "shl" => lanes!(|a: $t, b: u32| if b < $t::BITS { a << b } else { 0 }),
            "shr" => lanes!(|a: $t, b: u32| if b < $t::BITS {
                a >> b
            } else if i128::from(a) < 0 {
                !(0 as $t)
            } else {
                0
            }),
            _ => None,
        }
    };
}
use integer;

/// The bits of a product of two of `T`.
fn wide<T>() -> u64 {
    if size_of::<T>() >= 4 { u64::MAX } else { u64::from(u32::MAX) }
}

/// Opcodes on bits and bytes.
fn bits(name: &str, of: Type) -> Option<Map> {
    match (name, of) {
        ("popc", Type::B32) => lanes!(|a: u32| a.count_ones()),
        ("popc", Type::B64) => lanes!(|a: u64| a.count_ones()),
        ("clz", Type::B32) => lanes!(|a: u32| a.leading_zeros()),
        ("clz", Type::B64) => lanes!(|a: u64| a.leading_zeros()),
        ("brev", Type::B32) => lanes!(|a: u32| a.reverse_bits()),
        ("brev", Type::B64) => lanes!(|a: u64| a.reverse_bits()),
        ("prmt", Type::B32) => lanes!(|a: u32, b: u32, c: u32| permute(a, b, c)),
        ("shf.l.wrap", Type::B32) => lanes!(|a: u32, b: u32, c: u32| (pair(a, b) << (c & 31) >> 32) as u32),
        ("shf.r.wrap", Type::B32) => lanes!(|a: u32, b: u32, c: u32| (pair(a, b) >> (c & 31)) as u32),
        ("shf.l.clamp", Type::B32) => lanes!(|a: u32, b: u32, c: u32| (pair(a, b) << c.min(32) >> 32) as u32),
        ("shf.r.clamp", Type::B32) => lanes!(|a: u32, b: u32, c: u32| (pair(a, b) >> c.min(32)) as u32),
        ("bfe", Type::U32) => lanes!(|a: u32, b: u32, c: u32| extract(a, b & 255, c & 255)),
        ("bfe", Type::S32) => lanes!(|a: u32, b: u32, c: u32| extract_signed(a, b & 255, c & 255)),
        ("dp4a.s32", Type::S32) => lanes!(|a: u32, b: u32, c: i32| dot(a, b, true, true).wrapping_add(c)),
        ("dp4a.s32", Type::U32) => lanes!(|a: u32, b: u32, c: i32| dot(a, b, true, false).wrapping_add(c)),
        ("dp4a.u32", Type::S32) => lanes!(|a: u32, b: u32, c: i32| dot(a, b, false, true).wrapping_add(c)),
        ("dp4a.u32", Type::U32) => lanes!(|a: u32, b: u32, c: i32| dot(a, b, false, false).wrapping_add(c)),
        ("pack", Type::B32) => lanes!(|a: u16, b: u16| u32::from(a) | u32::from(b) << 16),
        ("pack", Type::B64) => lanes!(|a: u32, b: u32| u64::from(a) | u64::from(b) << 32),
        ("low", Type::B32) => lanes!(|a: u16| a),
        ("high", Type::B32) => lanes!(|a: u32| (a >> 16) as u16),
        ("low", Type::B64) => lanes!(|a: u32| a),
        ("high", Type::B64) => lanes!(|a: u64| (a >> 32) as u32),
        _ => None,
    }
}

/// A logical function of three operands, bit `a << 2 | b << 1 | c` of `table` for each bit.
pub(crate) fn logic(a: &Row, b: &Row, c: &Row, table: u8) -> Row {
    let mut out = [0; LANES];
    for lane in 0..LANES {
        for minterm in (0..8).filter(|minterm| table >> minterm & 1 == 1) {
            let pick = |x: u64, wanted: bool| if wanted { x } else { !x };
            let term = pick(a[lane], minterm & 4 != 0)
                & pick(b[lane], minterm & 2 != 0)
                & pick(c[lane], minterm & 1 != 0);
            out[lane] |= term & u64::from(u32::MAX);
        }
    }
    out
}

/// `bits` of `a` put into `b` at `start`, in words of `size` bits.
pub(crate) fn insert(size: u32, a: u64, b: u64, start: u32, bits: u32) -> u64 {
    let (start, bits) = (start & 255, bits & 255);
    let ones = |bits: u32| if bits >= 64 { u64::MAX } else { (1 << bits) - 1 };
    if start >= size || bits == 0 {
        return b & ones(size);
    }
    let mask = ones(bits);
    ((b & !(mask << start)) | ((a & mask) << start)) & ones(size)
}

fn extract(a: u32, start: u32, bits: u32) -> u32 {
    let shifted = if start < 32 { a >> start } else { 0 };
    if bits >= 32 { shifted } else { shifted & ((1 << bits) - 1) }
}

fn extract_signed(a: u32, start: u32, bits: u32) -> u32 {
    if bits == 0 {
        return 0;
    }
    let sign = a >> (start + bits - 1).min(31) & 1;
    let value = extract(a, start, bits);
    let held = bits.min(32u32.saturating_sub(start));
    if sign == 1 && held < 32 { value | u32::MAX << held } else { value }
}

fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// Four bytes of the eight of `a` and `b`, chosen by nibbles; bit 3 of a nibble copies the byte's sign.
fn permute(a: u32, b: u32, selector: u32) -> u32 {
    let bytes = pair(a, b).to_le_bytes();
    u32::from_le_bytes(std::array::from_fn(|place| {
        let nibble = selector >> (4 * place) & 15;
        let byte = bytes[(nibble & 7) as usize];
        match nibble & 8 {
            0 => byte,
            _ => ((byte as i8) >> 7) as u8,
        }
    }))
}

fn dot(a: u32, b: u32, a_signed: bool, b_signed: bool) -> i32 {
    let value = |byte: u8, signed: bool| if signed { i32::from(byte as i8) } else { i32::from(byte) };
    let products = a.to_le_bytes().into_iter().zip(b.to_le_bytes());
    products.map(|(a, b)| value(a, a_signed) * value(b, b_signed)).sum()
}

macro_rules! comparison {
    ($t:ty, |$a:ident, $b:ident| $e:expr) => {{
        fn test(x: &Row, y: &Row) -> u32 {
            let mut out = 0;
            for lane in 0..LANES {
                let ($a, $b) = (<$t>::take(x[lane]), <$t>::take(y[lane]));
                out |= u32::from($e) << lane;
            }
            out
        }
        Some(test as Test)
    }};
}

/// The test of `setp.CMP.TYPE`.
pub(crate) fn test(comparison: &str, of: Type) -> Option<Test> {
    macro_rules! ordered {
        ($t:ty) => {
            match comparison {
                "eq" => comparison!($t, |a, b| a == b),
                "ne" => comparison!($t, |a, b| a != b),
                "lt" | "lo" => comparison!($t, |a, b| a < b),
                "le" | "ls" => comparison!($t, |a, b| a <= b),
                "gt" | "hi" => comparison!($t, |a, b| a > b),
                "ge" | "hs" => comparison!($t, |a, b| a >= b),
                _ => None,
            }
        };
    }
    macro_rules! real {
        ($t:ty) => {
            match comparison {
                "ne" => comparison!($t, |a, b| a != b && !a.is_nan() && !b.is_nan()),
                "equ" => comparison!($t, |a, b| a == b || a.is_nan() || b.is_nan()),
                "neu" => comparison!($t, |a, b| a != b),
                "ltu" => comparison!($t, |a, b| a < b || a.is_nan() || b.is_nan()),
                "leu" => comparison!($t, |a, b| a <= b || a.is_nan() || b.is_nan()),
                "gtu" => comparison!($t, |a, b| a > b || a.is_nan() || b.is_nan()),
                "geu" => comparison!($t, |a, b| a >= b || a.is_nan() || b.is_nan()),
                "num" => comparison!($t, |a, b| !a.is_nan() && !b.is_nan()),
                "nan" => comparison!($t, |a, b| a.is_nan() || b.is_nan()),
                "lo" | "ls" | "hi" | "hs" => None,
                _ => ordered!($t),
            }
        };
    }
    match of {
        Type::F32 => real!(f32),
        Type::F64 => real!(f64),
        _ => by_integer!(of, T => ordered!(T)),
    }
}
