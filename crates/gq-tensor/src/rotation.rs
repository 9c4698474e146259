//! Names of rotations; the arithmetic lives in `gq-codec`, the definition in `formats/encodings.md`.

use serde::{Deserialize, Serialize};

/// The orthogonal transform applied to a matrix's rows before coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RotationKind {
    /// Rows are coded as they are.
    None,
    /// Seeded signs, then a Hadamard factor of size 2^k times a fixed orthogonal factor.
    Hadamard,
    /// Dense orthogonal matrix, uniform over O(n): QR of a seeded Gaussian matrix. Reference mode.
    Haar,
}

impl RotationKind {
    /// Every kind, in code order.
    pub const ALL: [RotationKind; 3] = [RotationKind::None, RotationKind::Hadamard, RotationKind::Haar];

    /// The number in `formats/registry.md`.
    pub const fn code(self) -> u8 {
        match self {
            RotationKind::None => 0,
            RotationKind::Hadamard => 1,
            RotationKind::Haar => 2,
        }
    }

    /// The kind with this registry number.
    pub fn from_code(code: u8) -> Option<RotationKind> {
        RotationKind::ALL.into_iter().find(|k| k.code() == code)
    }

    /// Lower-case name, as in options and reports.
    pub const fn name(self) -> &'static str {
        match self {
            RotationKind::None => "none",
            RotationKind::Hadamard => "hadamard",
            RotationKind::Haar => "haar",
        }
    }
}

/// A rotation of some width: all matrices with the same spec and width share one transform,
/// so that an activation is rotated once for all the matrices it meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RotationSpec {
    /// Which transform.
    pub kind: RotationKind,
    /// Source of its signs or entries; 0 for `None`.
    pub seed: u64,
}

impl RotationSpec {
    /// No rotation.
    pub const NONE: RotationSpec = RotationSpec { kind: RotationKind::None, seed: 0 };
}
