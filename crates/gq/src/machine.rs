//! The machine as gq sees it: what decides speed, and what a bug report needs.

use gq_tensor::Isa;
use serde::Serialize;

/// What this machine offers.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Version of this program.
    pub version: &'static str,
    /// The commit it was built from; `None` where that is not known.
    pub commit: Option<&'static str>,
    /// Operating system and architecture.
    pub platform: String,
    /// Name of the processor; `None` where the system does not tell.
    pub cpu: Option<String>,
    /// Threads that run at once.
    pub threads: usize,
    /// Kernels this machine can run, the definition first.
    pub levels: Vec<&'static str>,
    /// Kernels that are used unless `--isa` says otherwise.
    pub level: &'static str,
    /// Bytes of memory; `None` where the system does not tell.
    pub memory_bytes: Option<u64>,
    /// Bytes of memory that are free for use.
    pub available_bytes: Option<u64>,
}

impl Machine {
    /// Asks the system.
    pub fn detect() -> Machine {
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let kib = |key| field(&memory, key).and_then(|value| value.split(' ').next()?.parse::<u64>().ok());
        Machine {
            version: env!("CARGO_PKG_VERSION"),
            commit: Some(env!("GQ_COMMIT")).filter(|commit| !commit.is_empty()),
            platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            cpu: field(&cpu, "model name").map(str::to_owned),
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            levels: Isa::available().into_iter().map(Isa::name).collect(),
            level: Isa::detect().name(),
            memory_bytes: kib("MemTotal").map(|kib| kib << 10),
            available_bytes: kib("MemAvailable").map(|kib| kib << 10),
        }
    }

    /// Version, commit and kernels, in a line.
    pub fn build(&self) -> String {
        let commit = self.commit.map_or_else(String::new, |commit| format!("{commit}, "));
        format!("{} ({commit}{} of {})", self.version, self.level, self.levels.join(", "))
    }
}

/// The value of the first line `key: value`.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix(':'));
    line.map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_and_this_machine_is_described() {
        let text = "MemTotal:       16 kB\nmodel name\t: A  B\n";
        assert_eq!((field(text, "MemTotal"), field(text, "model name")), (Some("16 kB"), Some("A  B")));
        assert_eq!(field(text, "Mem"), None);
        let machine = Machine::detect();
        let build = machine.build();
        assert!(build.starts_with(machine.version) && build.contains(machine.level), "{build}");
        assert!(machine.threads > 0 && machine.levels.contains(&machine.level));
    }
}
