//! The interpreter on PTX that NVRTC made of `tests/kernels/probe.cu`.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod faults;
mod kernels;
mod mutants;
mod parsing;
mod words;

use gq_ptx::{Argument, Launch, Machine, Module};

/// The committed PTX.
fn text() -> String {
    std::fs::read_to_string("tests/kernels/probe.ptx").unwrap()
}

fn module() -> Module {
    Module::parse(&text()).unwrap()
}

fn bytes<T: Copy, const N: usize>(values: &[T], to: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|value| to(*value)).collect()
}

fn i32s(machine: &mut Machine, address: u64, count: usize) -> Vec<i32> {
    let bytes = machine.read(address, 4 * count).unwrap();
    bytes.chunks_exact(4).map(|word| i32::from_le_bytes(word.try_into().unwrap())).collect()
}

fn f32s(machine: &mut Machine, address: u64, count: usize) -> Vec<f32> {
    i32s(machine, address, count).into_iter().map(|bits| f32::from_bits(bits as u32)).collect()
}

/// Numbers without a pattern, the same on every machine.
fn noise(seed: u32, count: usize) -> Vec<u32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    (0..count).map(|_| next()).collect()
}

/// Floats of about -1 to 1.
fn floats(seed: u32, count: usize) -> Vec<f32> {
    noise(seed, count).into_iter().map(|bits| bits as i32 as f32 / 2f32.powi(31)).collect()
}

/// A launch of one block.
fn block<'a>(kernel: &'a str, threads: u32, arguments: &'a [Argument]) -> Launch<'a> {
    Launch::new(kernel, 1, threads, arguments)
}
