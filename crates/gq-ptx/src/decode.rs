//! Opcode and operands to operations.

use crate::arithmetic;
use crate::conversion::Conversion;
use crate::instruction::{Access, Condition, Logic, Op, Place, RowId, Shuffle, Space, Vote};
use crate::matrix::Product;
use crate::operand::{LOCAL_WINDOW, Names, SHARED_WINDOW, Written, number};
use crate::types::Type;

/// Opcodes of one statement; a branch still names its label.
pub(crate) enum Decoded<'a> {
    Ops(Vec<Op>),
    Branch(&'a str),
}

/// The operations of a statement, or `None` where the opcode is unknown, has no defined bits, or its operands are of
/// another kind.
pub(crate) fn decode<'a>(
    opcode: &'a str,
    operands: &[Written<'a>],
    names: &mut Names<'a>,
) -> Option<Decoded<'a>> {
    let parts: Vec<&str> = opcode.split('.').collect();
    let one = |op: Op| Some(Decoded::Ops(vec![op]));
    match (parts.as_slice(), operands) {
        (["bra"] | ["bra", "uni"], [Written::Word(label)]) => Some(Decoded::Branch(label)),
        (["ret" | "exit"] | ["ret", "uni"], []) => one(Op::Return),
        (["trap"], []) => one(Op::Trap),
        (["bar" | "barrier", "sync"] | ["barrier", "sync", "aligned"], [Written::Word("0")]) => {
            one(Op::BlockBarrier)
        }
        (["bar", "warp", "sync"], [Written::Word(mask)]) => one(Op::WarpBarrier { mask: names.row(mask)? }),
        (["membar" | "fence", ..], []) => one(Op::Fence),
        (["ld" | "ldu", rest @ ..], [to, Written::Address(base, offset)]) => {
            one(Op::Load(access(rest, to, base, *offset, names)?))
        }
        (["st", rest @ ..], [Written::Address(base, offset), from]) => {
            one(Op::Store(access(rest, from, base, *offset, names)?))
        }
        (["cp", "async", rest @ ..], _) => one(copy(rest, operands, names)?),
        (
            ["shfl", "sync", how, "b32"],
            [to, Written::Word(from), Written::Word(lane), Written::Word(clamp), Written::Word(mask)],
        ) => {
            let how = match *how {
                "up" => Shuffle::Up,
                "down" => Shuffle::Down,
                "bfly" => Shuffle::Butterfly,
                "idx" => Shuffle::Index,
                _ => return None,
            };
            let (to, valid) = match to {
                Written::Word(to) => (to, None),
                Written::Pair(to, valid) => (to, Some(names.predicate(valid))),
                _ => return None,
            };
            let (from, lane, clamp, mask) =
                (names.row(from)?, names.row(lane)?, names.row(clamp)?, names.row(mask)?);
            one(Op::Shuffle { how, to: names.row(to)?, valid, from, lane, clamp, mask })
        }
        (["vote", "sync", what, _], [Written::Word(to), condition, Written::Word(mask)]) => {
            let what = match *what {
                "all" => Vote::All(names.predicate(to)),
                "any" => Vote::Any(names.predicate(to)),
                "ballot" => Vote::Ballot(names.row(to)?),
                _ => return None,
            };
            let condition = match condition {
                Written::Word(word) if number(word) == Some(1) => None,
                written => Some(names.condition(written)?),
            };
            one(Op::Vote { what, condition, mask: names.row(mask)? })
        }
        (["mma", rest @ ..], [d, a, b, c]) => {
            let what = Product::of(rest)?;
            let (d, c) = (vector(d, names)?, vector(c, names)?);
            one(Op::Product { what, d, a: vector(a, names)?, b: vector(b, names)?, c })
        }
        (["setp", rest @ ..], _) => one(set_predicate(rest, operands, names)?),
        (["selp", _], [Written::Word(to), Written::Word(a), Written::Word(b), condition]) => {
            let from = [names.row(a)?, names.row(b)?];
            let condition = names.condition(condition)?;
            one(Op::Select { to: names.row(to)?, from, condition })
        }
        ([logic, "pred"], _) => one(predicate(logic, operands, names)?),
        (["cvt", rest @ ..], [Written::Word(to), Written::Word(from)]) => {
            let from = names.row(from)?;
            one(Op::Convert { how: Conversion::of(rest)?, to: names.row(to)?, from })
        }
        (["cvta", rest @ ..], [Written::Word(to), Written::Word(from)]) => {
            one(convert_address(rest, to, from, names)?)
        }
        (["bfi", size @ ("b32" | "b64")], [Written::Word(to), a, b, start, bits]) => {
            let mut row = |written: &Written<'a>| match written {
                Written::Word(word) => names.row(word),
                _ => None,
            };
            let (from, start, bits) = ([row(a)?, row(b)?], row(start)?, row(bits)?);
            one(Op::Insert { to: names.row(to)?, from, start, bits, wide: *size == "b64" })
        }
        (["lop3", "b32"], [Written::Word(to), sources @ .., Written::Word(table)]) => {
            let table = u8::try_from(number(table)?).ok()?;
            let from = sources_of(sources, names)?;
            one(Op::Logic3 { table, to: names.row(to)?, from })
        }
        (["mov", of], [Written::Word(to), Written::Vector(from)]) => {
            let [low, high] = from.as_slice() else { return None };
            let map = arithmetic::map("pack", Type::of(of)?)?;
            let (low, high) = (names.row(low)?, names.row(high)?);
            one(Op::Map { map, to: names.row(to)?, from: [low, high, high] })
        }
        (["mov", of], [Written::Vector(to), Written::Word(from)]) => {
            let [low, high] = to.as_slice() else { return None };
            let from = names.row(from)?;
            let mut part = |name: &str, to: &'a str| -> Option<Op> {
                let map = arithmetic::map(name, Type::of(of)?)?;
                Some(Op::Map { map, to: names.row(to)?, from: [from; 3] })
            };
            Some(Decoded::Ops(vec![part("low", low)?, part("high", high)?]))
        }
        ([.., of], [Written::Word(to), sources @ ..]) => {
            let name = opcode.strip_suffix(of)?.strip_suffix('.')?;
            let map = arithmetic::map(name, Type::of(of)?)?;
            let from = sources_of(sources, names)?;
            one(Op::Map { map, to: names.row(to)?, from })
        }
        _ => None,
    }
}

/// One to three words, the last repeated.
fn sources_of<'a>(sources: &[Written<'a>], names: &mut Names<'a>) -> Option<[RowId; 3]> {
    let mut rows = Vec::with_capacity(3);
    for source in sources {
        let Written::Word(word) = source else { return None };
        rows.push(names.row(word)?);
    }
    match *rows.as_slice() {
        [a] => Some([a; 3]),
        [a, b] => Some([a, b, b]),
        [a, b, c] => Some([a, b, c]),
        _ => None,
    }
}

fn vector<'a, const N: usize>(written: &Written<'a>, names: &mut Names<'a>) -> Option<[RowId; N]> {
    let Written::Vector(words) = written else { return None };
    let rows: Option<Vec<RowId>> = words.iter().map(|word| names.row(word)).collect();
    rows?.try_into().ok()
}

/// The parts of `ld` or `st` after the opcode: space, cache hints, vector, type.
fn access<'a>(
    parts: &[&str],
    value: &Written<'a>,
    base: &'a str,
    offset: i64,
    names: &mut Names<'a>,
) -> Option<Access> {
    let (of, hints) = parts.split_last()?;
    let of = Type::of(of)?;
    let (mut space, mut read_only, mut count) = (Space::Generic, false, 1);
    for hint in hints {
        match *hint {
            "global" => space = Space::Global,
            "shared" => space = Space::Shared,
            "local" => space = Space::Local,
            "const" => space = Space::Constant,
            "param" => space = Space::Parameter,
            "nc" => read_only = true,
            "v2" => count = 2,
            "v4" => count = 4,
            "volatile" | "ca" | "cg" | "cs" | "cv" | "lu" | "wb" | "wt" | "relaxed" | "weak" | "gpu"
            | "cta" => {}
            hint if hint.starts_with("L1::") || hint.starts_with("L2::") => {}
            _ => return None,
        }
    }
    if read_only {
        space = if space == Space::Global { Space::ReadOnly } else { return None };
    }
    let base = match space {
        Space::Parameter => {
            let offset = *names.parameters.get(base)?;
            names.constant(offset)
        }
        _ => names.row(base)?,
    };
    let mut rows = [base; 4];
    match value {
        Written::Word(word) if count == 1 => rows[0] = names.row(word)?,
        Written::Vector(words) if words.len() == count => {
            for (row, word) in rows.iter_mut().zip(words) {
                *row = names.row(word)?;
            }
        }
        _ => return None,
    }
    Some(Access {
        space,
        bytes: of.bytes() as u8,
        count: count as u8,
        signed: of.is_signed(),
        base,
        offset,
        rows,
    })
}

fn copy<'a>(parts: &[&str], operands: &[Written<'a>], names: &mut Names<'a>) -> Option<Op> {
    match (parts, operands) {
        (["commit_group"], []) => Some(Op::CommitCopies),
        (["wait_all"], []) => Some(Op::WaitCopies { but: None }),
        (["wait_group"], [Written::Word(but)]) => {
            Some(Op::WaitCopies { but: Some(u32::try_from(number(but)?).ok()?) })
        }
        (
            ["ca" | "cg", rest @ ..],
            [
                Written::Address(to, to_offset),
                Written::Address(from, from_offset),
                Written::Word(bytes),
                more @ ..,
            ],
        ) => {
            let hints = rest.strip_prefix(&["shared", "global"])?;
            if !hints.iter().all(|hint| hint.starts_with("L2::")) {
                return None;
            }
            let bytes = u8::try_from(number(bytes)?).ok().filter(|bytes| matches!(bytes, 4 | 8 | 16))?;
            let from_bytes = match more {
                [] => None,
                [Written::Word(word)] => Some(names.row(word)?),
                _ => return None,
            };
            let (to, from) = (names.row(to)?, names.row(from)?);
            Some(Op::Copy {
                to: Place { base: to, offset: *to_offset },
                from: Place { base: from, offset: *from_offset },
                bytes,
                from_bytes,
            })
        }
        _ => None,
    }
}

/// `setp.CMP[.LOGIC].TYPE p[|q], a, b[, c]`.
fn set_predicate<'a>(parts: &[&str], operands: &[Written<'a>], names: &mut Names<'a>) -> Option<Op> {
    let (comparison, logic, of) = match parts {
        [comparison, of] => (comparison, None, of),
        [comparison, logic, of] => (comparison, Some(Logic::of(logic)?), of),
        _ => return None,
    };
    let [to, Written::Word(a), Written::Word(b), with @ ..] = operands else { return None };
    let with = match (logic, with) {
        (None, []) => None,
        (Some(logic), [with]) => Some((logic, names.condition(with)?)),
        _ => return None,
    };
    let (to, other) = match to {
        Written::Word(to) => (names.predicate(to), None),
        Written::Pair(to, other) => (names.predicate(to), Some(names.predicate(other))),
        _ => return None,
    };
    let test = arithmetic::test(comparison, Type::of(of)?)?;
    Some(Op::Test { test, to, other, from: [names.row(a)?, names.row(b)?], with })
}

/// `and.pred`, `or.pred`, `xor.pred`, `not.pred`, `mov.pred`.
fn predicate<'a>(logic: &str, operands: &[Written<'a>], names: &mut Names<'a>) -> Option<Op> {
    let (Written::Word(to), sources) = operands.split_first()? else { return None };
    match (logic, sources) {
        ("mov", [Written::Word(word)]) if number(word).is_some() => {
            let to = names.predicate(to);
            let itself = Condition { predicate: to, negated: number(word) != Some(0) };
            // p xor p is false, p xor !p true
            let first = Condition { predicate: to, negated: false };
            Some(Op::Predicate { logic: Logic::Xor, to, first, second: Some(itself) })
        }
        ("mov" | "not", [source]) => {
            let mut first = names.condition(source)?;
            first.negated ^= logic == "not";
            Some(Op::Predicate { logic: Logic::And, to: names.predicate(to), first, second: None })
        }
        (_, [first, second]) => {
            let (first, second) = (names.condition(first)?, names.condition(second)?);
            Some(Op::Predicate {
                logic: Logic::of(logic)?,
                to: names.predicate(to),
                first,
                second: Some(second),
            })
        }
        _ => None,
    }
}

/// Addresses of shared and local memory have windows of their own among generic ones.
fn convert_address<'a>(parts: &[&str], to: &'a str, from: &'a str, names: &mut Names<'a>) -> Option<Op> {
    let (name, window) = match parts {
        ["to", "global", "u64"] | ["global", "u64"] | ["to", "const", "u64"] | ["const", "u64"] => ("add", 0),
        ["shared", "u64"] => ("add", SHARED_WINDOW),
        ["to", "shared", "u64"] => ("sub", SHARED_WINDOW),
        ["local", "u64"] => ("add", LOCAL_WINDOW),
        ["to", "local", "u64"] => ("sub", LOCAL_WINDOW),
        _ => return None,
    };
    let map = arithmetic::map(name, Type::U64)?;
    let window = names.constant(window);
    let from = names.row(from)?;
    Some(Op::Map { map, to: names.row(to)?, from: [from, window, window] })
}
