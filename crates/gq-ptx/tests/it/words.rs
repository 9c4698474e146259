//! Statements that no kernel of `probe.cu` has, written by hand.

use gq_ptx::{Argument, Launch, Machine, Module};

/// Runs statements on two 64-bit words in `%a` and `%b`; gives `%d`.
fn run(statements: &str, a: u64, b: u64) -> u64 {
    let text = format!(
        ".version 8.4\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 to, .param .u64 a, .param .u64 b)\n{{\n\
         .reg .b64 %to, %a, %b, %d; .reg .f64 %x, %y;\n\
         ld.param.u64 %to, [to];\nld.param.u64 %a, [a];\nld.param.u64 %b, [b];\n{statements}\nst.global.u64 [%to], %d;\nret;\n}}\n"
    );
    let module = Module::parse(&text).unwrap();
    let mut machine = Machine::new();
    let to = machine.allocate(8);
    let arguments = [Argument::address(to), Argument::address(a), Argument::address(b)];
    // A copy is a machine of its own.
    let mut copy = machine.clone();
    copy.launch(&module, &Launch::new("k", 1, 1, &arguments)).unwrap();
    assert!(machine.read(to, 8).is_err(), "nobody has written there");
    u64::from_le_bytes(copy.read(to, 8).unwrap().try_into().unwrap())
}

#[test]
fn bits_are_inserted_into_long_words() {
    let (a, b) = (0x0123_4567_89ab_cdef, 0xffff_0000_ffff_0000);
    assert_eq!(run("bfi.b64 %d, %a, %b, 32, 32;", a, b), 0x89ab_cdef_ffff_0000);
    assert_eq!(run("bfi.b64 %d, %a, %b, 60, 32;", a, b), 0xffff_0000_ffff_0000);
    assert_eq!(run("bfi.b64 %d, %a, %b, 4, 8;", a, b), 0xffff_0000_ffff_0ef0);
    assert_eq!(run("bfi.b64 %d, %a, %b, 0, 64;", a, b), a);
    assert_eq!(run("bfi.b64 %d, %a, %b, 64, 8;", a, b), b);
    assert_eq!(run("bfi.b64 %d, %a, %b, 8, 0;", a, b), b);
}

#[test]
fn reciprocals_are_rounded_once() {
    let x = 3.0f64.to_bits();
    let statements = "mov.b64 %x, %a;\nrcp.rn.f64 %y, %x;\nmov.b64 %d, %y;";
    assert_eq!(run(statements, x, 0), (1.0f64 / 3.0).to_bits());
}
