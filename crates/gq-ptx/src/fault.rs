//! What a kernel may not do.

use std::fmt;

/// A fault, with where it happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// Kernel.
    pub kernel: String,
    /// Block in the grid.
    pub block: [u32; 3],
    /// Thread in the block, counted through x, y, z; `None` where the whole warp or block is meant.
    pub thread: Option<u32>,
    /// Line of the PTX text, from 1; 0 where no instruction is meant.
    pub line: u32,
    /// What.
    pub kind: FaultKind,
}

/// Kinds of faults. Addresses are the kernel's, sizes in bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum FaultKind {
    /// No kernel of this name.
    UnknownKernel,
    /// Another number of arguments than parameters.
    ArgumentCount {
        /// Given.
        actual: usize,
        /// Declared.
        expected: usize,
    },
    /// An argument of another size than its parameter.
    ArgumentSize {
        /// Which, from 0.
        index: usize,
        /// Given.
        actual: usize,
        /// Declared.
        expected: usize,
    },
    /// A block of no threads, more than 1024, or more than the kernel declares.
    BlockSize {
        /// Asked for.
        actual: u64,
        /// Most.
        limit: u64,
    },
    /// More shared memory than an SM has.
    SharedSize {
        /// Static and dynamic together.
        actual: u64,
        /// Most.
        limit: u64,
    },
    /// An address that no allocation has, or past its end.
    OutOfBounds {
        /// First byte.
        address: u64,
        /// Bytes accessed.
        bytes: u64,
        /// Bytes of the allocation it starts in, if any.
        size: Option<u64>,
    },
    /// An address that is no multiple of the size accessed.
    Misaligned {
        /// First byte.
        address: u64,
        /// Required.
        align: u64,
    },
    /// A read of memory that nobody has written.
    Uninitialized {
        /// First such byte.
        address: u64,
    },
    /// Two threads, one of which writes, without a barrier between them.
    Race {
        /// Byte.
        address: u64,
        /// The thread of the grid that came first, in words.
        other: String,
        /// Whether this access is the write.
        write: bool,
    },
    /// A read-only load of memory that this launch has written.
    NotReadOnly {
        /// Byte.
        address: u64,
    },
    /// A write to constants or parameters.
    WriteToConstant {
        /// First byte.
        address: u64,
    },
    /// A barrier, shuffle, vote or matrix product that lanes are missing from.
    MissingLanes {
        /// Lanes that are here.
        here: u32,
        /// Lanes that must be.
        wanted: u32,
    },
    /// A shuffle that reads a lane which does not take part.
    ShuffleSource {
        /// Lane read.
        lane: u32,
    },
    /// A block barrier while other warps of the block have ended.
    BarrierAfterExit,
    /// A read of shared memory that an asynchronous copy is under way to.
    CopyUnderWay {
        /// Byte.
        address: u64,
    },
    /// A thread that ends with copies it has not waited for.
    CopyNotWaited,
    /// More instructions than allowed: a loop without end.
    TooLong {
        /// Instructions of one warp.
        limit: u64,
    },
    /// `trap`.
    Trap,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} block {:?}", self.kernel, self.block)?;
        if let Some(thread) = self.thread {
            write!(f, " thread {thread}")?;
        }
        if self.line > 0 {
            write!(f, " line {}", self.line)?;
        }
        write!(f, ": {}", self.kind)
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FaultKind::UnknownKernel => write!(f, "the module has no such kernel"),
            FaultKind::ArgumentCount { actual, expected } => {
                write!(f, "{actual} arguments for {expected} parameters")
            }
            FaultKind::ArgumentSize { index, actual, expected } => {
                write!(f, "argument {index} has {actual} bytes, the parameter {expected}")
            }
            FaultKind::BlockSize { actual, limit } => write!(f, "{actual} threads a block, at most {limit}"),
            FaultKind::SharedSize { actual, limit } => {
                write!(f, "{actual} bytes of shared memory, at most {limit}")
            }
            FaultKind::OutOfBounds { address, bytes, size: Some(size) } => {
                write!(f, "address {address:#x}: {bytes} bytes do not lie in the {size} there")
            }
            FaultKind::OutOfBounds { address, bytes, size: None } => {
                write!(f, "address {address:#x}: nothing is allocated for {bytes} bytes there")
            }
            FaultKind::Misaligned { address, align } => {
                write!(f, "address {address:#x} is not aligned to {align} bytes")
            }
            FaultKind::Uninitialized { address } => {
                write!(f, "address {address:#x} is read, nobody wrote it")
            }
            FaultKind::Race { address, other, write } => {
                let verb = if *write { "written" } else { "read" };
                write!(
                    f,
                    "race: address {address:#x} is {verb} here, accessed by {other} with no barrier between"
                )
            }
            FaultKind::NotReadOnly { address } => {
                write!(f, "address {address:#x} is read as read-only memory, this launch has written it")
            }
            FaultKind::WriteToConstant { address } => write!(f, "write to constant address {address:#x}"),
            FaultKind::MissingLanes { here, wanted } => {
                write!(f, "lanes {wanted:08x} are wanted, {here:08x} are here")
            }
            FaultKind::ShuffleSource { lane } => {
                write!(f, "the shuffle reads lane {lane}, which takes no part")
            }
            FaultKind::BarrierAfterExit => write!(f, "a block barrier, but warps of this block have ended"),
            FaultKind::CopyUnderWay { address } => {
                write!(f, "address {address:#x} is accessed while an asynchronous copy to it is under way")
            }
            FaultKind::CopyNotWaited => {
                write!(f, "the thread ends with asynchronous copies it has not waited for")
            }
            FaultKind::TooLong { limit } => write!(f, "more than {limit} instructions in one warp"),
            FaultKind::Trap => write!(f, "trap"),
        }
    }
}

impl std::error::Error for Fault {}
