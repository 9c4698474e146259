//! Operands: registers, immediates, special registers, symbols, addresses and vectors.

use crate::instruction::{Condition, RowId};
use std::collections::{HashMap, HashSet};

/// Rows of constants are numbered from here until a kernel is complete.
pub(crate) const CONSTANT: u32 = 1 << 30;
/// Rows of special registers are numbered from here.
pub(crate) const SPECIAL: u32 = 1 << 31;

/// What a thread can ask about itself.
pub(crate) const SPECIALS: [&str; 13] = [
    "%tid.x",
    "%tid.y",
    "%tid.z",
    "%ntid.x",
    "%ntid.y",
    "%ntid.z",
    "%ctaid.x",
    "%ctaid.y",
    "%ctaid.z",
    "%nctaid.x",
    "%nctaid.y",
    "%nctaid.z",
    "%laneid",
];

/// Added to an offset in shared memory by `cvta.shared`.
pub(crate) const SHARED_WINDOW: u64 = 1 << 61;
/// Added to an offset in local memory by `cvta.local`.
pub(crate) const LOCAL_WINDOW: u64 = 1 << 60;
/// Where constants and initialized variables of the module lie.
pub(crate) const CONSTANT_WINDOW: u64 = 1 << 62;

/// An operand as written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Written<'a> {
    Word(&'a str),
    /// `!%p1`.
    Not(&'a str),
    /// `[base + offset]`.
    Address(&'a str, i64),
    /// `{a, b}`.
    Vector(Vec<&'a str>),
    /// `a|b`.
    Pair(&'a str, &'a str),
}

/// Names of a kernel and the rows they stand for.
#[derive(Debug, Default)]
pub(crate) struct Names<'a> {
    /// Declared names, and prefixes with a number of registers each.
    declared: HashSet<&'a str>,
    families: Vec<(&'a str, u64)>,
    registers: HashMap<&'a str, RowId>,
    predicates: HashMap<&'a str, u16>,
    constants: HashMap<u64, RowId>,
    /// Values of the constants, in order.
    pub(crate) values: Vec<u64>,
    /// Addresses of variables in their spaces.
    pub(crate) symbols: HashMap<&'a str, u64>,
    /// Offsets of parameters.
    pub(crate) parameters: HashMap<&'a str, u64>,
}

impl<'a> Names<'a> {
    /// Registers named so far.
    pub(crate) fn registers(&self) -> usize {
        self.registers.len()
    }

    /// Predicates named so far.
    pub(crate) fn predicates(&self) -> usize {
        self.predicates.len()
    }

    /// The row of a value.
    pub(crate) fn constant(&mut self, value: u64) -> RowId {
        let values = &mut self.values;
        *self.constants.entry(value).or_insert_with(|| {
            values.push(value);
            RowId(CONSTANT + values.len() as u32 - 1)
        })
    }

    /// The row of a register, special register, number or symbol. Predicates have no row.
    pub(crate) fn row(&mut self, word: &'a str) -> Option<RowId> {
        if let Some(special) = SPECIALS.iter().position(|name| *name == word) {
            return Some(RowId(SPECIAL + special as u32));
        }
        if let Some(value) = number(word) {
            return Some(self.constant(value));
        }
        if let Some(address) = self.symbols.get(word).or_else(|| self.parameters.get(word)) {
            let address = *address;
            return Some(self.constant(address));
        }
        let next = RowId(self.registers.len() as u32);
        self.is_declared(word).then(|| *self.registers.entry(word).or_insert(next))
    }

    /// `.reg` of one register, or of `count` whose names are `name0`, `name1` ….
    pub(crate) fn declare(&mut self, name: &'a str, count: Option<u64>) {
        match count {
            Some(count) => self.families.push((name, count)),
            None => {
                self.declared.insert(name);
            }
        }
    }

    fn is_declared(&self, word: &str) -> bool {
        let of_family = |(name, count): &(&str, u64)| {
            let number = word.strip_prefix(name).and_then(|number| number.parse::<u64>().ok());
            number.is_some_and(|number| number < *count)
        };
        self.declared.contains(word) || self.families.iter().any(of_family)
    }

    /// The number of a predicate register.
    pub(crate) fn predicate(&mut self, word: &'a str) -> u16 {
        let next = self.predicates.len() as u16;
        *self.predicates.entry(word).or_insert(next)
    }

    /// A predicate or its negation.
    pub(crate) fn condition(&mut self, written: &Written<'a>) -> Option<Condition> {
        match written {
            Written::Word(word) => Some(Condition { predicate: self.predicate(word), negated: false }),
            Written::Not(word) => Some(Condition { predicate: self.predicate(word), negated: true }),
            _ => None,
        }
    }
}

/// A number as PTX writes it: decimal, hexadecimal, or the bits of a float (`0f3F800000`, `0d…`).
pub(crate) fn number(word: &str) -> Option<u64> {
    let (negative, digits) = word.strip_prefix('-').map_or((false, word), |digits| (true, digits));
    let digits = digits.strip_suffix('U').unwrap_or(digits);
    let value = match digits.get(..2) {
        Some("0x" | "0X") => u64::from_str_radix(&digits[2..], 16).ok()?,
        Some("0f" | "0F") if digits.len() == 10 => u64::from_str_radix(&digits[2..], 16).ok()?,
        Some("0d" | "0D") if digits.len() == 18 => u64::from_str_radix(&digits[2..], 16).ok()?,
        _ => digits.parse().ok()?,
    };
    Some(if negative { value.wrapping_neg() } else { value })
}
