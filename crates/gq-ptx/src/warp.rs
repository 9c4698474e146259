//! One warp: registers of 32 lanes, and groups of lanes that are at the same instruction.

use crate::access::Stamp;
use crate::arithmetic::{insert, logic};
use crate::counters::Counters;
use crate::fault::{Fault, FaultKind};
use crate::instruction::{Condition, Op, RowId, Vote};
use crate::lanes::{Result, lanes};
use crate::launch::{Checks, Launch};
use crate::memory::Memory;
use crate::module::Kernel;
use crate::shared::Shared;
use crate::shuffle::shuffled;
use crate::types::{LANES, Row};

/// What a warp sees of its launch and block.
pub(crate) struct Surroundings<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) launch: &'a Launch<'a>,
    pub(crate) constants: &'a [u8],
    pub(crate) parameters: &'a [u8],
    pub(crate) memory: &'a mut Memory,
    pub(crate) shared: &'a mut Shared,
    pub(crate) counters: &'a mut Counters,
    pub(crate) by_opcode: &'a mut [u64],
    /// Block in the grid.
    pub(crate) block: [u32; 3],
    /// The same as one number.
    pub(crate) number: u32,
}

/// Why a warp stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Barrier,
    End,
}

/// Lanes at the same instruction.
#[derive(Clone, Copy, Debug)]
struct Group {
    at: usize,
    mask: u32,
}

/// An asynchronous copy of one lane.
#[derive(Clone, Debug)]
pub(crate) struct Copy {
    pub(crate) lane: usize,
    pub(crate) to: u64,
    pub(crate) data: [u8; 16],
    pub(crate) bytes: usize,
}

#[derive(Debug)]
pub(crate) struct Warp {
    /// In the block.
    number: u32,
    rows: Vec<Row>,
    predicates: Vec<u32>,
    /// Never empty until the warp has ended; the first is the one that runs.
    groups: Vec<Group>,
    /// Lanes that exist and have not ended.
    alive: u32,
    barrier: u32,
    sync: u32,
    executed: u64,
    /// Copies not yet committed, then groups from old to new.
    pub(crate) uncommitted: Vec<Copy>,
    pub(crate) committed: Vec<Vec<Copy>>,
    /// Local memory, lane after lane.
    pub(crate) local: Vec<u8>,
}

impl Warp {
    pub(crate) fn new(number: u32, threads: u32, of: &Surroundings<'_>) -> Warp {
        let kernel = of.kernel;
        let mut rows = vec![[0; LANES]; kernel.slots];
        rows.extend(kernel.values.iter().map(|value| [*value; LANES]));
        let [x, y, _] = of.launch.block;
        let thread = |lane: usize| number * 32 + lane as u32;
        rows.push(std::array::from_fn(|lane| u64::from(thread(lane) % x)));
        rows.push(std::array::from_fn(|lane| u64::from(thread(lane) / x % y)));
        rows.push(std::array::from_fn(|lane| u64::from(thread(lane) / x / y)));
        for value in of.launch.block.into_iter().chain(of.block).chain(of.launch.grid) {
            rows.push([u64::from(value); LANES]);
        }
        rows.push(std::array::from_fn(|lane| lane as u64));
        let lanes = (threads - number * 32).min(32);
        let alive = if lanes == 32 { u32::MAX } else { (1 << lanes) - 1 };
        Warp {
            number,
            rows,
            predicates: vec![0; kernel.predicates],
            groups: vec![Group { at: 0, mask: alive }],
            alive,
            barrier: 0,
            sync: 0,
            executed: 0,
            uncommitted: Vec::new(),
            committed: Vec::new(),
            local: vec![0; kernel.local as usize * LANES],
        }
    }

    /// The block barrier is behind.
    pub(crate) fn pass_barrier(&mut self) {
        self.barrier += 1;
    }

    pub(crate) fn fault(&self, of: &Surroundings<'_>, lane: Option<usize>, kind: FaultKind) -> Fault {
        let at = self.groups.first().map_or(0, |group| group.at);
        let line = of.kernel.code.get(at).map_or(0, |instruction| instruction.line);
        let thread = lane.map(|lane| self.number * 32 + lane as u32);
        Fault { kernel: of.kernel.name.clone(), block: of.block, thread, line, kind }
    }

    /// Runs to the next block barrier or the end.
    pub(crate) fn run(&mut self, of: &mut Surroundings<'_>) -> std::result::Result<Stop, Fault> {
        while !self.groups.is_empty() {
            match self.step(of) {
                Ok(None) => {}
                Ok(Some(stop)) => return Ok(stop),
                Err((lane, kind)) => return Err(self.fault(of, lane, kind)),
            }
        }
        Ok(Stop::End)
    }

    /// One instruction of the group that is furthest behind.
    fn step(&mut self, of: &mut Surroundings<'_>) -> Result<Option<Stop>> {
        let Group { at, mask } = self.groups[0];
        let code = &of.kernel.code;
        let Some(instruction) = code.get(at) else {
            self.end(mask)?;
            return Ok(None);
        };
        if instruction.first {
            of.by_opcode[instruction.opcode as usize] += 1;
            self.executed += 1;
            if self.executed > of.launch.most_instructions {
                return Err((None, FaultKind::TooLong { limit: of.launch.most_instructions }));
            }
        }
        let active = instruction.guard.map_or(mask, |guard| mask & self.condition(guard));
        match &instruction.op {
            Op::Branch { target } => {
                self.branch(*target, active);
                return Ok(None);
            }
            Op::Return => {
                self.end(active)?;
                return Ok(None);
            }
            Op::BlockBarrier if active != 0 => {
                if active != self.alive {
                    return Err((None, FaultKind::MissingLanes { here: active, wanted: self.alive }));
                }
                of.counters.barriers += 1;
                self.advance();
                return Ok(Some(Stop::Barrier));
            }
            op if active != 0 => self.execute(op, active, of)?,
            _ => {}
        }
        self.advance();
        Ok(None)
    }

    /// The running group goes on to the next instruction and takes up lanes that wait there.
    fn advance(&mut self) {
        self.groups[0].at += 1;
        self.settle();
    }

    /// Groups at one place are one group; the one furthest behind runs first.
    fn settle(&mut self) {
        if self.groups.len() < 2 {
            return;
        }
        self.groups.sort_by_key(|group| group.at);
        self.groups.dedup_by(|later, earlier| {
            let same = later.at == earlier.at;
            if same {
                earlier.mask |= later.mask;
            }
            same
        });
    }

    fn branch(&mut self, target: usize, taken: u32) {
        let group = self.groups[0];
        let stays = group.mask & !taken;
        match (taken, stays) {
            (0, _) => self.groups[0].at += 1,
            (_, 0) => self.groups[0].at = target,
            _ => {
                self.groups[0] = Group { at: group.at + 1, mask: stays };
                self.groups.push(Group { at: target, mask: taken });
            }
        }
        self.settle();
    }

    /// Lanes end.
    fn end(&mut self, lanes: u32) -> Result<()> {
        let waiting = self.committed.iter().flatten().chain(&self.uncommitted);
        if let Some(copy) = waiting.into_iter().find(|copy| lanes >> copy.lane & 1 == 1) {
            return Err((Some(copy.lane), FaultKind::CopyNotWaited));
        }
        self.alive &= !lanes;
        self.groups[0].mask &= !lanes;
        match self.groups[0].mask {
            0 => {
                self.groups.remove(0);
            }
            _ => self.groups[0].at += 1,
        }
        self.settle();
        Ok(())
    }

    fn condition(&self, of: Condition) -> u32 {
        let bits = self.predicates[of.predicate as usize];
        if of.negated { !bits } else { bits }
    }

    pub(crate) fn row(&self, row: RowId) -> &Row {
        &self.rows[row.0 as usize]
    }

    /// Active lanes take the new values.
    pub(crate) fn put(&mut self, row: RowId, values: &Row, active: u32) {
        let row = &mut self.rows[row.0 as usize];
        if active == u32::MAX {
            *row = *values;
            return;
        }
        for lane in lanes(active) {
            row[lane] = values[lane];
        }
    }

    fn put_predicate(&mut self, predicate: u16, bits: u32, active: u32) {
        let old = &mut self.predicates[predicate as usize];
        *old = (*old & !active) | (bits & active);
    }

    pub(crate) fn stamp(&self, lane: usize, of: &Surroundings<'_>) -> Option<Stamp> {
        let thread = self.number * 32 + lane as u32;
        let races = of.launch.checks == Checks::All;
        races.then_some(Stamp { block: of.number, thread, barrier: self.barrier, sync: self.sync })
    }

    fn execute(&mut self, op: &Op, active: u32, of: &mut Surroundings<'_>) -> Result<()> {
        match op {
            Op::Map { map, to, from: [a, b, c] } => {
                let out = map(self.row(*a), self.row(*b), self.row(*c));
                self.put(*to, &out, active);
            }
            Op::Convert { how, to, from } => {
                let out = how.apply(self.row(*from));
                self.put(*to, &out, active);
            }
            Op::Logic3 { table, to, from: [a, b, c] } => {
                let out = logic(self.row(*a), self.row(*b), self.row(*c), *table);
                self.put(*to, &out, active);
            }
            Op::Insert { to, from: [a, b], start, bits, wide } => {
                let (a, b, start, bits) = (self.row(*a), self.row(*b), self.row(*start), self.row(*bits));
                let out = std::array::from_fn(|lane| {
                    let size = if *wide { 64 } else { 32 };
                    insert(size, a[lane], b[lane], start[lane] as u32, bits[lane] as u32)
                });
                self.put(*to, &out, active);
            }
            Op::Test { test, to, other, from: [a, b], with } => {
                let bits = test(self.row(*a), self.row(*b));
                let joined =
                    |bits: u32| with.map_or(bits, |(logic, with)| logic.apply(bits, self.condition(with)));
                let (yes, no) = (joined(bits), joined(!bits));
                self.put_predicate(*to, yes, active);
                if let Some(other) = other {
                    self.put_predicate(*other, no, active);
                }
            }
            Op::Predicate { logic, to, first, second } => {
                let first = self.condition(*first);
                let bits = second.map_or(first, |second| logic.apply(first, self.condition(second)));
                self.put_predicate(*to, bits, active);
            }
            Op::Select { to, from: [a, b], condition } => {
                let chosen = self.condition(*condition);
                let (a, b) = (self.row(*a), self.row(*b));
                let out = std::array::from_fn(|lane| if chosen >> lane & 1 == 1 { a[lane] } else { b[lane] });
                self.put(*to, &out, active);
            }
            Op::Load(access) => self.load(access, active, of)?,
            Op::Store(access) => self.store(access, active, of)?,
            Op::WarpBarrier { mask } => {
                self.need(self.row(*mask)[first(active)] as u32, active)?;
                self.sync += 1;
            }
            Op::Shuffle { how, to, valid, from, lane, clamp, mask } => {
                self.need(self.row(*mask)[first(active)] as u32, active)?;
                let (from, lane, clamp) = (self.row(*from), self.row(*lane), self.row(*clamp));
                let (out, inside) = shuffled(*how, from, lane, clamp, active)?;
                self.put(*to, &out, active);
                if let Some(valid) = valid {
                    self.put_predicate(*valid, inside, active);
                }
            }
            Op::Vote { what, condition, mask } => {
                self.need(self.row(*mask)[first(active)] as u32, active)?;
                let bits = condition.map_or(u32::MAX, |condition| self.condition(condition)) & active;
                let all = |yes: bool| if yes { u32::MAX } else { 0 };
                match what {
                    Vote::All(to) => self.put_predicate(*to, all(bits == active), active),
                    Vote::Any(to) => self.put_predicate(*to, all(bits != 0), active),
                    Vote::Ballot(to) => self.put(*to, &[u64::from(bits); LANES], active),
                }
            }
            Op::Copy { to, from, bytes, from_bytes } => {
                self.copy(*to, *from, *bytes as usize, *from_bytes, active, of)?;
            }
            Op::CommitCopies => {
                let group = std::mem::take(&mut self.uncommitted);
                self.committed.push(group);
            }
            Op::WaitCopies { but } => self.wait(*but, active, of)?,
            Op::Product { what, d, a, b, c } => {
                self.need(u32::MAX, active)?;
                let fragments = what.apply(
                    a.map(|row| self.row(row)),
                    b.map(|row| self.row(row)),
                    c.map(|row| self.row(row)),
                );
                for (to, fragment) in d.iter().zip(&fragments) {
                    self.put(*to, fragment, active);
                }
            }
            Op::Trap => return Err((Some(first(active)), FaultKind::Trap)),
            Op::Fence | Op::Branch { .. } | Op::Return | Op::BlockBarrier => {}
        }
        Ok(())
    }

    /// All lanes that the instruction names must be here.
    fn need(&self, wanted: u32, here: u32) -> Result<()> {
        match here & wanted == wanted && wanted & here == here {
            true => Ok(()),
            false => Err((None, FaultKind::MissingLanes { here, wanted })),
        }
    }
}

fn first(mask: u32) -> usize {
    (mask.trailing_zeros() as usize).min(LANES - 1)
}
