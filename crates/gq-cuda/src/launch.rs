//! Launches as plain values, and what runs them.

use crate::module::Module;

/// A range of device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Address of its first byte.
    pub address: u64,
    /// Bytes.
    pub bytes: u64,
}

/// A matrix `[rows, width]` of f32 that came as several partial sums, one matrix after another, whose sum in order it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// All of them.
    pub span: Span,
    /// How many.
    pub count: usize,
}

impl Parts {
    /// A matrix in one piece.
    pub fn one(span: Span) -> Parts {
        Parts { span, count: 1 }
    }
}

/// One kernel argument.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Argument {
    /// A device address; 0: nothing is there.
    Address(u64),
    /// 32 bits.
    U32(u32),
    /// 64 bits.
    U64(u64),
    /// A float.
    F32(f32),
}

impl Argument {
    /// Bytes as the kernel's parameter has them.
    pub fn bytes(self) -> Vec<u8> {
        match self {
            Argument::Address(value) | Argument::U64(value) => value.to_le_bytes().to_vec(),
            Argument::U32(value) => value.to_le_bytes().to_vec(),
            Argument::F32(value) => value.to_le_bytes().to_vec(),
        }
    }
}

/// One launch, checked against its kernel's shapes.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// Where the kernel is.
    pub module: Module,
    /// Its name there.
    pub kernel: &'static str,
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// One for each parameter.
    pub arguments: Vec<Argument>,
}

/// Something that runs launches, in order.
pub trait Device {
    /// Why a launch did not run.
    type Error;

    /// Runs a launch, or queues it behind those before.
    ///
    /// # Errors
    /// Where the device cannot.
    fn launch(&mut self, launch: &Launch) -> Result<(), Self::Error>;
}
