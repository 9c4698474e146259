//! Types of PTX, and rows: one register of all lanes of a warp.

/// Lanes of a warp.
pub(crate) const LANES: usize = 32;

/// One register of every lane. Values narrower than 64 bits are zero-extended.
pub(crate) type Row = [u64; LANES];

/// A scalar type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    B8,
    U8,
    S8,
    B16,
    U16,
    S16,
    B32,
    U32,
    S32,
    B64,
    U64,
    S64,
    F16,
    Bf16,
    F32,
    F64,
    Pred,
}

impl Type {
    /// The type of this name, without the dot.
    pub(crate) fn of(name: &str) -> Option<Type> {
        Some(match name {
            "b8" => Type::B8,
            "u8" => Type::U8,
            "s8" => Type::S8,
            "b16" => Type::B16,
            "u16" => Type::U16,
            "s16" => Type::S16,
            "b32" => Type::B32,
            "u32" => Type::U32,
            "s32" => Type::S32,
            "b64" => Type::B64,
            "u64" => Type::U64,
            "s64" => Type::S64,
            "f16" => Type::F16,
            "bf16" => Type::Bf16,
            "f32" => Type::F32,
            "f64" => Type::F64,
            "pred" => Type::Pred,
            _ => return None,
        })
    }

    /// Bytes of a value in memory.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Type::B8 | Type::U8 | Type::S8 | Type::Pred => 1,
            Type::B16 | Type::U16 | Type::S16 | Type::F16 | Type::Bf16 => 2,
            Type::B32 | Type::U32 | Type::S32 | Type::F32 => 4,
            Type::B64 | Type::U64 | Type::S64 | Type::F64 => 8,
        }
    }

    /// Whether widening copies the sign.
    pub(crate) fn is_signed(self) -> bool {
        matches!(self, Type::S8 | Type::S16 | Type::S32 | Type::S64)
    }

    /// Whether it is a number with a fraction.
    pub(crate) fn is_float(self) -> bool {
        matches!(self, Type::F16 | Type::Bf16 | Type::F32 | Type::F64)
    }
}

/// A value as it lies in a row.
pub(crate) trait Bits {
    /// From the low bits.
    fn take(bits: u64) -> Self;
    /// To zero-extended bits.
    fn put(self) -> u64;
}

macro_rules! integers {
    ($($signed:ty as $unsigned:ty),*) => {$(
        impl Bits for $unsigned {
            fn take(bits: u64) -> Self {
                bits as $unsigned
            }
            fn put(self) -> u64 {
                self as u64
            }
        }
        impl Bits for $signed {
            fn take(bits: u64) -> Self {
                bits as $signed
            }
            fn put(self) -> u64 {
                self as $unsigned as u64
            }
        }
    )*};
}

integers!(i8 as u8, i16 as u16, i32 as u32, i64 as u64);

impl Bits for f32 {
    fn take(bits: u64) -> Self {
        f32::from_bits(bits as u32)
    }
    fn put(self) -> u64 {
        u64::from(self.to_bits())
    }
}

impl Bits for f64 {
    fn take(bits: u64) -> Self {
        f64::from_bits(bits)
    }
    fn put(self) -> u64 {
        self.to_bits()
    }
}
