//! The checks are checked: every line that synchronizes is taken out of right kernels, and each time it is noticed.

use super::{block, bytes, floats, text};
use gq_ptx::{Argument, Fault, Launch, Machine, Module, Order};

/// Lines of a kernel that synchronize, as places in the text.
fn synchronizing(text: &str, kernel: &str) -> Vec<usize> {
    let mut inside = false;
    let mut found = Vec::new();
    for (place, line) in text.lines().enumerate() {
        if line.contains(".entry") {
            inside = line.contains(&format!(".entry {kernel}("));
        }
        let line = line.trim_start();
        let waits =
            ["bar.sync", "bar.warp.sync", "cp.async.wait"].iter().any(|opcode| line.starts_with(opcode));
        if inside && waits {
            found.push(place);
        }
    }
    found
}

/// Runs a kernel in both orders on memory of its own.
fn run(module: &Module, kernel: &str) -> Result<(), Fault> {
    for order in [Order::Forward, Order::Reverse] {
        let mut machine = Machine::new();
        let x = machine.upload(&bytes(&floats(1, 256), f32::to_le_bytes));
        let y = machine.allocate(1024);
        let two = [Argument::address(x), Argument::address(y)];
        let four = [Argument::address(x), Argument::address(y), Argument::u32(64), Argument::f32(1e-5)];
        let one = [Argument::address(y)];
        let launch = match kernel {
            "rms" => block(kernel, 64, &four),
            "copies" => Launch { dynamic_shared: 1024, ..block(kernel, 64, &two) },
            _ => block(kernel, 32, &one),
        };
        machine.launch(module, &Launch { order, ..launch })?;
    }
    Ok(())
}

#[test]
fn every_synchronizing_line_is_missed() {
    let text = text();
    let mut removed = 0;
    for kernel in ["rms", "copies", "mended_warp"] {
        run(&Module::parse(&text).unwrap(), kernel).unwrap();
        for place in synchronizing(&text, kernel) {
            let without: Vec<&str> =
                text.lines().enumerate().map(|(at, line)| if at == place { "" } else { line }).collect();
            let module = Module::parse(&without.join("\n")).unwrap();
            let outcome = run(&module, kernel);
            assert!(
                outcome.is_err(),
                "{kernel}: line {} was not missed: {}",
                place + 1,
                text.lines().nth(place).unwrap()
            );
            removed += 1;
        }
    }
    assert_eq!(removed, 4, "one barrier of rms, one of copies and its wait, one warp barrier");
}
