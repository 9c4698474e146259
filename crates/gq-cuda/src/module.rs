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
    /// Products and rows of trellis codes.
    Trellis,
    /// Products for many tokens.
    Prefill,
    /// Rows of codes in planes.
    Embed,
    /// Norms, rotary embeddings and places of heads.
    Heads,
    /// Attention.
    Attention,
    /// Operators that look at one element at a time.
    Elements,
    /// Mixture of experts.
    Experts,
    /// The largest logits.
    Top,
}

impl Module {
    /// Every module.
    pub const ALL: [Module; 13] = [
        Module::Norm,
        Module::Rotate,
        Module::Scalar,
        Module::Grid,
        Module::Exact,
        Module::Trellis,
        Module::Prefill,
        Module::Embed,
        Module::Heads,
        Module::Attention,
        Module::Elements,
        Module::Experts,
        Module::Top,
    ];

    /// Name of its source, without the extension.
    pub const fn name(self) -> &'static str {
        match self {
            Module::Norm => "norm",
            Module::Rotate => "rotate",
            Module::Scalar => "scalar",
            Module::Grid => "grid",
            Module::Exact => "exact",
            Module::Trellis => "trellis",
            Module::Prefill => "prefill",
            Module::Embed => "embed",
            Module::Heads => "heads",
            Module::Attention => "attention",
            Module::Elements => "elements",
            Module::Experts => "experts",
            Module::Top => "top",
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
            Module::Trellis => include_str!("../kernels/trellis.ptx"),
            Module::Prefill => include_str!("../kernels/prefill.ptx"),
            Module::Embed => include_str!("../kernels/embed.ptx"),
            Module::Heads => include_str!("../kernels/heads.ptx"),
            Module::Attention => include_str!("../kernels/attention.ptx"),
            Module::Elements => include_str!("../kernels/elements.ptx"),
            Module::Experts => include_str!("../kernels/experts.ptx"),
            Module::Top => include_str!("../kernels/top.ptx"),
        }
    }
}
