//! The PTX is of the committed sources, and of the pinned compiler.

use gq_cuda::Module;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// The file and the headers it includes, in order of inclusion, as `scripts/build_ptx.py` walks them.
fn sources(path: &Path) -> Vec<PathBuf> {
    let (mut found, mut queue) = (Vec::new(), vec![path.to_owned()]);
    while !queue.is_empty() {
        let file = queue.remove(0);
        if found.contains(&file) {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let names =
            text.lines().filter_map(|line| line.trim_start().strip_prefix("#include \"")?.split('"').next());
        queue.extend(names.map(|name| file.with_file_name(name)));
        found.push(file);
    }
    found
}

#[test]
fn ptx_is_of_the_committed_sources() {
    for module in Module::ALL {
        let source = Path::new("kernels").join(module.name()).with_extension("cu");
        let mut digest = Sha256::new();
        for file in sources(&source) {
            digest.update(file.file_name().unwrap().as_encoded_bytes());
            digest.update(b"\0");
            digest.update(std::fs::read(&file).unwrap());
            digest.update(b"\0");
        }
        let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let head: Vec<&str> = module.text().lines().take(2).collect();
        let name = module.name();
        assert_eq!(
            head[0],
            format!("// {name}.cu, sha256 of its sources {digest}"),
            "python3 scripts/build_ptx.py crates/gq-cuda/kernels/{name}.cu"
        );
        assert!(
            head[1].starts_with("// NVRTC 12.4.127 --gpu-architecture=compute_80 --fmad=false "),
            "{name}"
        );
        assert!(module.text().contains("\n.version 8.4\n.target sm_80\n"), "{name}");
    }
}

#[test]
fn every_source_is_a_module() {
    let files = std::fs::read_dir("kernels").unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<String> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "cu"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    let mut modules = Module::ALL.map(Module::name).to_vec();
    modules.sort();
    assert_eq!(names, modules);
}
