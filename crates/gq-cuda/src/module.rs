//! The committed PTX.

/// A PTX text of this crate. `scripts/build_ptx.py crates/gq-cuda/kernels/*.cu` makes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Module {
    /// RMS norm.
    Norm,
    /// Rotations and activations to int8.
    Rotate,
    /// Products of scalar codes.
    Scalar,
    /// Products of grids and MXFP4.
    Grid,
    /// Products and rows of exact weights.
    Exact,
}

impl Module {
    /// Every module.
    pub const ALL: [Module; 5] = [Module::Norm, Module::Rotate, Module::Scalar, Module::Grid, Module::Exact];

    /// Name of its source, without the extension.
    pub const fn name(self) -> &'static str {
        match self {
            Module::Norm => "norm",
            Module::Rotate => "rotate",
            Module::Scalar => "scalar",
            Module::Grid => "grid",
            Module::Exact => "exact",
        }
    }

    /// The text.
    pub const fn text(self) -> &'static str {
        match self {
            Module::Norm => include_str!("../kernels/norm.ptx"),
            Module::Rotate => include_str!("../kernels/rotate.ptx"),
            Module::Scalar => include_str!("../kernels/scalar.ptx"),
            Module::Grid => include_str!("../kernels/grid.ptx"),
            Module::Exact => include_str!("../kernels/exact.ptx"),
        }
    }
}
