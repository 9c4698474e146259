//! Instructions as the interpreter executes them.

use crate::arithmetic::{Map, Test};
use crate::conversion::Conversion;
use crate::matrix::Product;

/// A row of a warp: a register, a constant, or a special value such as the thread's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RowId(pub(crate) u32);

/// A predicate register, its bits the lanes.
pub(crate) type PredicateId = u16;

/// A predicate or its negation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) predicate: PredicateId,
    pub(crate) negated: bool,
}

/// Where an address points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    Global,
    /// Global, through the path that must not see writes of the same launch.
    ReadOnly,
    Shared,
    Local,
    Constant,
    Parameter,
    /// Any of these, told apart by the address.
    Generic,
}

/// An address: the bytes after a base.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) base: RowId,
    pub(crate) offset: i64,
}

/// A load or store: `count` values of `bytes` each, neighbors in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    pub(crate) space: Space,
    pub(crate) bytes: u8,
    pub(crate) count: u8,
    /// Whether a loaded value is widened by its sign.
    pub(crate) signed: bool,
    pub(crate) base: RowId,
    pub(crate) offset: i64,
    /// Loaded to, or stored from.
    pub(crate) rows: [RowId; 4],
}

/// Which lane a shuffle reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shuffle {
    Up,
    Down,
    Butterfly,
    Index,
}

/// What a vote gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vote {
    All(PredicateId),
    Any(PredicateId),
    Ballot(RowId),
}

/// Logic of predicates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Logic {
    And,
    Or,
    Xor,
}

impl Logic {
    pub(crate) fn of(name: &str) -> Option<Logic> {
        match name {
            "and" => Some(Logic::And),
            "or" => Some(Logic::Or),
            "xor" => Some(Logic::Xor),
            _ => None,
        }
    }

    pub(crate) fn apply(self, a: u32, b: u32) -> u32 {
        match self {
            Logic::And => a & b,
            Logic::Or => a | b,
            Logic::Xor => a ^ b,
        }
    }
}

/// A condition, or true.
pub(crate) type Operand = Option<Condition>;

/// What an instruction does.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Map {
        map: Map,
        to: RowId,
        from: [RowId; 3],
    },
    Convert {
        how: Conversion,
        to: RowId,
        from: RowId,
    },
    Logic3 {
        table: u8,
        to: RowId,
        from: [RowId; 3],
    },
    Insert {
        to: RowId,
        from: [RowId; 2],
        start: RowId,
        bits: RowId,
        /// 64 bits, not 32.
        wide: bool,
    },
    /// `to` becomes the test joined with `with`, `other` the negated test joined with it.
    Test {
        test: Test,
        to: PredicateId,
        other: Option<PredicateId>,
        from: [RowId; 2],
        with: Option<(Logic, Condition)>,
    },
    /// Logic of predicates; `second` absent: the first itself.
    Predicate {
        logic: Logic,
        to: PredicateId,
        first: Condition,
        second: Operand,
    },
    Select {
        to: RowId,
        from: [RowId; 2],
        condition: Condition,
    },
    Load(Access),
    Store(Access),
    Branch {
        target: usize,
    },
    Return,
    Trap,
    BlockBarrier,
    WarpBarrier {
        mask: RowId,
    },
    Shuffle {
        how: Shuffle,
        to: RowId,
        valid: Option<PredicateId>,
        from: RowId,
        lane: RowId,
        clamp: RowId,
        mask: RowId,
    },
    Vote {
        what: Vote,
        condition: Operand,
        mask: RowId,
    },
    /// `bytes` from global to shared memory, of which `from_bytes` are copied and the others zero.
    Copy {
        to: Place,
        from: Place,
        bytes: u8,
        from_bytes: Option<RowId>,
    },
    CommitCopies,
    /// All but so many of the newest groups; `None`: all, committed or not.
    WaitCopies {
        but: Option<u32>,
    },
    Product {
        what: Product,
        d: [RowId; 4],
        a: [RowId; 4],
        b: [RowId; 2],
        c: [RowId; 4],
    },
    /// An order of memory that lockstep execution has anyway.
    Fence,
}

/// An operation with its guard.
#[derive(Clone, Debug)]
pub(crate) struct Instruction {
    pub(crate) op: Op,
    pub(crate) guard: Operand,
    /// Line of the text.
    pub(crate) line: u32,
    /// Which of the kernel's opcodes, for counting.
    pub(crate) opcode: u16,
    /// Whether it is the first operation of its line: one line counts once.
    pub(crate) first: bool,
}

impl Op {
    /// Every row it names, and whether it is written.
    pub(crate) fn rows(&mut self, see: &mut dyn FnMut(&mut RowId, bool)) {
        match self {
            Op::Map { to, from, .. } | Op::Logic3 { to, from, .. } => {
                from.iter_mut().for_each(|row| see(row, false));
                see(to, true);
            }
            Op::Convert { to, from, .. } => {
                see(from, false);
                see(to, true);
            }
            Op::Insert { to, from, start, bits, .. } => {
                from.iter_mut().for_each(|row| see(row, false));
                see(start, false);
                see(bits, false);
                see(to, true);
            }
            Op::Test { from, .. } => from.iter_mut().for_each(|row| see(row, false)),
            Op::Select { to, from, .. } => {
                from.iter_mut().for_each(|row| see(row, false));
                see(to, true);
            }
            Op::Load(access) => {
                see(&mut access.base, false);
                let count = access.count as usize;
                access.rows[..count].iter_mut().for_each(|row| see(row, true));
            }
            Op::Store(access) => {
                see(&mut access.base, false);
                let count = access.count as usize;
                access.rows[..count].iter_mut().for_each(|row| see(row, false));
            }
            Op::WarpBarrier { mask } => see(mask, false),
            Op::Shuffle { to, from, lane, clamp, mask, .. } => {
                [from, lane, clamp, mask].into_iter().for_each(|row| see(row, false));
                see(to, true);
            }
            Op::Vote { what, mask, .. } => {
                see(mask, false);
                if let Vote::Ballot(to) = what {
                    see(to, true);
                }
            }
            Op::Copy { to, from, from_bytes, .. } => {
                see(&mut to.base, false);
                see(&mut from.base, false);
                from_bytes.iter_mut().for_each(|row| see(row, false));
            }
            Op::Product { d, a, b, c, .. } => {
                [&mut a[..], &mut b[..], &mut c[..]].into_iter().flatten().for_each(|row| see(row, false));
                d.iter_mut().for_each(|row| see(row, true));
            }
            Op::Predicate { .. }
            | Op::Branch { .. }
            | Op::Return
            | Op::Trap
            | Op::BlockBarrier
            | Op::CommitCopies
            | Op::WaitCopies { .. }
            | Op::Fence => {}
        }
    }
}
