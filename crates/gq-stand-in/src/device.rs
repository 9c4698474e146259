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
pub(crate) const CAPTURE_INVALIDATED: Answer = 901;
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
        CAPTURE_INVALIDATED => c"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
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

/// A kernel of a module, and the dynamic shared memory that it was allowed.
#[derive(Clone)]
pub(crate) struct Function {
    pub(crate) module: Arc<Module>,
    pub(crate) kernel: String,
    pub(crate) allowed: u32,
}

/// Launches that are kept, not run.
#[derive(Default)]
struct Capture {
    launches: Vec<Queued>,
    /// Something was called that a capture does not take: it can only be ended.
    invalid: bool,
}

/// All of it. Handles are places in these lists, from 1.
pub(crate) struct Device {
    pub(crate) settings: Settings,
    machine: Machine,
    sizes: BTreeMap<u64, u64>,
    used: u64,
    /// The largest `used` so far.
    peak: u64,
    allocations: u64,
    launches: u64,
    instructions: u64,
    /// A kernel's fault that no call has told yet: the next that waits for the device does. Nothing is run meanwhile.
    fault: Option<Answer>,
    /// What every call answers after a fault was told.
    lost: Option<Answer>,
    pub(crate) modules: Vec<Option<Arc<Module>>>,
    pub(crate) functions: Vec<Function>,
    capture: Option<Capture>,
    pub(crate) graphs: Vec<Option<Arc<Vec<Queued>>>>,
}

static DEVICE: Mutex<Option<Device>> = Mutex::new(None);

/// The device, made when it is first asked for.
pub(crate) fn with<R>(work: impl FnOnce(&mut Device) -> R) -> R {
    let mut guard: MutexGuard<'_, Option<Device>> = DEVICE.lock().unwrap_or_else(PoisonError::into_inner);
    work(guard.get_or_insert_with(|| {
        // Whoever started the process looks for this: it was not a card that answered.
        eprintln!("{}", crate::GREETING);
        Device::new(Settings::of_environment())
    }))
}

/// An allocation takes as much as a multiple of this.
const PAGE: u64 = 512;

/// Bytes of shared memory that a block has without asking.
const FREE_SHARED: u32 = 48 * 1024;
/// Most blocks of a grid's second and third side.
const MOST_OTHER: u32 = 65_535;
/// Most threads of a block.
const MOST_THREADS: u64 = 1024;

impl Device {
    fn new(settings: Settings) -> Device {
        Device {
            settings,
            machine: Machine::new(),
            sizes: BTreeMap::new(),
            used: 0,
            peak: 0,
            allocations: 0,
            launches: 0,
            instructions: 0,
            fault: None,
            lost: None,
            modules: Vec::new(),
            functions: Vec::new(),
            capture: None,
            graphs: Vec::new(),
        }
    }

    /// Whether calls still work.
    pub(crate) fn alive(&self) -> Result<(), Answer> {
        self.lost.map_or(Ok(()), Err)
    }

    /// Waits for everything before: a fault of a kernel is told here, and by every call from here on.
    pub(crate) fn synchronize(&mut self) -> Result<(), Answer> {
        self.alive()?;
        self.no_capture()?;
        self.lost = self.fault.take();
        self.alive()
    }

    /// Bytes free and in all.
    pub(crate) fn memory(&self) -> (u64, u64) {
        (self.settings.memory.saturating_sub(self.used), self.settings.memory)
    }

    pub(crate) fn allocate(&mut self, bytes: u64) -> Result<u64, Answer> {
        self.alive()?;
        self.no_capture()?;
        if bytes == 0 {
            return Err(INVALID_VALUE);
        }
        let taken = bytes.next_multiple_of(PAGE);
        if taken > self.memory().0 || self.allocations == self.settings.allocations {
            return Err(OUT_OF_MEMORY);
        }
        self.allocations += 1;
        self.used += taken;
        self.peak = self.peak.max(self.used);
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
        self.synchronize()?;
        let read = self.machine.read(address, bytes);
        read.map_err(|fault| self.lose(&format!("a copy from the device: {fault}"), INVALID_VALUE))
    }

    fn lose(&mut self, why: &str, answer: Answer) -> Answer {
        eprintln!("stand-in of the driver: {why}");
        self.lost = Some(answer);
        answer
    }

    /// Calls that a stream that is being captured does not take: they end what can be captured.
    fn no_capture(&mut self) -> Result<(), Answer> {
        match &mut self.capture {
            None => Ok(()),
            Some(Capture { invalid: true, .. }) => Err(CAPTURE_INVALIDATED),
            Some(capture) => {
                capture.invalid = true;
                Err(NOT_PERMITTED_IN_CAPTURE)
            }
        }
    }

    pub(crate) fn load(&mut self, text: &str) -> Result<usize, Answer> {
        self.alive()?;
        self.no_capture()?;
        if self.modules.len() as u64 >= self.settings.modules {
            return Err(OUT_OF_MEMORY);
        }
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

    /// Shared memory of a block, static and dynamic, that this device has at most.
    fn most_shared(&self) -> u32 {
        match self.settings.capability {
            80 | 87 => 163 * 1024,
            90.. if self.settings.capability < 120 => 227 * 1024,
            80.. => 99 * 1024,
            _ => 64 * 1024,
        }
    }

    /// Allows a function so much dynamic shared memory.
    pub(crate) fn allow(&mut self, place: usize, bytes: i32) -> Result<(), Answer> {
        self.alive()?;
        let most = self.most_shared();
        let function = place.checked_sub(1).and_then(|place| self.functions.get_mut(place));
        let function = function.ok_or(INVALID_HANDLE)?;
        let own = function.module.kernel(&function.kernel).map_or(0, |kernel| kernel.static_shared);
        let bytes = u32::try_from(bytes).map_err(|_| INVALID_VALUE)?;
        if bytes.saturating_add(own) > most {
            return Err(INVALID_VALUE);
        }
        function.allowed = bytes;
        Ok(())
    }

    /// A launch of a function that was allowed so much dynamic shared memory.
    pub(crate) fn launch(&mut self, queued: Queued, allowed: u32) -> Result<(), Answer> {
        self.alive()?;
        let threads: u64 = queued.block.iter().map(|side| u64::from(*side)).product();
        let kernel = queued.module.kernel(&queued.kernel).ok_or(INVALID_HANDLE)?;
        let most = kernel.most_threads.map_or(MOST_THREADS, |most| MOST_THREADS.min(u64::from(most)));
        let free = FREE_SHARED.saturating_sub(kernel.static_shared);
        let [x, y, z] = queued.grid;
        if [x, y, z].contains(&0)
            || x > i32::MAX as u32
            || y.max(z) > MOST_OTHER
            || threads == 0
            || threads > most
            || queued.shared > free.max(allowed)
        {
            eprintln!(
                "stand-in of the driver: {}: a grid of {:?} blocks of {threads} threads with {} bytes of shared memory",
                queued.kernel, queued.grid, queued.shared
            );
            return Err(INVALID_VALUE);
        }
        match &mut self.capture {
            Some(Capture { invalid: true, .. }) => Err(CAPTURE_INVALIDATED),
            Some(capture) => {
                capture.launches.push(queued);
                Ok(())
            }
            None => self.run(&queued),
        }
    }

    fn run(&mut self, queued: &Queued) -> Result<(), Answer> {
        if self.launches == self.settings.launches {
            return Err(self.lose("the device is lost, as was asked for", DEVICE_UNAVAILABLE));
        }
        if self.launches == self.settings.room {
            self.settings.room = u64::MAX;
            return Err(OUT_OF_MEMORY);
        }
        self.launches += 1;
        if self.fault.is_some() {
            return Ok(());
        }
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
            Err(fault) => {
                eprintln!("stand-in of the driver: {fault}");
                self.fault = Some(LAUNCH_FAILED);
                Ok(())
            }
        }
    }

    /// Says what was launched so far.
    pub(crate) fn tell(&self) {
        if self.settings.count {
            let Device { launches, instructions, used, peak, allocations, .. } = self;
            eprintln!(
                "stand-in: {launches} launches, {instructions} warp instructions, {used} bytes in use, {peak} at most, \
                 {allocations} allocations"
            );
        }
    }

    pub(crate) fn begin_capture(&mut self) -> Result<(), Answer> {
        self.alive()?;
        self.no_capture()?;
        self.refuse_capture(1)?;
        self.capture = Some(Capture::default());
        Ok(())
    }

    pub(crate) fn end_capture(&mut self) -> Result<usize, Answer> {
        self.alive()?;
        let captured = self.capture.take().ok_or(INVALID_VALUE)?;
        if captured.invalid {
            return Err(CAPTURE_INVALIDATED);
        }
        self.refuse_capture(2)?;
        self.graphs.push(Some(Arc::new(captured.launches)));
        Ok(self.graphs.len())
    }

    /// Whether captures get past this point.
    pub(crate) fn refuse_capture(&self, at: u64) -> Result<(), Answer> {
        if self.settings.capture == at { Err(NOT_PERMITTED_IN_CAPTURE) } else { Ok(()) }
    }

    pub(crate) fn replay(&mut self, graph: usize) -> Result<(), Answer> {
        self.alive()?;
        self.no_capture()?;
        self.refuse_capture(4)?;
        let found = graph.checked_sub(1).and_then(|place| self.graphs.get(place)?.clone());
        found.ok_or(INVALID_HANDLE)?.iter().try_for_each(|queued| self.run(queued))
    }
}
