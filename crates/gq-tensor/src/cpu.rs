//! CPU levels as capability tokens: having the value proves that the machine has the instructions.

/// Proof that AVX2, FMA and F16C were detected on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx2(());

impl Avx2 {
    /// Detects; `None` on machines without the instructions.
    pub fn detect() -> Option<Avx2> {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("fma")
            && std::arch::is_x86_feature_detected!("f16c")
        {
            return Some(Avx2(()));
        }
        None
    }
}

/// Which kernels run. Results that reach a file are the same at every level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuLevel {
    /// Plain Rust: the definition.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2(Avx2),
}

impl CpuLevel {
    /// The best level of this machine.
    pub fn detect() -> CpuLevel {
        Avx2::detect().map_or(CpuLevel::Scalar, CpuLevel::Avx2)
    }

    /// Every level of this machine, the definition first.
    pub fn available() -> Vec<CpuLevel> {
        let mut levels = vec![CpuLevel::Scalar];
        levels.extend(Avx2::detect().map(CpuLevel::Avx2));
        levels
    }

    /// Lower-case name, as in `--cpu`.
    pub const fn name(self) -> &'static str {
        match self {
            CpuLevel::Scalar => "scalar",
            CpuLevel::Avx2(_) => "avx2",
        }
    }
}
