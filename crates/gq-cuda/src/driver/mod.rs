//! A GPU by its driver, which is loaded when it is asked for.

#[allow(unsafe_code)]
mod calls;

use crate::{Device, Launch, Module, Span};
use calls::{Function, Loaded};
use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr, DriverError, sys::CUresult};
use std::collections::BTreeMap;
use std::sync::Arc;
use thiserror::Error;

/// The driver's own number of the first version that takes the committed PTX: 12.4.
const NEEDED: i32 = 12040;

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
    /// No device of this number.
    #[error("there is no GPU number {asked}: the driver has {count}")]
    NoDevice {
        /// Asked for.
        asked: usize,
        /// Devices.
        count: usize,
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
    /// The driver refused or the device was lost.
    #[error("the NVIDIA driver: {what}: {name}")]
    Failed {
        /// What was asked of it.
        what: &'static str,
        /// Its name for the failure.
        name: String,
    },
}

/// The driver's answer as ours.
fn failed(what: &'static str) -> impl Fn(DriverError) -> GpuError {
    move |error| {
        let name = error.error_name().ok().and_then(|name| name.to_str().ok());
        GpuError::Failed { what, name: name.map_or_else(|| format!("{:?}", error.0), str::to_owned) }
    }
}

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
    /// The GPU of this number.
    ///
    /// # Errors
    /// Without a driver, with one that is too old, or without such a device.
    pub fn open(number: usize) -> Result<Gpu, GpuError> {
        if !calls::is_present() {
            return Err(GpuError::NoDriver);
        }
        let actual = calls::version().map_err(failed("its version"))?;
        if actual < NEEDED {
            return Err(GpuError::OldDriver { actual });
        }
        let count = match CudaContext::device_count() {
            Ok(count) => usize::try_from(count).unwrap_or(0),
            Err(error) if error.0 == CUresult::CUDA_ERROR_NO_DEVICE => 0,
            Err(error) => return Err(failed("its devices")(error)),
        };
        if number >= count {
            return Err(GpuError::NoDevice { asked: number, count });
        }
        let context = CudaContext::new(number).map_err(failed("a context"))?;
        let stream = context.new_stream().map_err(failed("a stream"))?;
        Ok(Gpu { functions: BTreeMap::new(), modules: BTreeMap::new(), stream, context })
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
        let (free, total) = self.context.mem_get_info().map_err(failed("free memory"))?;
        Ok((free as u64, total as u64))
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

impl Device for Gpu {
    type Error = GpuError;

    fn launch(&mut self, launch: &Launch) -> Result<(), GpuError> {
        self.context.bind_to_thread().map_err(failed("a context"))?;
        let key = (launch.module, launch.kernel);
        if !self.functions.contains_key(&key) {
            if !self.modules.contains_key(&launch.module) {
                let loaded = Loaded::new(self.context.clone(), launch.module);
                self.modules.insert(launch.module, loaded.map_err(failed("loading kernels"))?);
            }
            let module = self.modules.get(&launch.module);
            let found = module.map(|module| module.function(launch.kernel));
            let function = found.transpose().map_err(failed("finding a kernel"))?;
            function.map(|function| self.functions.insert(key, function));
        }
        let Some(function) = self.functions.get_mut(&key) else { return Ok(()) };
        function.launch(&self.stream, launch).map_err(failed("a launch"))
    }
}
