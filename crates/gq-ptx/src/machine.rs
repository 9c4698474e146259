//! A GPU: memory, and launches whose blocks run one after the other.

use crate::counters::Counters;
use crate::fault::{Fault, FaultKind};
use crate::launch::{Argument, Launch, Order};
use crate::memory::Memory;
use crate::module::{Kernel, Module};
use crate::shared::Shared;
use crate::types::LANES;
use crate::warp::{Stop, Surroundings, Warp};

/// Most threads of a block.
const MOST_THREADS: u64 = 1024;
/// Most shared memory of a block on compute capability 8.0, in bytes.
const MOST_SHARED: u64 = 163 * 1024;

/// A GPU: memory and launches.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    memory: Memory,
}

impl Machine {
    /// Without any allocation.
    pub fn new() -> Machine {
        Machine::default()
    }

    /// Allocates `bytes` that nobody has written. Gives the address.
    pub fn allocate(&mut self, bytes: usize) -> u64 {
        self.memory.allocate(bytes)
    }

    /// Allocates and writes. Gives the address.
    pub fn upload(&mut self, data: &[u8]) -> u64 {
        let address = self.memory.allocate(data.len());
        let written = self.memory.copy_in(address, data);
        debug_assert!(written.is_ok());
        address
    }

    /// Frees an allocation. Whether one began at `address`.
    pub fn free(&mut self, address: u64) -> bool {
        self.memory.free(address)
    }

    /// Copies to the device.
    ///
    /// # Errors
    /// Out of bounds.
    pub fn write(&mut self, address: u64, data: &[u8]) -> Result<(), FaultKind> {
        self.memory.copy_in(address, data)
    }

    /// Copies from the device.
    ///
    /// # Errors
    /// Out of bounds, or bytes that nobody has written.
    pub fn read(&mut self, address: u64, bytes: usize) -> Result<Vec<u8>, FaultKind> {
        self.memory.copy_out(address, bytes)
    }

    /// What the allocation that begins at `address` holds, and which of its bytes were ever written.
    pub fn holds(&self, address: u64) -> Option<(&[u8], &[bool])> {
        self.memory.holds(address)
    }

    /// Where the allocation begins that `address` lies in.
    pub fn beginning(&self, address: u64) -> u64 {
        Memory::beginning(address)
    }

    /// Runs a kernel to its end.
    ///
    /// # Errors
    /// At the first fault.
    pub fn launch(&mut self, module: &Module, launch: &Launch<'_>) -> Result<Counters, Fault> {
        let fault =
            |kind| Fault { kernel: launch.kernel.to_owned(), block: [0; 3], thread: None, line: 0, kind };
        let kernel = module.kernel(launch.kernel).ok_or_else(|| fault(FaultKind::UnknownKernel))?;
        let parameters = parameters(kernel, launch.arguments).map_err(fault)?;
        let shared = check_size(kernel, launch).map_err(fault)?;
        let blocks: u64 = launch.grid.iter().map(|side| u64::from(*side)).product();
        let mut counters = Counters::default();
        let mut by_opcode = vec![0; kernel.opcodes.len()];
        for step in 0..blocks {
            let block = if launch.order == Order::Forward { step } else { blocks - 1 - step };
            let [x, y, _] = launch.grid.map(u64::from);
            let place = [block % x, block / x % y, block / x / y].map(|at| at as u32);
            let mut shared = Shared::new(shared);
            let mut surroundings = Surroundings {
                kernel,
                launch,
                constants: &module.constants,
                parameters: &parameters,
                memory: &mut self.memory,
                shared: &mut shared,
                counters: &mut counters,
                by_opcode: &mut by_opcode,
                block: place,
                number: block as u32,
            };
            run_block(&mut surroundings)?;
        }
        self.memory.end_launch();
        counters.instructions = by_opcode.iter().sum();
        let counts = kernel.opcodes.iter().cloned().zip(by_opcode);
        counters.by_opcode = counts.filter(|(_, count)| *count > 0).collect();
        Ok(counters)
    }
}

/// Arguments as one block of parameter memory.
fn parameters(kernel: &Kernel, arguments: &[Argument]) -> Result<Vec<u8>, FaultKind> {
    if kernel.parameters.len() != arguments.len() {
        let (actual, expected) = (arguments.len(), kernel.parameters.len());
        return Err(FaultKind::ArgumentCount { actual, expected });
    }
    let mut out = Vec::new();
    for (index, (parameter, argument)) in kernel.parameters.iter().zip(arguments).enumerate() {
        if parameter.bytes != argument.0.len() {
            let (actual, expected) = (argument.0.len(), parameter.bytes);
            return Err(FaultKind::ArgumentSize { index, actual, expected });
        }
        out.resize(parameter.offset, 0);
        out.extend_from_slice(&argument.0);
    }
    Ok(out)
}

/// Bytes of shared memory, when the block is of a size that is allowed.
fn check_size(kernel: &Kernel, launch: &Launch<'_>) -> Result<usize, FaultKind> {
    let threads: u64 = launch.block.iter().map(|side| u64::from(*side)).product();
    let limit = kernel.most_threads.map_or(MOST_THREADS, |most| MOST_THREADS.min(u64::from(most)));
    if threads == 0 || threads > limit {
        return Err(FaultKind::BlockSize { actual: threads, limit });
    }
    let shared = u64::from(kernel.static_shared) + u64::from(launch.dynamic_shared);
    if shared > MOST_SHARED {
        return Err(FaultKind::SharedSize { actual: shared, limit: MOST_SHARED });
    }
    Ok(shared as usize)
}

/// Warps run to their next barrier in turn, until all have ended.
fn run_block(surroundings: &mut Surroundings<'_>) -> Result<(), Fault> {
    let threads: u32 = surroundings.launch.block.iter().product();
    let mut warps: Vec<Warp> =
        (0..threads.div_ceil(LANES as u32)).map(|number| Warp::new(number, threads, surroundings)).collect();
    let mut stops = vec![Stop::Barrier; warps.len()];
    let reverse = surroundings.launch.order == Order::Reverse;
    loop {
        for step in 0..warps.len() {
            let at = if reverse { warps.len() - 1 - step } else { step };
            stops[at] = warps[at].run(surroundings)?;
        }
        if stops.iter().all(|stop| *stop == Stop::End) {
            return Ok(());
        }
        let waiting = stops.iter().position(|stop| *stop == Stop::Barrier);
        if let Some(waiting) = waiting.filter(|_| stops.contains(&Stop::End)) {
            return Err(warps[waiting].fault(surroundings, None, FaultKind::BarrierAfterExit));
        }
        warps.iter_mut().for_each(Warp::pass_barrier);
    }
}
