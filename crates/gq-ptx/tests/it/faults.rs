//! Kernels that are broken on purpose, and launches that are.

use super::{block, bytes, module};
use gq_ptx::{Argument, FaultKind, Launch, Machine, Order};

/// The fault of a kernel with one output of `threads` words.
fn fault(kernel: &str, blocks: u32, threads: u32) -> FaultKind {
    let (module, mut machine) = (module(), Machine::new());
    let out = machine.allocate(4 * threads as usize);
    let arguments = [Argument::address(out)];
    let fault = machine.launch(&module, &Launch::new(kernel, blocks, threads, &arguments)).unwrap_err();
    assert_eq!(fault.kernel, kernel);
    assert!(fault.line > 0, "{fault}");
    fault.kind
}

#[test]
fn races_between_warps_and_within_one() {
    // the other warp has not run yet: nothing is there to race with
    assert!(matches!(fault("broken_race", 1, 64), FaultKind::Uninitialized { .. }));
    assert!(matches!(fault("broken_overwrite", 1, 64), FaultKind::Race { write: false, .. }));
    assert!(matches!(fault("broken_warp", 1, 32), FaultKind::Race { write: false, .. }));
    let (module, mut machine) = (module(), Machine::new());
    let out = machine.allocate(128);
    machine.launch(&module, &block("mended_warp", 32, &[Argument::address(out)])).unwrap();
    assert_eq!(machine.read(out, 4).unwrap(), [31, 0, 0, 0]);
}

#[test]
fn races_between_blocks() {
    let found = fault("broken_blocks", 2, 32);
    assert_eq!(
        found,
        FaultKind::Race { address: 1 << 36, other: "block 0 thread 0".to_owned(), write: true }
    );
}

#[test]
fn lanes_that_are_missing() {
    assert_eq!(fault("broken_barrier", 1, 64), FaultKind::MissingLanes { here: 0xffff, wanted: u32::MAX });
    assert_eq!(fault("broken_shuffle", 1, 32), FaultKind::MissingLanes { here: 0xffff, wanted: u32::MAX });
}

#[test]
fn memory_that_nobody_wrote() {
    assert_eq!(fault("broken_blank", 1, 32), FaultKind::Uninitialized { address: 20 });
    let (module, mut machine) = (module(), Machine::new());
    let (x, y) = (machine.allocate(128), machine.upload(&[0; 128]));
    let arguments = [Argument::address(x), Argument::address(y), Argument::f32(1.0), Argument::u32(32)];
    let fault = machine.launch(&module, &block("axpy", 32, &arguments)).unwrap_err();
    assert_eq!((fault.kind, fault.thread), (FaultKind::Uninitialized { address: x }, Some(0)));
    assert_eq!(machine.read(x, 4), Err(FaultKind::Uninitialized { address: x }));
}

#[test]
fn copies_that_nobody_waited_for() {
    let (module, mut machine) = (module(), Machine::new());
    let (x, y) = (machine.upload(&[1; 512]), machine.allocate(512));
    let arguments = [Argument::address(x), Argument::address(y)];
    let fault = machine.launch(&module, &block("broken_copy", 32, &arguments)).unwrap_err();
    assert_eq!(fault.kind, FaultKind::CopyUnderWay { address: 0 });
}

#[test]
fn bounds_and_alignment() {
    let (module, mut machine) = (module(), Machine::new());
    let x = machine.upload(&bytes(&[1f32; 32], f32::to_le_bytes));
    let y = machine.upload(&bytes(&[1f32; 31], f32::to_le_bytes));
    let arguments =
        |x, y| [Argument::address(x), Argument::address(y), Argument::f32(1.0), Argument::u32(32)];
    let short = machine.launch(&module, &block("axpy", 32, &arguments(x, y))).unwrap_err();
    assert_eq!(short.kind, FaultKind::OutOfBounds { address: y + 124, bytes: 4, size: Some(124) });
    assert_eq!(short.thread, Some(31));
    let whole = machine.upload(&bytes(&[1f32; 32], f32::to_le_bytes));
    let odd = machine.launch(&module, &block("axpy", 32, &arguments(x + 2, whole))).unwrap_err();
    assert_eq!(odd.kind, FaultKind::Misaligned { address: x + 2, align: 4 });
    let nowhere = machine.launch(&module, &block("axpy", 32, &arguments(x, 64))).unwrap_err();
    assert_eq!(nowhere.kind, FaultKind::OutOfBounds { address: 64, bytes: 4, size: None });
    assert!(machine.free(x) && !machine.free(x) && !machine.free(whole + 4));
    let freed = machine.launch(&module, &block("axpy", 32, &arguments(x, whole))).unwrap_err();
    assert_eq!(freed.kind, FaultKind::OutOfBounds { address: x, bytes: 4, size: None });
    assert_eq!(
        freed.to_string(),
        format!("axpy block [0, 0, 0] thread 0 line {}: {}", freed.line, freed.kind)
    );
}

#[test]
fn launches_that_do_not_fit_the_kernel() {
    let (module, mut machine) = (module(), Machine::new());
    let mut kind = |launch: &Launch<'_>| machine.launch(&module, launch).unwrap_err().kind;
    assert_eq!(kind(&block("nothing", 32, &[])), FaultKind::UnknownKernel);
    let few = [Argument::address(0)];
    assert_eq!(kind(&block("axpy", 32, &few)), FaultKind::ArgumentCount { actual: 1, expected: 4 });
    let narrow = [Argument::address(0), Argument::u32(0), Argument::f32(0.0), Argument::u32(0)];
    let expected = FaultKind::ArgumentSize { index: 1, actual: 4, expected: 8 };
    assert_eq!(kind(&block("axpy", 32, &narrow)), expected);
    assert_eq!(kind(&block("broken_blocks", 0, &few)), FaultKind::BlockSize { actual: 0, limit: 1024 });
    assert_eq!(kind(&block("broken_blocks", 1025, &few)), FaultKind::BlockSize { actual: 1025, limit: 1024 });
    let much = Launch { dynamic_shared: 163 * 1024 + 1, ..block("broken_blocks", 32, &few) };
    assert_eq!(kind(&much), FaultKind::SharedSize { actual: 163 * 1024 + 1, limit: 163 * 1024 });
}

#[test]
fn loops_without_end_are_ended() {
    let (module, mut machine) = (module(), Machine::new());
    let start = machine.upload(&0i32.to_le_bytes().repeat(32));
    let (steps, most) = (machine.allocate(128), machine.allocate(4));
    let arguments = [Argument::address(start), Argument::address(steps), Argument::address(most)];
    let launch =
        Launch { most_instructions: 1000, order: Order::Reverse, ..block("collatz", 32, &arguments) };
    assert_eq!(machine.launch(&module, &launch).unwrap_err().kind, FaultKind::TooLong { limit: 1000 });
}
