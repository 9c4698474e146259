//! What is parsed, what is refused, and that the committed PTX is of the committed source.

use super::text;
use gq_ptx::Module;
use sha2::{Digest, Sha256};

#[test]
fn the_ptx_is_of_this_source() {
    let source = std::fs::read("tests/kernels/probe.cu").unwrap();
    let mut digest = Sha256::new();
    digest.update(b"probe.cu\0");
    digest.update(&source);
    digest.update(b"\0");
    let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let first = format!("// probe.cu, sha256 of its sources {digest}");
    assert_eq!(
        text().lines().next().unwrap(),
        first,
        "python3 scripts/build_ptx.py crates/gq-ptx/tests/kernels/probe.cu"
    );
}

#[test]
fn kernels_and_their_parameters() {
    let module = Module::parse(&text()).unwrap();
    let names: Vec<&str> = module.kernels().iter().map(|kernel| kernel.name.as_str()).collect();
    assert_eq!(names.len(), 17);
    let axpy = module.kernel("axpy").unwrap();
    let places: Vec<_> =
        axpy.parameters.iter().map(|parameter| (parameter.offset, parameter.bytes)).collect();
    assert_eq!(places, [(0, 8), (8, 8), (16, 4), (20, 4)]);
    assert_eq!(module.kernel("rms").unwrap().static_shared, 128);
}

/// A kernel of one statement.
fn parse(statement: &str) -> Result<Module, String> {
    let text = format!(
        ".version 8.4\n.target sm_80\n.address_size 64\n.visible .entry k()\n{{\n.reg .f32 %f<9>; .reg .b32 %r<9>; .reg .b64 %rd<9>; \n{statement}\nret;\n}}\n"
    );
    Module::parse(&text).map_err(|error| error.to_string())
}

#[test]
fn statements_without_defined_bits_are_refused() {
    assert!(parse("mul.rn.f32 %f1, %f2, %f3;").is_ok());
    let refused = [
        "mul.f32 %f1, %f2, %f3;",
        "ex2.approx.f32 %f1, %f2;",
        "rsqrt.approx.ftz.f32 %f1, %f2;",
        "add.rn.ftz.f32 %f1, %f2, %f3;",
        "fma.rz.f32 %f1, %f2, %f3, %f4;",
        "atom.global.add.f32 %f1, [%rd1], %f2;",
        "ld.shared.nc.f32 %f1, [%r1];",
        "bra $L_nowhere;",
        "mov.u32 %r1, %clock;",
    ];
    for statement in refused {
        let error = parse(statement).unwrap_err();
        let opcode = statement.split(' ').next().unwrap();
        assert!(error.starts_with("line 7: ") && error.contains(opcode), "{error}");
    }
}

#[test]
fn texts_that_are_cut_off_are_refused() {
    let text = text();
    for part in 1..40 {
        let cut = text.len() * part / 40;
        let _ = Module::parse(&text[..cut]);
    }
    assert!(Module::parse(&text[..text.len() / 2]).is_err());
}
