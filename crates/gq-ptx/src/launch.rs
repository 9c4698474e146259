//! What a launch is: kernel, grid, arguments, and what is looked for.

/// Bytes of one kernel argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument(pub(crate) Vec<u8>);

impl Argument {
    /// A device address.
    pub fn address(address: u64) -> Argument {
        Argument(address.to_le_bytes().to_vec())
    }

    /// A 32-bit integer.
    pub fn u32(value: u32) -> Argument {
        Argument(value.to_le_bytes().to_vec())
    }

    /// A 32-bit float.
    pub fn f32(value: f32) -> Argument {
        Argument(value.to_le_bytes().to_vec())
    }

    /// Any bytes.
    pub fn bytes(bytes: &[u8]) -> Argument {
        Argument(bytes.to_vec())
    }
}

/// What is looked for while a kernel runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checks {
    /// Everything.
    All,
    /// Everything but races and the read-only path: two to three times as fast.
    NoRaces,
}

/// The order of blocks, and of warps between two barriers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// First to last.
    Forward,
    /// Last to first.
    Reverse,
}

/// A launch.
#[derive(Clone, Debug)]
pub struct Launch<'a> {
    /// Kernel.
    pub kernel: &'a str,
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads a block in x, y, z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub dynamic_shared: u32,
    /// One for each parameter.
    pub arguments: &'a [Argument],
    /// What is looked for.
    pub checks: Checks,
    /// Which blocks and warps come first.
    pub order: Order,
    /// Most instructions of one warp.
    pub most_instructions: u64,
}

impl<'a> Launch<'a> {
    /// `blocks` of `threads` in one dimension, all checks, at most 2^30 instructions a warp.
    pub fn new(kernel: &'a str, blocks: u32, threads: u32, arguments: &'a [Argument]) -> Launch<'a> {
        Launch {
            kernel,
            grid: [blocks, 1, 1],
            block: [threads, 1, 1],
            dynamic_shared: 0,
            arguments,
            checks: Checks::All,
            order: Order::Forward,
            most_instructions: 1 << 30,
        }
    }
}
