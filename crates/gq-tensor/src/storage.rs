//! How a matrix is stored, whatever its shape.

use crate::{Encoding, RotationSpec};

/// An encoding, and the basis that the encoded rows are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Storage {
    /// How elements are stored.
    pub encoding: Encoding,
    /// What rows were multiplied by before; its seed also seeds the sketch of `Prod`.
    pub rotation: RotationSpec,
}

impl Storage {
    /// Encoded in this basis.
    pub const fn new(encoding: Encoding, rotation: RotationSpec) -> Storage {
        Storage { encoding, rotation }
    }

    /// Encoded as rows are.
    pub const fn unrotated(encoding: Encoding) -> Storage {
        Storage { encoding, rotation: RotationSpec::NONE }
    }
}
