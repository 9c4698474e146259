//! An interpreter of PTX text: it executes a kernel's committed PTX on the CPU, warp by warp, bit for bit.
//!
//! It serves tests of GPU kernels on machines without a GPU. Arithmetic that PTX defines to the bit has these bits here;
//! instructions whose bits PTX leaves open (`.approx`, products and sums without `.rn` that may be fused) are refused
//! when a module is parsed. The exception is `mma` on f16 and bf16, which PTX defines to rounding only.
//!
//! A *module* ([`Module`]) is the parsed text. A *machine* ([`Machine`]) has global memory and launches kernels on it.
//! A *warp* is 32 threads, called *lanes*, that execute in lockstep while they agree and in groups while they do not;
//! it runs until its next block barrier, then the next warp of the block does. A *fault* ([`Fault`]) is what a kernel
//! may not do; it names the kernel, the thread and the line of the PTX:
//!
//! - reads and writes out of bounds, misaligned, of memory that nobody wrote, or through the read-only path of memory
//!   that the kernel writes;
//! - races in shared and global memory: two threads of which one writes, with no barrier between them;
//! - block barriers, warp barriers, shuffles and votes that not all named lanes reach;
//! - asynchronous copies that are read before they are waited for, or never waited for;
//! - launches with other parameters or more threads than the kernel declares.
//!
//! ```
//! use gq_ptx::{Argument, Launch, Machine, Module};
//!
//! let text = std::fs::read_to_string("tests/kernels/probe.ptx").unwrap();
//! let module = Module::parse(&text).unwrap();
//! let mut machine = Machine::new();
//! let x = machine.upload(&1.5f32.to_le_bytes());
//! let y = machine.upload(&2.0f32.to_le_bytes());
//! let arguments = [Argument::address(x), Argument::address(y), Argument::f32(3.0), Argument::u32(1)];
//! machine.launch(&module, &Launch::new("axpy", 1, 32, &arguments)).unwrap();
//! assert_eq!(machine.read(y, 4).unwrap(), 6.5f32.to_le_bytes());
//! ```
//!
//! It does not show time, faults of drivers and of the assembler, or memory order between blocks. This crate does not know
//! files, models or what a kernel is for.

mod access;
mod arithmetic;
mod conversion;
mod counters;
mod decode;
mod fault;
mod instruction;
mod lanes;
mod launch;
mod lex;
mod liveness;
mod machine;
mod matrix;
mod memory;
mod module;
mod operand;
mod shared;
mod shuffle;
mod transfer;
mod types;
mod warp;

pub use counters::Counters;
pub use fault::{Fault, FaultKind};
pub use launch::{Argument, Checks, Launch, Order};
pub use machine::Machine;
pub use module::{Kernel, Module, Parameter, ParseError};
