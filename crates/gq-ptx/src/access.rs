//! Who touched a byte last, and whether a barrier stands between.

/// A thread of the grid at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Block, counted through the grid.
    pub(crate) block: u32,
    /// Thread, counted through the block.
    pub(crate) thread: u32,
    /// Block barriers the thread has passed.
    pub(crate) barrier: u32,
    /// Warp barriers the thread's warp has passed.
    pub(crate) sync: u32,
}

/// How many threads a record stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Scope {
    #[default]
    Nobody,
    Thread,
    /// Several threads of a warp.
    Warp,
    /// Several warps of a block.
    Block,
    /// Several blocks.
    Grid,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    scope: Scope,
    block: u32,
    thread: u32,
    barrier: u32,
    sync: u32,
}

impl Seen {
    fn one(now: &Stamp) -> Seen {
        let Stamp { block, thread, barrier, sync } = *now;
        Seen { scope: Scope::Thread, block, thread, barrier, sync }
    }

    fn same_warp(&self, now: &Stamp) -> bool {
        self.block == now.block && self.thread / 32 == now.thread / 32
    }

    /// Whether everything this stands for happened before `now`.
    fn is_before(&self, now: &Stamp) -> bool {
        let block = self.block == now.block && self.barrier < now.barrier;
        let warp = self.same_warp(now) && self.sync < now.sync;
        match self.scope {
            Scope::Nobody => true,
            Scope::Thread => block || warp || (self.block == now.block && self.thread == now.thread),
            Scope::Warp => block || warp,
            Scope::Block => block,
            Scope::Grid => false,
        }
    }

    /// This and one more thread.
    fn joined(&self, now: &Stamp) -> Seen {
        let scope = match self.block == now.block {
            true if self.same_warp(now) && self.scope != Scope::Block => Scope::Warp,
            true => Scope::Block,
            false => Scope::Grid,
        };
        let scope = if self.scope == Scope::Grid { Scope::Grid } else { scope };
        Seen { scope, barrier: self.barrier.max(now.barrier), sync: self.sync.max(now.sync), ..*self }
    }

    fn words(&self) -> String {
        match self.scope {
            Scope::Nobody => String::new(),
            Scope::Thread => format!("block {} thread {}", self.block, self.thread),
            Scope::Warp => format!("block {} warp {}", self.block, self.thread / 32),
            Scope::Block => format!("several warps of block {}", self.block),
            Scope::Grid => "several blocks".to_owned(),
        }
    }
}

/// The last write of a byte and the reads since.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct History {
    writer: Seen,
    readers: Seen,
}

impl History {
    /// A read. Gives who wrote the byte with no barrier between, if anybody did.
    pub(crate) fn read(&mut self, now: &Stamp) -> Option<String> {
        if !self.writer.is_before(now) {
            return Some(self.writer.words());
        }
        let replaced = self.readers.is_before(now);
        self.readers = if replaced { Seen::one(now) } else { self.readers.joined(now) };
        None
    }

    /// A write. Gives who accessed the byte with no barrier between, if anybody did.
    pub(crate) fn write(&mut self, now: &Stamp) -> Option<String> {
        for seen in [&self.writer, &self.readers] {
            if !seen.is_before(now) {
                return Some(seen.words());
            }
        }
        *self = History { writer: Seen::one(now), readers: Seen::default() };
        None
    }

    /// Whether this launch wrote the byte.
    pub(crate) fn is_written(&self) -> bool {
        self.writer.scope != Scope::Nobody
    }
}

/// Histories of an allocation, made where they are touched.
#[derive(Clone, Debug, Default)]
pub(crate) struct Histories {
    pages: Vec<Option<Box<[History; PAGE]>>>,
}

const PAGE: usize = 256;

impl Histories {
    /// The history of one byte.
    pub(crate) fn at(&mut self, byte: usize) -> &mut History {
        let page = byte / PAGE;
        if page >= self.pages.len() {
            self.pages.resize_with(page + 1, || None);
        }
        let page = self.pages[page].get_or_insert_with(|| Box::new([History::default(); PAGE]));
        &mut page[byte % PAGE]
    }

    /// Forgets everything: a launch waits for the one before it.
    pub(crate) fn clear(&mut self) {
        self.pages.clear();
    }
}
