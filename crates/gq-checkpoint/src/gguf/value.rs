//! Metadata values, with the widths that the file gives them.

use super::bytes::Reader;
use super::{GgufError, limits};

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// An array: all elements of one type.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    String(Vec<String>),
    Array(Vec<Array>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

impl Value {
    /// The number of its type in files.
    pub fn code(&self) -> u32 {
        match self {
            Value::U8(_) => 0,
            Value::I8(_) => 1,
            Value::U16(_) => 2,
            Value::I16(_) => 3,
            Value::U32(_) => 4,
            Value::I32(_) => 5,
            Value::F32(_) => 6,
            Value::Bool(_) => 7,
            Value::String(_) => 8,
            Value::Array(_) => 9,
            Value::U64(_) => 10,
            Value::I64(_) => 11,
            Value::F64(_) => 12,
        }
    }

    /// An integer of any width that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Value::U8(v) => Some(v.into()),
            Value::U16(v) => Some(v.into()),
            Value::U32(v) => Some(v.into()),
            Value::U64(v) => Some(v),
            Value::I8(v) => v.try_into().ok(),
            Value::I16(v) => v.try_into().ok(),
            Value::I32(v) => v.try_into().ok(),
            Value::I64(v) => v.try_into().ok(),
            _ => None,
        }
    }

    /// A floating point number.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            // By way of its shortest decimal form: 1e-6 in f32 means 1e-6.
            Value::F32(v) => v.to_string().parse().ok(),
            Value::F64(v) => Some(v),
            _ => None,
        }
    }

    /// A truth value.
    pub fn as_bool(&self) -> Option<bool> {
        if let Value::Bool(v) = self { Some(*v) } else { None }
    }

    /// A text.
    pub fn as_str(&self) -> Option<&str> {
        if let Value::String(v) = self { Some(v) } else { None }
    }

    /// An array.
    pub fn as_array(&self) -> Option<&Array> {
        if let Value::Array(v) = self { Some(v) } else { None }
    }

    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::U8(_) | Value::U16(_) | Value::U32(_) | Value::U64(_) => "an unsigned integer",
            Value::I8(_) | Value::I16(_) | Value::I32(_) | Value::I64(_) => "an integer",
            Value::F32(_) | Value::F64(_) => "a number",
            Value::Bool(_) => "a truth value",
            Value::String(_) => "a string",
            Value::Array(_) => "an array",
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>, code: u32) -> Result<Value, GgufError> {
        Ok(match code {
            0 => Value::U8(reader.number(u8::from_le_bytes)?),
            1 => Value::I8(reader.number(i8::from_le_bytes)?),
            2 => Value::U16(reader.number(u16::from_le_bytes)?),
            3 => Value::I16(reader.number(i16::from_le_bytes)?),
            4 => Value::U32(reader.number(u32::from_le_bytes)?),
            5 => Value::I32(reader.number(i32::from_le_bytes)?),
            6 => Value::F32(reader.number(f32::from_le_bytes)?),
            7 => Value::Bool(read_bool(reader)?),
            8 => Value::String(reader.string(limits::STRING_BYTES)?),
            9 => Value::Array(Array::read(reader, 0)?),
            10 => Value::U64(reader.number(u64::from_le_bytes)?),
            11 => Value::I64(reader.number(i64::from_le_bytes)?),
            12 => Value::F64(reader.number(f64::from_le_bytes)?),
            _ => return Err(GgufError::ValueType { at: reader.position(), actual: code }),
        })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Value::U8(v) => out.push(*v),
            Value::I8(v) => out.extend(v.to_le_bytes()),
            Value::U16(v) => out.extend(v.to_le_bytes()),
            Value::I16(v) => out.extend(v.to_le_bytes()),
            Value::U32(v) => out.extend(v.to_le_bytes()),
            Value::I32(v) => out.extend(v.to_le_bytes()),
            Value::F32(v) => out.extend(v.to_le_bytes()),
            Value::Bool(v) => out.push(u8::from(*v)),
            Value::String(v) => write_string(out, v),
            Value::Array(v) => v.write(out),
            Value::U64(v) => out.extend(v.to_le_bytes()),
            Value::I64(v) => out.extend(v.to_le_bytes()),
            Value::F64(v) => out.extend(v.to_le_bytes()),
        }
    }
}

impl Array {
    /// Elements.
    pub fn len(&self) -> usize {
        match self {
            Array::U8(v) => v.len(),
            Array::I8(v) => v.len(),
            Array::U16(v) => v.len(),
            Array::I16(v) => v.len(),
            Array::U32(v) => v.len(),
            Array::I32(v) => v.len(),
            Array::F32(v) => v.len(),
            Array::Bool(v) => v.len(),
            Array::String(v) => v.len(),
            Array::Array(v) => v.len(),
            Array::U64(v) => v.len(),
            Array::I64(v) => v.len(),
            Array::F64(v) => v.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Strings.
    pub fn as_strings(&self) -> Option<&[String]> {
        if let Array::String(v) = self { Some(v) } else { None }
    }

    /// Integers of any width that are not negative.
    pub fn to_u64s(&self) -> Option<Vec<u64>> {
        match self {
            Array::U8(v) => Some(v.iter().map(|&v| v.into()).collect()),
            Array::U16(v) => Some(v.iter().map(|&v| v.into()).collect()),
            Array::U32(v) => Some(v.iter().map(|&v| v.into()).collect()),
            Array::U64(v) => Some(v.clone()),
            Array::I8(v) => v.iter().map(|&v| v.try_into().ok()).collect(),
            Array::I16(v) => v.iter().map(|&v| v.try_into().ok()).collect(),
            Array::I32(v) => v.iter().map(|&v| v.try_into().ok()).collect(),
            Array::I64(v) => v.iter().map(|&v| v.try_into().ok()).collect(),
            Array::F32(_) | Array::F64(_) | Array::Bool(_) | Array::String(_) | Array::Array(_) => None,
        }
    }

    /// Truth values.
    pub fn as_bools(&self) -> Option<&[bool]> {
        if let Array::Bool(v) = self { Some(v) } else { None }
    }

    /// Numbers in f32.
    pub fn as_f32s(&self) -> Option<&[f32]> {
        if let Array::F32(v) = self { Some(v) } else { None }
    }

    fn read(reader: &mut Reader<'_>, depth: usize) -> Result<Array, GgufError> {
        if depth >= limits::ARRAY_DEPTH {
            return Err(GgufError::TooDeep { at: reader.position(), limit: limits::ARRAY_DEPTH });
        }
        let code = reader.number(u32::from_le_bytes)?;
        let count = reader.number(u64::from_le_bytes)?;
        if count > limits::ARRAY_LEN {
            return Err(GgufError::ArrayLen {
                at: reader.position(),
                actual: count,
                limit: limits::ARRAY_LEN,
            });
        }
        Ok(match code {
            0 => Array::U8(reader.numbers(count, u8::from_le_bytes)?),
            1 => Array::I8(reader.numbers(count, i8::from_le_bytes)?),
            2 => Array::U16(reader.numbers(count, u16::from_le_bytes)?),
            3 => Array::I16(reader.numbers(count, i16::from_le_bytes)?),
            4 => Array::U32(reader.numbers(count, u32::from_le_bytes)?),
            5 => Array::I32(reader.numbers(count, i32::from_le_bytes)?),
            6 => Array::F32(reader.numbers(count, f32::from_le_bytes)?),
            // 8 and 12 are the fewest bytes of a string and of an array.
            7 => Array::Bool(reader.list(count, 1, read_bool)?),
            8 => Array::String(reader.list(count, 8, |reader| reader.string(limits::STRING_BYTES))?),
            9 => Array::Array(reader.list(count, 12, |reader| Array::read(reader, depth + 1))?),
            10 => Array::U64(reader.numbers(count, u64::from_le_bytes)?),
            11 => Array::I64(reader.numbers(count, i64::from_le_bytes)?),
            12 => Array::F64(reader.numbers(count, f64::from_le_bytes)?),
            _ => return Err(GgufError::ValueType { at: reader.position(), actual: code }),
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        let code: u32 = match self {
            Array::U8(_) => 0,
            Array::I8(_) => 1,
            Array::U16(_) => 2,
            Array::I16(_) => 3,
            Array::U32(_) => 4,
            Array::I32(_) => 5,
            Array::F32(_) => 6,
            Array::Bool(_) => 7,
            Array::String(_) => 8,
            Array::Array(_) => 9,
            Array::U64(_) => 10,
            Array::I64(_) => 11,
            Array::F64(_) => 12,
        };
        out.extend(code.to_le_bytes());
        out.extend((self.len() as u64).to_le_bytes());
        match self {
            Array::U8(v) => out.extend(v),
            Array::I8(v) => v.iter().for_each(|v| out.extend(v.to_le_bytes())),
            Array::U16(v) => v.iter().for_each(|v| out.extend(v.to_le_bytes())),
            Array::I16(v) => v.iter().for_each(|v| out.extend(v.to_le_bytes())),
            Array::U32(v) => v.iter().for_each(|v| out.extend(v.to_le_bytes())),
            Array::I32(v) => v.iter().for_each(|v| out.extend(v.to_le_bytes())),
            Array::F32(v) => v.iter().for_each(|v| out.extend(v.to_le_bytes())),
            Array::Bool(v) => out.extend(v.iter().map(|&v| u8::from(v))),
            Array::String(v) => v.iter().for_each(|v| write_string(out, v)),
            Array::Array(v) => v.iter().for_each(|v| v.write(out)),
            Array::U64(v) => v.iter().for_each(|v| out.extend(v.to_le_bytes())),
            Array::I64(v) => v.iter().for_each(|v| out.extend(v.to_le_bytes())),
            Array::F64(v) => v.iter().for_each(|v| out.extend(v.to_le_bytes())),
        }
    }
}

fn read_bool(reader: &mut Reader<'_>) -> Result<bool, GgufError> {
    match reader.number(u8::from_le_bytes)? {
        0 => Ok(false),
        1 => Ok(true),
        actual => Err(GgufError::Bool { at: reader.position(), actual }),
    }
}

pub(super) fn write_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}
