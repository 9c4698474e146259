//! Transforms and tables that are made once for all matrices that share them.

use crate::decoder::Decoder;
use crate::encoder::Encoder;
use crate::error::{CodecError, RotationError};
use crate::rotation::Rotation;
use gq_tensor::{RotationSpec, Storage};
use std::collections::HashMap;
use std::sync::Arc;

/// Rotations and codes in use, by what they are and their width.
#[derive(Debug, Default)]
pub struct Coders {
    rotations: HashMap<(RotationSpec, usize), Arc<Rotation>>,
    decoders: HashMap<(Storage, usize), Decoder>,
}

impl Coders {
    /// The rotation of rows of `cols` elements.
    ///
    /// # Errors
    /// When the kind has no rotation of this width.
    pub fn rotation(&mut self, spec: RotationSpec, cols: usize) -> Result<Arc<Rotation>, RotationError> {
        if let Some(rotation) = self.rotations.get(&(spec, cols)) {
            return Ok(rotation.clone());
        }
        let rotation = Arc::new(Rotation::new(spec, cols)?);
        Ok(self.rotations.entry((spec, cols)).or_insert(rotation).clone())
    }

    /// A decoder of rows of `cols` elements.
    ///
    /// # Errors
    /// Those of [`Decoder::new`].
    pub fn decoder(&mut self, storage: Storage, cols: usize) -> Result<Decoder, CodecError> {
        if let Some(decoder) = self.decoders.get(&(storage, cols)) {
            return Ok(decoder.clone());
        }
        let decoder = Decoder::new(storage, cols)?;
        Ok(self.decoders.entry((storage, cols)).or_insert(decoder).clone())
    }

    /// An encoder of rows of `cols` elements, which shares its decoder's tables.
    ///
    /// # Errors
    /// Those of [`Encoder::new`].
    pub fn encoder(&mut self, storage: Storage, cols: usize) -> Result<Encoder, CodecError> {
        Encoder::of(&self.decoder(storage, cols)?)
    }
}
