//! A GPU by its driver, which is loaded when it is asked for.

#[allow(unsafe_code)]
mod calls;

use crate::{Device, Launch, Module, Span};
use calls::{Function, Loaded};
use cudarc::driver::{
    CudaContext, CudaSlice, CudaStream, DevicePtr, DriverError,
    sys::{CUresult, CUstreamCaptureMode},
};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use thiserror::Error;

/// The driver's own number of the first version that takes the committed PTX: 12.4.
const NEEDED: i32 = 12040;

/// The oldest major compute capability that the PTX is for.
const OLDEST: i32 = 8;

/// Why a GPU cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum GpuError {
    /// No driver is installed.
    #[error("no NVIDIA driver is installed: its library (libcuda.so.1 or nvcuda.dll) was not found")]
    NoDriver,
    /// A driver that does not take the kernels.
    #[error("the NVIDIA driver is for CUDA {}.{}, the kernels need one for CUDA 12.4 or newer", actual / 1000, actual % 1000 / 10)]
    OldDriver {
        /// 1000 times its major version and 10 times the minor one.
        actual: i32,
    },
    /// The driver does not start.
    #[error("the NVIDIA driver cannot be started: {name}")]
    NotStarted {
        /// The driver's name for the failure.
        name: String,
    },
    /// No device of this number.
    #[error("there is no GPU number {asked}: the driver has {count}")]
    NoDevice {
        /// Asked for.
        asked: usize,
        /// Devices.
        count: usize,
    },
    /// A device that is there and cannot be used: another process has it, or its memory is full.
    #[error("GPU {number} cannot be opened: {name}")]
    Closed {
        /// Its number.
        number: usize,
        /// The driver's name for the failure.
        name: String,
    },
    /// Not enough memory.
    #[error("the GPU has no room for {asked} bytes: {free} of {total} are free")]
    OutOfMemory {
        /// Bytes asked for.
        asked: u64,
        /// Bytes free.
        free: u64,
        /// Bytes in all.
        total: u64,
    },
    /// Not enough memory for something whose size the driver alone knows.
    #[error("the GPU has no room for {what}: {free} of {total} bytes are free")]
    NoRoom {
        /// What was asked of it.
        what: &'static str,
        /// Bytes free.
        free: u64,
        /// Bytes in all.
        total: u64,
    },
    /// A device that is too old for the kernels.
    #[error("GPU {number} ({name}) has compute capability {major}.{minor}, the kernels need 8.0 or newer")]
    OldDevice {
        /// Its number.
        number: usize,
        /// Its name.
        name: String,
        /// Compute capability.
        major: i32,
        /// Compute capability.
        minor: i32,
    },
    /// The device stopped working, or a kernel did what it may not; nothing more can be asked of it in this process.
    #[error("the GPU was lost at {what}: {name}")]
    Lost {
        /// What was asked of it.
        what: &'static str,
        /// The driver's name for the failure.
        name: String,
    },
    /// The driver refused.
    #[error("the NVIDIA driver: {what}: {name}")]
    Failed {
        /// What was asked of it.
        what: &'static str,
        /// Its name for the failure.
        name: String,
    },
}

/// The driver's name for a failure.
fn name_of(error: DriverError) -> String {
    let name = error.error_name().ok().and_then(|name| name.to_str().ok());
    name.map_or_else(|| format!("{:?}", error.0), str::to_owned)
}

/// Bytes free and in all.
fn memory_of(context: &CudaContext) -> Result<(u64, u64), GpuError> {
    let (free, total) = context.mem_get_info().map_err(failed("free memory"))?;
    Ok((free as u64, total as u64))
}

/// The driver's answer to what takes memory of the device that nobody asked for by its size.
fn refused<'a>(context: &'a CudaContext, what: &'static str) -> impl Fn(DriverError) -> GpuError + 'a {
    move |error| match error.0 {
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
            let (free, total) = memory_of(context).unwrap_or((0, 0));
            GpuError::NoRoom { what, free, total }
        }
        _ => failed(what)(error),
    }
}

/// The driver's answer as ours.
fn failed(what: &'static str) -> impl Fn(DriverError) -> GpuError {
    use CUresult as R;
    move |error| {
        let name = name_of(error);
        match error.0 {
            R::CUDA_ERROR_DEVICE_UNAVAILABLE
            | R::CUDA_ERROR_ECC_UNCORRECTABLE
            | R::CUDA_ERROR_NVLINK_UNCORRECTABLE
            | R::CUDA_ERROR_ILLEGAL_ADDRESS
            | R::CUDA_ERROR_LAUNCH_TIMEOUT
            | R::CUDA_ERROR_CONTEXT_IS_DESTROYED
            | R::CUDA_ERROR_ASSERT
            | R::CUDA_ERROR_HARDWARE_STACK_ERROR
            | R::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | R::CUDA_ERROR_MISALIGNED_ADDRESS
            | R::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | R::CUDA_ERROR_INVALID_PC
            | R::CUDA_ERROR_LAUNCH_FAILED
            | R::CUDA_ERROR_UNKNOWN => GpuError::Lost { what, name },
            _ => GpuError::Failed { what, name },
        }
    }
}

/// What is known of a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuFacts {
    /// Its number.
    pub number: usize,
    /// Its name.
    pub name: String,
    /// Compute capability: the major and the minor number.
    pub capability: (i32, i32),
    /// Bytes of memory that are free.
    pub free: u64,
    /// Bytes of memory.
    pub total: u64,
}

/// Launches that were captured once, to be queued together again and again.
pub struct Captured(calls::Captured);

/// A GPU with its stream and the kernels that were launched so far.
pub struct Gpu {
    functions: BTreeMap<(Module, &'static str), Function>,
    modules: BTreeMap<Module, Loaded>,
    stream: Arc<CudaStream>,
    context: Arc<CudaContext>,
}

/// Memory of a GPU, freed when it is dropped.
pub struct Buffer {
    slice: CudaSlice<u8>,
    span: Span,
}

impl Buffer {
    /// Where it is.
    pub fn span(&self) -> Span {
        self.span
    }
}

impl Gpu {
    /// How many GPUs there are.
    ///
    /// # Errors
    /// Without a driver, or with one that is too old.
    pub fn count() -> Result<usize, GpuError> {
        if !calls::is_present() {
            return Err(GpuError::NoDriver);
        }
        let actual = calls::version().map_err(failed("its version"))?;
        if actual < NEEDED {
            return Err(GpuError::OldDriver { actual });
        }
        match CudaContext::device_count() {
            Ok(count) => Ok(usize::try_from(count).unwrap_or(0)),
            Err(error) if error.0 == CUresult::CUDA_ERROR_NO_DEVICE => Ok(0),
            Err(error) => Err(GpuError::NotStarted { name: name_of(error) }),
        }
    }

    /// The GPU of this number.
    ///
    /// # Errors
    /// Without a driver, with one that is too old, without such a device, or with a device that is too old or does not open.
    pub fn open(number: usize) -> Result<Gpu, GpuError> {
        let gpu = Gpu::open_any(number)?;
        let GpuFacts { name, capability: (major, minor), .. } = gpu.facts()?;
        match major < OLDEST {
            true => Err(GpuError::OldDevice { number, name, major, minor }),
            false => Ok(gpu),
        }
    }

    /// The same of any age: nothing can be launched on those before 8.0.
    ///
    /// # Errors
    /// Without a driver, with one that is too old, without such a device, or with one that does not open.
    pub fn open_any(number: usize) -> Result<Gpu, GpuError> {
        let count = Gpu::count()?;
        if number >= count {
            return Err(GpuError::NoDevice { asked: number, count });
        }
        let closed = |error| GpuError::Closed { number, name: name_of(error) };
        let context = CudaContext::new(number).map_err(closed)?;
        let stream = context.new_stream().map_err(closed)?;
        Ok(Gpu { functions: BTreeMap::new(), modules: BTreeMap::new(), stream, context })
    }

    /// What is known of it.
    ///
    /// # Errors
    /// When the driver does not say.
    pub fn facts(&self) -> Result<GpuFacts, GpuError> {
        let capability = self.context.compute_capability().map_err(failed("a compute capability"))?;
        let (free, total) = self.memory()?;
        Ok(GpuFacts { number: self.context.ordinal(), name: self.name()?, capability, free, total })
    }

    /// Its name.
    ///
    /// # Errors
    /// When the driver does not say.
    pub fn name(&self) -> Result<String, GpuError> {
        self.context.name().map_err(failed("a device's name"))
    }

    /// Bytes free and in all.
    ///
    /// # Errors
    /// When the driver does not say.
    pub fn memory(&self) -> Result<(u64, u64), GpuError> {
        memory_of(&self.context)
    }

    fn out_of_memory(&self, asked: usize) -> impl Fn(DriverError) -> GpuError + '_ {
        move |error| match error.0 {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                let (free, total) = self.memory().unwrap_or((0, 0));
                GpuError::OutOfMemory { asked: asked as u64, free, total }
            }
            _ => failed("memory")(error),
        }
    }

    fn buffer(&self, slice: CudaSlice<u8>) -> Buffer {
        let (address, guard) = slice.device_ptr(&self.stream);
        drop(guard);
        let span = Span { address, bytes: slice.len() as u64 };
        Buffer { slice, span }
    }

    /// Memory of zeros.
    ///
    /// # Errors
    /// When there is no room.
    pub fn allocate(&self, bytes: usize) -> Result<Buffer, GpuError> {
        let slice = self.stream.alloc_zeros::<u8>(bytes).map_err(self.out_of_memory(bytes))?;
        Ok(self.buffer(slice))
    }

    /// Memory of anything: what is read before it is written is whatever was there.
    ///
    /// # Errors
    /// When there is no room.
    pub fn reserve(&self, bytes: usize) -> Result<Buffer, GpuError> {
        let slice = calls::reserve(&self.stream, bytes).map_err(self.out_of_memory(bytes))?;
        Ok(self.buffer(slice))
    }

    /// Bytes to a place in a buffer, behind everything before.
    ///
    /// # Errors
    /// When they do not lie within it, or the driver refuses.
    pub fn write(&self, buffer: &mut Buffer, at: usize, bytes: &[u8]) -> Result<(), GpuError> {
        let end = at.saturating_add(bytes.len());
        let Some(mut part) = buffer.slice.try_slice_mut(at..end) else { return Err(outside(at, end)) };
        let copied = self.stream.memcpy_htod(bytes, &mut part);
        copied.map_err(refused(&self.context, "a copy to the device"))
    }

    /// Bytes of a part of a buffer, once everything before is done.
    ///
    /// # Errors
    /// When it does not lie within the buffer, something before failed, or the device was lost.
    pub fn read_part(&self, buffer: &Buffer, part: Range<usize>) -> Result<Vec<u8>, GpuError> {
        let Some(view) = buffer.slice.try_slice(part.clone()) else {
            return Err(outside(part.start, part.end));
        };
        let out = self.stream.clone_dtoh(&view).map_err(failed("a copy from the device"))?;
        self.wait()?;
        Ok(out)
    }

    /// Waits until everything is done.
    ///
    /// # Errors
    /// When something failed, or the device was lost.
    pub fn wait(&self) -> Result<(), GpuError> {
        self.stream.synchronize().map_err(failed("waiting for the device"))
    }

    /// Launches from here on are kept, not run, until [`end_capture`](Gpu::end_capture). Every kernel among them must have
    /// been launched before, and no memory may be taken, read or written.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn begin_capture(&self) -> Result<(), GpuError> {
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        self.stream.begin_capture(mode).map_err(refused(&self.context, "capturing launches"))
    }

    /// What was kept; `None` when nothing was.
    ///
    /// # Errors
    /// When something among it cannot be captured.
    pub fn end_capture(&self) -> Result<Option<Captured>, GpuError> {
        let captured = calls::Captured::end(&self.stream);
        Ok(captured.map_err(refused(&self.context, "capturing launches"))?.map(Captured))
    }

    /// Queues captured launches.
    ///
    /// # Errors
    /// As a launch.
    pub fn replay(&self, captured: &mut Captured) -> Result<(), GpuError> {
        captured.0.launch().map_err(refused(&self.context, "launches that were captured"))
    }

    /// Memory with these bytes.
    ///
    /// # Errors
    /// When there is no room.
    pub fn upload(&self, bytes: &[u8]) -> Result<Buffer, GpuError> {
        let slice = self.stream.clone_htod(bytes).map_err(self.out_of_memory(bytes.len()))?;
        Ok(self.buffer(slice))
    }

    /// Bytes of a buffer, once everything before is done.
    ///
    /// # Errors
    /// When something before failed, or the device was lost.
    pub fn read(&self, buffer: &Buffer) -> Result<Vec<u8>, GpuError> {
        let out = self.stream.clone_dtoh(&buffer.slice).map_err(failed("a copy from the device"))?;
        self.stream.synchronize().map_err(failed("waiting for the device"))?;
        Ok(out)
    }
}

fn outside(at: usize, end: usize) -> GpuError {
    GpuError::Failed { what: "a part of a buffer", name: format!("{at}..{end} is outside") }
}

impl Device for Gpu {
    type Error = GpuError;

    fn launch(&mut self, launch: &Launch) -> Result<(), GpuError> {
        self.context.bind_to_thread().map_err(failed("a context"))?;
        let key = (launch.module, launch.kernel);
        if !self.functions.contains_key(&key) {
            if !self.modules.contains_key(&launch.module) {
                let loaded = Loaded::new(self.context.clone(), launch.module);
                self.modules.insert(launch.module, loaded.map_err(refused(&self.context, "kernels"))?);
            }
            let module = self.modules.get(&launch.module);
            let found = module.map(|module| module.function(launch.kernel));
            let function = found.transpose().map_err(refused(&self.context, "a kernel"))?;
            function.map(|function| self.functions.insert(key, function));
        }
        let Some(function) = self.functions.get_mut(&key) else { return Ok(()) };
        function.launch(&self.stream, launch).map_err(refused(&self.context, "a launch"))
    }
}
