//! The library's functions, as `cuda.h` declares them.
//!
//! SAFETY of all of them: the caller gives what the driver's manual asks for, pointers to memory of its own that holds as
//! much as the call says, or null where the manual allows it.
#![allow(non_snake_case)] // the driver's names
#![allow(clippy::undocumented_unsafe_blocks)] // one invariant for all, above
#![allow(unsafe_op_in_unsafe_fn)]

use crate::device::{
    Answer, DEVICE_UNAVAILABLE, Device, Function, INVALID_DEVICE, INVALID_HANDLE, INVALID_VALUE, NO_DEVICE,
    NOT_FOUND, Queued, SUCCESS, name, with,
};
use gq_ptx::Argument;
use std::ffi::{CStr, c_char, c_void};

type Handle = *mut c_void;

/// A handle is a place in a list, from 1.
fn handle(place: usize) -> Handle {
    std::ptr::without_provenance_mut(place)
}

fn answer(done: Result<(), Answer>) -> Answer {
    done.err().unwrap_or(SUCCESS)
}

/// What a call gives, to where the caller wants it.
unsafe fn give<T>(to: *mut T, made: Result<T, Answer>) -> Answer {
    match made {
        Ok(value) => {
            to.write(value);
            SUCCESS
        }
        Err(error) => error,
    }
}

fn alive<T>(value: T) -> Result<T, Answer> {
    with(|device| device.alive()).map(|()| value)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuInit(_flags: u32) -> Answer {
    with(|device| match device.settings.devices {
        0 => NO_DEVICE,
        _ => device.settings.init,
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDriverGetVersion(version: *mut i32) -> Answer {
    give(version, Ok(with(|device| device.settings.version)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetCount(count: *mut i32) -> Answer {
    give(count, Ok(with(|device| device.settings.devices)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGet(device: *mut i32, ordinal: i32) -> Answer {
    let found = (0..with(|device| device.settings.devices)).contains(&ordinal);
    give(device, if found { Ok(ordinal) } else { Err(INVALID_DEVICE) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetName(to: *mut c_char, length: i32, _device: i32) -> Answer {
    let name = c"PTX interpreter".to_bytes_with_nul();
    if (length as usize) < name.len() {
        return INVALID_VALUE;
    }
    std::ptr::copy_nonoverlapping(name.as_ptr().cast::<c_char>(), to, name.len());
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetAttribute(value: *mut i32, attribute: i32, _device: i32) -> Answer {
    const WARP_SIZE: i32 = 10;
    const CAPABILITY_MAJOR: i32 = 75;
    const CAPABILITY_MINOR: i32 = 76;
    const MEMORY_POOLS: i32 = 115;
    let capability = with(|device| device.settings.capability);
    give(
        value,
        match attribute {
            WARP_SIZE => Ok(32),
            CAPABILITY_MAJOR => Ok(capability / 10),
            CAPABILITY_MINOR => Ok(capability % 10),
            MEMORY_POOLS => Ok(1),
            _ => Err(INVALID_VALUE),
        },
    )
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, _device: i32) -> Answer {
    give(bytes, Ok(with(|device| device.settings.memory) as usize))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut Handle, device: i32) -> Answer {
    if with(|all| all.settings.closed) == device {
        return DEVICE_UNAVAILABLE;
    }
    give(context, alive(handle(1)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDevicePrimaryCtxRelease_v2(_device: i32) -> Answer {
    with(|device| device.tell());
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuCtxSetCurrent(_context: Handle) -> Answer {
    answer(alive(()))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuCtxGetCurrent(context: *mut Handle) -> Answer {
    give(context, Ok(handle(1)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuCtxSynchronize() -> Answer {
    answer(with(Device::synchronize))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamCreate(stream: *mut Handle, _flags: u32) -> Answer {
    give(stream, alive(handle(16)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamSynchronize(_stream: Handle) -> Answer {
    answer(with(Device::synchronize))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamDestroy_v2(_stream: Handle) -> Answer {
    answer(alive(()))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamWaitEvent(_stream: Handle, _event: Handle, _flags: u32) -> Answer {
    answer(alive(()))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventCreate(event: *mut Handle, _flags: u32) -> Answer {
    give(event, alive(handle(1)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventRecord(_event: Handle, _stream: Handle) -> Answer {
    answer(alive(()))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventDestroy_v2(_event: Handle) -> Answer {
    answer(alive(()))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> Answer {
    let (unused, all) = with(|device| device.memory());
    give(total, Ok(all as usize));
    give(free, alive(unused as usize))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemAlloc_v2(address: *mut u64, bytes: usize) -> Answer {
    give(address, with(|device| device.allocate(bytes as u64)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemAllocAsync(address: *mut u64, bytes: usize, _stream: Handle) -> Answer {
    give(address, with(|device| device.allocate(bytes as u64)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemFree_v2(address: u64) -> Answer {
    answer(with(|device| device.free(address)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemFreeAsync(address: u64, _stream: Handle) -> Answer {
    answer(with(|device| device.free(address)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyHtoDAsync_v2(to: u64, from: *const u8, bytes: usize, _stream: Handle) -> Answer {
    if bytes == 0 {
        return SUCCESS;
    }
    let bytes = std::slice::from_raw_parts(from, bytes);
    answer(with(|device| device.write(to, bytes)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyDtoHAsync_v2(to: *mut u8, from: u64, bytes: usize, _stream: Handle) -> Answer {
    match with(|device| device.read(from, bytes)) {
        Ok(read) => {
            std::ptr::copy_nonoverlapping(read.as_ptr(), to, read.len());
            SUCCESS
        }
        Err(error) => error,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemsetD8Async(address: u64, value: u8, bytes: usize, _stream: Handle) -> Answer {
    answer(with(|device| device.write(address, &vec![value; bytes])))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleLoadData(module: *mut Handle, image: *const c_char) -> Answer {
    let Ok(text) = CStr::from_ptr(image).to_str() else { return INVALID_VALUE };
    give(module, with(|device| device.load(text)).map(handle))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleUnload(module: Handle) -> Answer {
    let unload = |device: &mut Device| {
        let place = module.addr().checked_sub(1).and_then(|place| device.modules.get_mut(place));
        place.and_then(Option::take).map(drop).ok_or(INVALID_HANDLE)
    };
    answer(with(unload))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleGetFunction(
    function: *mut Handle,
    module: Handle,
    kernel: *const c_char,
) -> Answer {
    let Ok(kernel) = CStr::from_ptr(kernel).to_str() else { return INVALID_VALUE };
    let find = |device: &mut Device| {
        let place = module.addr().checked_sub(1).and_then(|place| device.modules.get(place)?.clone());
        let module = place.ok_or(INVALID_HANDLE)?;
        module.kernel(kernel).ok_or(NOT_FOUND)?;
        device.functions.push(Function { module, kernel: kernel.to_owned(), allowed: 0 });
        Ok(handle(device.functions.len()))
    };
    give(function, with(find))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuFuncSetAttribute(function: Handle, attribute: i32, value: i32) -> Answer {
    const MOST_DYNAMIC_SHARED: i32 = 8;
    match attribute {
        MOST_DYNAMIC_SHARED => answer(with(|device| device.allow(function.addr(), value))),
        _ => INVALID_VALUE,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuLaunchKernel(
    function: Handle,
    x: u32,
    y: u32,
    z: u32,
    block_x: u32,
    block_y: u32,
    block_z: u32,
    shared: u32,
    _stream: Handle,
    arguments: *mut *mut c_void,
    _extra: *mut *mut c_void,
) -> Answer {
    let found =
        with(|device| function.addr().checked_sub(1).and_then(|place| device.functions.get(place).cloned()));
    let Some(Function { module, kernel, allowed }) = found else { return INVALID_HANDLE };
    let parameters = module.kernel(&kernel).map_or(&[][..], |kernel| &kernel.parameters);
    // As many bytes of each as the parameter has: the driver knows no more either.
    let bytes = parameters.iter().enumerate().map(|(index, parameter)| {
        let from = (*arguments.add(index)).cast::<u8>();
        Argument::bytes(std::slice::from_raw_parts(from, parameter.bytes))
    });
    let arguments = bytes.collect();
    let (grid, block) = ([x, y, z], [block_x, block_y, block_z]);
    let queued = Queued { module, kernel, grid, block, shared, arguments };
    answer(with(|device| device.launch(queued, allowed)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamBeginCapture_v2(_stream: Handle, _mode: i32) -> Answer {
    answer(with(|device| device.begin_capture()))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamEndCapture(_stream: Handle, graph: *mut Handle) -> Answer {
    give(graph, with(|device| device.end_capture()).map(handle))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGraphInstantiateWithFlags(
    executable: *mut Handle,
    graph: Handle,
    _flags: u64,
) -> Answer {
    give(executable, with(|device| device.alive().and_then(|()| device.refuse_capture(3))).map(|()| graph))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGraphLaunch(executable: Handle, _stream: Handle) -> Answer {
    answer(with(|device| device.replay(executable.addr())))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGraphExecDestroy(_executable: Handle) -> Answer {
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGraphDestroy(graph: Handle) -> Answer {
    let destroy = |device: &mut Device| {
        let place = graph.addr().checked_sub(1).and_then(|place| device.graphs.get_mut(place));
        place.and_then(Option::take).map(drop).ok_or(INVALID_HANDLE)
    };
    answer(with(destroy))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGetErrorName(error: Answer, text: *mut *const c_char) -> Answer {
    give(text, Ok(name(error).as_ptr()))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGetErrorString(error: Answer, text: *mut *const c_char) -> Answer {
    give(text, Ok(name(error).as_ptr()))
}
