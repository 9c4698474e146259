//! The driver's path, from loading its library to reading results, on a stand-in whose device is the interpreter.
//!
//! Tests that ask for a setting, if only for `reverse=0`, are of what the stand-in does alone: they never run on a card, which
//! takes memory while it captures, and is of no use to its process after a fault.

use super::{assert_same, bell, driver};
use gq_cuda::{Device, Gpu, GpuError, HeadNorm, NormRotate, Parts, RmsNorm, RotationTables, Span, define};

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

fn norm(x: Span, y: Span) -> gq_cuda::Launch {
    let norm = RmsNorm { x: Parts::one(x), residual: None, weight: None, y, rows: 1, width: 64, eps: 1e-5 };
    norm.launch().unwrap()
}

#[test]
fn launches_by_the_driver_have_the_defined_bits() {
    let Some(()) = gq_stand_in::inside("stand_in::launches_by_the_driver_have_the_defined_bits", "") else {
        return;
    };
    let gpu = Gpu::open(0).unwrap();
    let facts = gpu.facts().unwrap();
    if std::env::var_os("GQ_REAL_DRIVER").is_none() {
        assert_eq!(
            (facts.name.as_str(), facts.capability, facts.total),
            ("PTX interpreter", (8, 0), 8 << 30)
        );
    }
    driver::defined_bits(gpu);
}

#[test]
fn captured_launches_run_again_on_what_is_there_then() {
    let name = "stand_in::captured_launches_run_again_on_what_is_there_then";
    let Some(()) = gq_stand_in::inside(name, "") else { return };
    let mut gpu = Gpu::open(0).unwrap();
    let (mut x, y) = (gpu.upload(&bytes(&bell(1, 64))).unwrap(), gpu.reserve(256).unwrap());
    gpu.launch(&norm(x.span(), y.span())).unwrap();
    gpu.begin_capture().unwrap();
    gpu.launch(&norm(x.span(), y.span())).unwrap();
    let mut captured = gpu.end_capture().unwrap().unwrap();
    let before = floats(&gpu.read(&y).unwrap());
    assert_same(&before, &define::rms_norm(&bell(1, 64), None, 1e-5), "nothing ran while it was captured");
    for seed in [2, 3] {
        gpu.write(&mut x, 0, &bytes(&bell(seed, 64))).unwrap();
        gpu.replay(&mut captured).unwrap();
        let made = floats(&gpu.read_part(&y, 0..256).unwrap());
        assert_same(&made, &define::rms_norm(&bell(seed, 64), None, 1e-5), "replayed");
    }
    assert!(matches!(gpu.read_part(&y, 200..257), Err(GpuError::Failed { .. })));
    assert!(gpu.write(&mut x, 250, &[0; 7]).is_err());
}

/// Tests of kernels, each launch of which is done by the driver too (`scripts/gpu_check.sh`): on the stand-in in the other
/// order of blocks and warps.
#[test]
fn launches_beside_the_interpreter_are_compared() {
    let name = "stand_in::launches_beside_the_interpreter_are_compared";
    let Some(()) = gq_stand_in::inside(name, "reverse=1") else { return };
    assert_eq!(Gpu::open(0).unwrap().name().unwrap(), "PTX interpreter");
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    let output = command.args(["norm::", "top::", "--nocapture"]).env("GQ_BESIDE", "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    for kernel in ["rms_norm", "largest_logits"] {
        assert!(said.contains(&format!("card: {kernel} ")), "{said}");
    }
    assert!(!said.contains("NOT EQUAL"), "{said}");
}

#[test]
fn an_old_driver_is_told_with_its_version() {
    let Some(()) = gq_stand_in::inside("stand_in::an_old_driver_is_told_with_its_version", "version=11080")
    else {
        return;
    };
    assert_eq!(Gpu::open(0).err(), Some(GpuError::OldDriver { actual: 11080 }));
}

#[test]
fn a_driver_without_devices_is_told() {
    let Some(()) = gq_stand_in::inside("stand_in::a_driver_without_devices_is_told", "devices=0") else {
        return;
    };
    assert_eq!(Gpu::open(0).err(), Some(GpuError::NoDevice { asked: 0, count: 0 }));
}

#[test]
fn an_old_device_is_told() {
    let Some(()) = gq_stand_in::inside("stand_in::an_old_device_is_told", "capability=75") else { return };
    let name = "PTX interpreter".to_owned();
    assert_eq!(Gpu::open(0).err(), Some(GpuError::OldDevice { number: 0, name, major: 7, minor: 5 }));
    assert!(matches!(Gpu::open(1).err(), Some(GpuError::NoDevice { asked: 1, count: 1 })));
}

#[test]
fn memory_that_is_not_there_is_told_with_both_figures() {
    let name = "stand_in::memory_that_is_not_there_is_told_with_both_figures";
    let Some(()) = gq_stand_in::inside(name, "memory=4096") else { return };
    let gpu = Gpu::open(0).unwrap();
    let _some = gpu.allocate(1000).unwrap();
    let refused = gpu.reserve(4000).err();
    assert_eq!(refused, Some(GpuError::OutOfMemory { asked: 4000, free: 3072, total: 4096 }));
    assert_eq!(gpu.memory().unwrap(), (3072, 4096));
}

#[test]
fn memory_comes_back() {
    let Some(()) = gq_stand_in::inside("stand_in::memory_comes_back", "memory=4096") else { return };
    let gpu = Gpu::open(0).unwrap();
    for _ in 0..5 {
        drop(gpu.reserve(4096).unwrap());
    }
}

#[test]
fn a_device_that_is_lost_is_told() {
    let Some(()) = gq_stand_in::inside("stand_in::a_device_that_is_lost_is_told", "launches=2") else {
        return;
    };
    let mut gpu = Gpu::open(0).unwrap();
    let (x, y) = (gpu.upload(&bytes(&bell(1, 64))).unwrap(), gpu.reserve(256).unwrap());
    let launch = norm(x.span(), y.span());
    assert_eq!([gpu.launch(&launch), gpu.launch(&launch)], [Ok(()), Ok(())]);
    let lost = |what| GpuError::Lost { what, name: "CUDA_ERROR_DEVICE_UNAVAILABLE".to_owned() };
    assert_eq!(gpu.launch(&launch), Err(lost("a launch")));
    assert!(matches!(gpu.read(&y), Err(GpuError::Lost { .. })));
}

/// A fault of a kernel is a lost device, as on a card, and the interpreter says which. The launch itself is queued and says
/// nothing: what waits for it does.
#[test]
fn a_kernel_that_leaves_its_memory_is_a_lost_device() {
    let name = "stand_in::a_kernel_that_leaves_its_memory_is_a_lost_device";
    let Some(()) = gq_stand_in::inside(name, "reverse=0") else { return };
    let mut gpu = Gpu::open(0).unwrap();
    let x = gpu.upload(&[0; 100]).unwrap();
    let claimed = Span { bytes: 256, ..x.span() };
    let y = gpu.reserve(256).unwrap();
    assert_eq!(gpu.launch(&norm(claimed, y.span())), Ok(()));
    assert_eq!(gpu.launch(&norm(claimed, y.span())), Ok(()), "nothing has waited so far");
    let error = gpu.wait().unwrap_err();
    assert!(matches!(&error, GpuError::Lost { name, .. } if name == "CUDA_ERROR_LAUNCH_FAILED"), "{error}");
    let never_written = gpu.reserve(256);
    assert!(never_written.is_err(), "a lost device gives nothing");
}

#[test]
fn a_kernel_that_reads_across_its_alignment_is_a_lost_device() {
    let name = "stand_in::a_kernel_that_reads_across_its_alignment_is_a_lost_device";
    let Some(()) = gq_stand_in::inside(name, "reverse=0") else { return };
    let mut gpu = Gpu::open(0).unwrap();
    let (x, y) = (gpu.upload(&[0; 260]).unwrap(), gpu.reserve(256).unwrap());
    let mut launch = norm(Span { bytes: 256, ..x.span() }, y.span());
    launch.arguments[0] = gq_cuda::Argument::Address(x.span().address + 2);
    assert_eq!(gpu.launch(&launch), Ok(()));
    assert!(matches!(gpu.read(&y), Err(GpuError::Lost { .. })));
}

/// What a card does not take in the middle of a capture ends it, and launches go on without.
#[test]
fn a_capture_takes_launches_alone() {
    let name = "stand_in::a_capture_takes_launches_alone";
    let Some(()) = gq_stand_in::inside(name, "reverse=0") else { return };
    let mut gpu = Gpu::open(0).unwrap();
    let (mut x, y) = (gpu.upload(&bytes(&bell(1, 64))).unwrap(), gpu.reserve(256).unwrap());
    let launch = norm(x.span(), y.span());
    gpu.launch(&launch).unwrap();
    let failed = |answer: Result<(), GpuError>, expected: &str| {
        let name = |error: &GpuError| match error {
            GpuError::Failed { name, .. } => name.clone(),
            error => format!("{error:?}"),
        };
        assert_eq!(answer.as_ref().map_err(name), Err(format!("CUDA_ERROR_STREAM_CAPTURE_{expected}")));
    };
    for what in 0..4 {
        gpu.begin_capture().unwrap();
        gpu.launch(&launch).unwrap();
        let answer = match what {
            0 => gpu.reserve(16).map(drop),
            1 => gpu.wait(),
            2 => gpu.read(&y).map(drop),
            _ => gpu.write(&mut x, 0, &[0; 4]),
        };
        failed(answer, "UNSUPPORTED");
        failed(gpu.launch(&launch), "INVALIDATED");
        failed(gpu.end_capture().map(drop), "INVALIDATED");
        gpu.launch(&launch).unwrap();
        gpu.wait().unwrap();
    }
}

/// What the driver refuses of a launch, before anything runs: nothing is lost by it.
#[test]
fn launches_that_no_card_takes_are_refused() {
    let name = "stand_in::launches_that_no_card_takes_are_refused";
    let Some(()) = gq_stand_in::inside(name, "capability=86") else { return };
    let mut gpu = Gpu::open(0).unwrap();
    assert!(gpu.reserve(0).is_err(), "an allocation of nothing");
    let (x, y) = (gpu.upload(&bytes(&bell(1, 64))).unwrap(), gpu.reserve(256).unwrap());
    let launch = norm(x.span(), y.span());
    let changed = |change: fn(&mut gq_cuda::Launch)| {
        let mut launch = launch.clone();
        change(&mut launch);
        launch
    };
    let refused = [
        changed(|launch| launch.grid[1] = 65536),
        changed(|launch| launch.grid[2] = 65536),
        changed(|launch| launch.grid[0] = 0),
        changed(|launch| launch.threads = 0),
        // The kernel is compiled for blocks of 256.
        changed(|launch| launch.threads = 288),
        // More than a block of this device may have at all.
        changed(|launch| launch.shared = 100 * 1024),
    ];
    for launch in refused {
        let answer = gpu.launch(&launch);
        assert!(matches!(&answer, Err(GpuError::Failed { .. })), "{launch:?}: {answer:?}");
    }
    // The driver's safe path asks for more than 48 KiB before it launches.
    gpu.launch(&changed(|launch| launch.shared = 96 * 1024)).unwrap();
    gpu.launch(&launch).unwrap();
    assert_same(&floats(&gpu.read(&y).unwrap()), &define::rms_norm(&bell(1, 64), None, 1e-5), "norm");
}

#[test]
fn a_device_that_does_not_open_is_told_by_its_number() {
    let name = "stand_in::a_device_that_does_not_open_is_told_by_its_number";
    let Some(()) = gq_stand_in::inside(name, "devices=2,closed=0") else { return };
    let closed = GpuError::Closed { number: 0, name: "CUDA_ERROR_DEVICE_UNAVAILABLE".to_owned() };
    assert_eq!(Gpu::open(0).err(), Some(closed));
    assert_eq!(Gpu::open(1).map(|gpu| gpu.facts().unwrap().number), Ok(1));
}

#[test]
fn a_driver_that_does_not_start_is_no_lost_device() {
    let name = "stand_in::a_driver_that_does_not_start_is_no_lost_device";
    let Some(()) = gq_stand_in::inside(name, "init=999") else { return };
    let name = "CUDA_ERROR_UNKNOWN".to_owned();
    assert_eq!(Gpu::open(0).err(), Some(GpuError::NotStarted { name }));
}

/// Memory that the driver takes by itself: for a module, and for a launch.
#[test]
fn memory_that_is_not_there_for_kernels_is_told_with_figures() {
    let name = "stand_in::memory_that_is_not_there_for_kernels_is_told_with_figures";
    let Some(()) = gq_stand_in::inside(name, "modules=1,room=1,memory=4096") else { return };
    let mut gpu = Gpu::open(0).unwrap();
    let (x, y) = (gpu.upload(&bytes(&bell(1, 64))).unwrap(), gpu.reserve(256).unwrap());
    gpu.launch(&norm(x.span(), y.span())).unwrap();
    let no_room = |what| GpuError::NoRoom { what, free: 3072, total: 4096 };
    assert_eq!(gpu.launch(&norm(x.span(), y.span())), Err(no_room("a launch")));
    let softcap = gq_cuda::Softcap { x: Parts::one(x.span()), cap: 1.0, y: y.span(), count: 64 };
    assert_eq!(gpu.launch(&softcap.launch().unwrap()), Err(no_room("kernels")));
    // The device is as it was.
    assert_same(&floats(&gpu.read(&y).unwrap()), &define::rms_norm(&bell(1, 64), None, 1e-5), "norm");
}

/// 48 KiB of dynamic shared memory and a little that the kernel has of its own: more than a block has without asking.
#[test]
fn shared_memory_is_asked_for_with_what_a_kernel_has_of_its_own() {
    let name = "stand_in::shared_memory_is_asked_for_with_what_a_kernel_has_of_its_own";
    let Some(()) = gq_stand_in::inside(name, "capability=86") else { return };
    let mut gpu = Gpu::open(0).unwrap();
    for cols in [12288, 24576] {
        let tables = RotationTables::new(1, cols).unwrap();
        let [signs, factors] = tables.bytes().map(|bytes| gpu.upload(&bytes).unwrap());
        let x = gpu.upload(&bytes(&bell(1, cols))).unwrap();
        let (values, steps) = (gpu.reserve(cols).unwrap(), gpu.reserve(cols / 8).unwrap());
        let rotate = NormRotate {
            x: Parts::one(x.span()),
            joined: None,
            norm: HeadNorm { weight: None, eps: 1e-5 },
            signs: signs.span(),
            factors: factors.span(),
            values: values.span(),
            steps: steps.span(),
            rows: 1,
        };
        gpu.launch(&rotate.launch(&tables).unwrap()).unwrap();
        assert!(floats(&gpu.read(&steps).unwrap()).iter().all(|step| *step > 0.0), "{cols}");
    }
}
