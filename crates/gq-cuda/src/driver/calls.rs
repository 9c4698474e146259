//! The driver's functions that cudarc has no safe form of.

use crate::{Launch, Module};
use cudarc::driver::{CudaContext, CudaGraph, CudaSlice, CudaStream, DriverError, result, sys};
use std::ffi::{CString, c_void};
use std::sync::Arc;

/// Whether the driver's library can be loaded; cudarc's other functions panic where it cannot.
pub(super) fn is_present() -> bool {
    // SAFETY: loads a library of the system by its name and calls nothing in it.
    unsafe { sys::is_culib_present() }
}

/// The CUDA version of the driver: 1000 times the major one and 10 times the minor one.
pub(super) fn version() -> Result<i32, DriverError> {
    let mut version = 0;
    // SAFETY: the library is there (`is_present`), and the pointer is to an integer of ours.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result()?;
    Ok(version)
}

/// Memory that holds anything: no value of `u8` is invalid.
pub(super) fn reserve(stream: &Arc<CudaStream>, bytes: usize) -> Result<CudaSlice<u8>, DriverError> {
    // SAFETY: whatever the memory holds is a `u8`, and nothing of the host's can be seen in it but what was copied there.
    unsafe { stream.alloc::<u8>(bytes) }
}

/// A captured graph.
pub(super) struct Captured(CudaGraph);

// SAFETY: its handles may be used from any thread, one at a time: `launch` takes it exclusively, and binds the context.
unsafe impl Send for Captured {}

impl Captured {
    /// Ends a capture; `None` where nothing was captured.
    pub(super) fn end(stream: &Arc<CudaStream>) -> Result<Option<Captured>, DriverError> {
        Ok(stream.end_capture(sys::CUgraphInstantiate_flags(0))?.map(Captured))
    }

    /// Queues all of it.
    pub(super) fn launch(&mut self) -> Result<(), DriverError> {
        self.0.launch()
    }
}

/// A module in a context that it keeps.
pub(super) struct Loaded {
    module: sys::CUmodule,
    context: Arc<CudaContext>,
}

// SAFETY: a module handle may be used from any thread that its context is bound to, and every use binds it first.
unsafe impl Send for Loaded {}

impl Loaded {
    /// Compiles the PTX for the context's device.
    pub(super) fn new(context: Arc<CudaContext>, module: Module) -> Result<Loaded, DriverError> {
        context.bind_to_thread()?;
        let invalid = DriverError(sys::CUresult::CUDA_ERROR_INVALID_PTX);
        let text = CString::new(module.text()).map_err(|_| invalid)?;
        // SAFETY: the context is current, and the text ends with a zero and outlives the call.
        let module = unsafe { result::module::load_data(text.as_ptr().cast::<c_void>()) }?;
        Ok(Loaded { module, context })
    }

    /// A kernel.
    pub(super) fn function(&self, kernel: &str) -> Result<Function, DriverError> {
        let unknown = DriverError(sys::CUresult::CUDA_ERROR_NOT_FOUND);
        let name = CString::new(kernel).map_err(|_| unknown)?;
        // SAFETY: the module is loaded for as long as `self` is there.
        let function = unsafe { result::module::get_function(self.module, name) }?;
        Ok(Function { function, shared: 0 })
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: it was loaded once in this context, and functions of it are not launched any more: `Gpu` drops
            // them first. A failure leaves the module to the context's end.
            let _ = unsafe { result::module::unload(self.module) };
        }
    }
}

/// A kernel of a loaded module.
pub(super) struct Function {
    function: sys::CUfunction,
    /// Dynamic shared memory that it was allowed so far.
    shared: u32,
}

// SAFETY: as `Loaded`.
unsafe impl Send for Function {}

/// Dynamic shared memory that needs no leave: 48 KiB with what a kernel has of its own, which is less than 8 KiB where the
/// dynamic part is between the two.
const FREE_SHARED: u32 = 40 * 1024;

impl Function {
    /// Queues a launch; the stream's context is current.
    pub(super) fn launch(&mut self, stream: &CudaStream, launch: &Launch) -> Result<(), DriverError> {
        if launch.shared > FREE_SHARED && launch.shared > self.shared {
            let most = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function's module is loaded (`Gpu` keeps it), and the value is a plain size.
            unsafe { result::function::set_function_attribute(self.function, most, launch.shared as i32) }?;
            self.shared = launch.shared;
        }
        let mut arguments: Vec<Vec<u8>> = launch.arguments.iter().map(|argument| argument.bytes()).collect();
        let mut pointers: Vec<*mut c_void> =
            arguments.iter_mut().map(|bytes| bytes.as_mut_ptr().cast::<c_void>()).collect();
        let [x, y, z] = launch.grid;
        // SAFETY: the driver copies as many bytes of each argument as the kernel's parameter has, which is what
        // `Argument::bytes` gives: the tests launch every kernel on an interpreter that compares counts and sizes. The
        // ranges that addresses stand for were checked when the launch was made; a wrong address is the device's fault,
        // which the driver reports, not the host's memory.
        unsafe {
            result::launch_kernel(
                self.function,
                (x, y, z),
                (launch.threads, 1, 1),
                launch.shared,
                stream.cu_stream(),
                &mut pointers,
            )
        }
    }
}
