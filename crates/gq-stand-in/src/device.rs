//! The device behind the library's functions: memory, modules, launches, captured graphs.

use crate::settings::Settings;
use gq_ptx::{Argument, Checks, Launch, Machine, Module, Order};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Numbers of the driver's answers.
pub(crate) type Answer = i32;

pub(crate) const SUCCESS: Answer = 0;
pub(crate) const INVALID_VALUE: Answer = 1;
pub(crate) const OUT_OF_MEMORY: Answer = 2;
pub(crate) const NO_DEVICE: Answer = 100;
pub(crate) const INVALID_DEVICE: Answer = 101;
pub(crate) const INVALID_PTX: Answer = 218;
pub(crate) const INVALID_HANDLE: Answer = 400;
pub(crate) const NOT_FOUND: Answer = 500;
pub(crate) const LAUNCH_FAILED: Answer = 719;
pub(crate) const NOT_PERMITTED_IN_CAPTURE: Answer = 900;
pub(crate) const DEVICE_UNAVAILABLE: Answer = 46;

/// The driver's names of answers.
pub(crate) fn name(answer: Answer) -> &'static std::ffi::CStr {
    match answer {
        SUCCESS => c"CUDA_SUCCESS",
        INVALID_VALUE => c"CUDA_ERROR_INVALID_VALUE",
        OUT_OF_MEMORY => c"CUDA_ERROR_OUT_OF_MEMORY",
        DEVICE_UNAVAILABLE => c"CUDA_ERROR_DEVICE_UNAVAILABLE",
        NO_DEVICE => c"CUDA_ERROR_NO_DEVICE",
        INVALID_DEVICE => c"CUDA_ERROR_INVALID_DEVICE",
        INVALID_PTX => c"CUDA_ERROR_INVALID_PTX",
        INVALID_HANDLE => c"CUDA_ERROR_INVALID_HANDLE",
        NOT_FOUND => c"CUDA_ERROR_NOT_FOUND",
        LAUNCH_FAILED => c"CUDA_ERROR_LAUNCH_FAILED",
        NOT_PERMITTED_IN_CAPTURE => c"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
        _ => c"CUDA_ERROR_UNKNOWN",
    }
}

/// A launch as it was asked for.
#[derive(Clone)]
pub(crate) struct Queued {
    pub(crate) module: Arc<Module>,
    pub(crate) kernel: String,
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) shared: u32,
    pub(crate) arguments: Vec<Argument>,
}

/// All of it. Handles are places in these lists, from 1.
pub(crate) struct Device {
    pub(crate) settings: Settings,
    machine: Machine,
    sizes: BTreeMap<u64, u64>,
    used: u64,
    allocations: u64,
    launches: u64,
    instructions: u64,
    /// What every call answers after a fault.
    lost: Option<Answer>,
    pub(crate) modules: Vec<Option<Arc<Module>>>,
    pub(crate) functions: Vec<(Arc<Module>, String)>,
    capture: Option<Vec<Queued>>,
    pub(crate) graphs: Vec<Option<Arc<Vec<Queued>>>>,
}

static DEVICE: Mutex<Option<Device>> = Mutex::new(None);

/// The device, made when it is first asked for.
pub(crate) fn with<R>(work: impl FnOnce(&mut Device) -> R) -> R {
    let mut guard: MutexGuard<'_, Option<Device>> = DEVICE.lock().unwrap_or_else(PoisonError::into_inner);
    let device = guard.get_or_insert_with(|| Device {
        settings: Settings::of_environment(),
        machine: Machine::new(),
        sizes: BTreeMap::new(),
        used: 0,
        allocations: 0,
        launches: 0,
        instructions: 0,
        lost: None,
        modules: Vec::new(),
        functions: Vec::new(),
        capture: None,
        graphs: Vec::new(),
    });
    work(device)
}

/// An allocation takes as much as a multiple of this.
const PAGE: u64 = 512;

impl Device {
    /// Whether calls still work.
    pub(crate) fn alive(&self) -> Result<(), Answer> {
        self.lost.map_or(Ok(()), Err)
    }

    /// Bytes free and in all.
    pub(crate) fn memory(&self) -> (u64, u64) {
        (self.settings.memory.saturating_sub(self.used), self.settings.memory)
    }

    pub(crate) fn allocate(&mut self, bytes: u64) -> Result<u64, Answer> {
        self.alive()?;
        self.no_capture()?;
        let taken = bytes.next_multiple_of(PAGE);
        if taken > self.memory().0 || self.allocations == self.settings.allocations {
            return Err(OUT_OF_MEMORY);
        }
        self.allocations += 1;
        self.used += taken;
        let address = self.machine.allocate(bytes as usize);
        self.sizes.insert(address, taken);
        Ok(address)
    }

    pub(crate) fn free(&mut self, address: u64) -> Result<(), Answer> {
        self.alive()?;
        let taken = self.sizes.remove(&address).ok_or(INVALID_VALUE)?;
        self.used -= taken;
        self.machine.free(address);
        Ok(())
    }

    pub(crate) fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Answer> {
        self.alive()?;
        self.no_capture()?;
        let written = self.machine.write(address, bytes);
        written.map_err(|fault| self.lose(&format!("a copy to the device: {fault}"), INVALID_VALUE))
    }

    pub(crate) fn read(&mut self, address: u64, bytes: usize) -> Result<Vec<u8>, Answer> {
        self.alive()?;
        self.no_capture()?;
        let read = self.machine.read(address, bytes);
        read.map_err(|fault| self.lose(&format!("a copy from the device: {fault}"), INVALID_VALUE))
    }

    fn lose(&mut self, why: &str, answer: Answer) -> Answer {
        eprintln!("stand-in of the driver: {why}");
        self.lost = Some(answer);
        answer
    }

    /// Calls that a stream that is being captured does not take.
    fn no_capture(&self) -> Result<(), Answer> {
        if self.capture.is_some() { Err(NOT_PERMITTED_IN_CAPTURE) } else { Ok(()) }
    }

    pub(crate) fn load(&mut self, text: &str) -> Result<usize, Answer> {
        self.alive()?;
        self.no_capture()?;
        match Module::parse(text) {
            Ok(module) => {
                self.modules.push(Some(Arc::new(module)));
                Ok(self.modules.len())
            }
            Err(error) => {
                eprintln!("stand-in of the driver: {error}");
                Err(INVALID_PTX)
            }
        }
    }

    pub(crate) fn launch(&mut self, queued: Queued) -> Result<(), Answer> {
        self.alive()?;
        match &mut self.capture {
            Some(captured) => {
                captured.push(queued);
                Ok(())
            }
            None => self.run(&queued),
        }
    }

    fn run(&mut self, queued: &Queued) -> Result<(), Answer> {
        if self.launches == self.settings.launches {
            return Err(self.lose("the device is lost, as was asked for", DEVICE_UNAVAILABLE));
        }
        self.launches += 1;
        let launch = Launch {
            grid: queued.grid,
            block: queued.block,
            dynamic_shared: queued.shared,
            order: if self.settings.reverse { Order::Reverse } else { Order::Forward },
            checks: if self.settings.races { Checks::All } else { Checks::NoRaces },
            ..Launch::new(&queued.kernel, 1, 1, &queued.arguments)
        };
        match self.machine.launch(&queued.module, &launch) {
            Ok(counters) => {
                self.instructions += counters.instructions;
                Ok(())
            }
            Err(fault) => Err(self.lose(&fault.to_string(), LAUNCH_FAILED)),
        }
    }

    /// Says what was launched so far.
    pub(crate) fn tell(&self) {
        if self.settings.count {
            let (launches, instructions, used) = (self.launches, self.instructions, self.used);
            eprintln!("stand-in: {launches} launches, {instructions} warp instructions, {used} bytes in use");
        }
    }

    pub(crate) fn begin_capture(&mut self) -> Result<(), Answer> {
        self.alive()?;
        self.no_capture()?;
        self.capture = Some(Vec::new());
        Ok(())
    }

    pub(crate) fn end_capture(&mut self) -> Result<usize, Answer> {
        self.alive()?;
        let captured = self.capture.take().ok_or(INVALID_VALUE)?;
        self.graphs.push(Some(Arc::new(captured)));
        Ok(self.graphs.len())
    }

    pub(crate) fn replay(&mut self, graph: usize) -> Result<(), Answer> {
        self.alive()?;
        self.no_capture()?;
        let found = graph.checked_sub(1).and_then(|place| self.graphs.get(place)?.clone());
        found.ok_or(INVALID_HANDLE)?.iter().try_for_each(|queued| self.run(queued))
    }
}
