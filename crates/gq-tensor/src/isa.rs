//! instruction sets as capability tokens: having the value proves that the machine has the instructions.

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

/// Proof that what [`Avx2`] proves and AVX-512 with F, BW, VBMI and VNNI were detected on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx512(());

impl Avx512 {
    /// Detects; `None` on machines without the instructions. AMD from Zen 4 on and Intel's servers from Ice Lake on have
    /// them.
    pub fn detect() -> Option<Avx512> {
        #[cfg(target_arch = "x86_64")]
        if Avx2::detect().is_some()
            && std::arch::is_x86_feature_detected!("avx512f")
            && std::arch::is_x86_feature_detected!("avx512bw")
            && std::arch::is_x86_feature_detected!("avx512vbmi")
            && std::arch::is_x86_feature_detected!("avx512vnni")
        {
            return Some(Avx512(()));
        }
        None
    }
}

/// Which kernels run. Results that reach a file are the same at every level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// Plain Rust: the definition.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2(Avx2),
    /// The same and AVX-512 with VBMI and VNNI.
    Avx512(Avx512),
}

impl Isa {
    /// The best level of this machine.
    pub fn detect() -> Isa {
        Isa::available().last().copied().unwrap_or(Isa::Scalar)
    }

    /// Every level of this machine, the definition first and the best last.
    pub fn available() -> Vec<Isa> {
        let mut levels = vec![Isa::Scalar];
        levels.extend(Avx2::detect().map(Isa::Avx2));
        levels.extend(Avx512::detect().map(Isa::Avx512));
        levels
    }

    /// Lower-case name, as in `--isa`.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2(_) => "avx2",
            Isa::Avx512(_) => "avx512",
        }
    }
}
