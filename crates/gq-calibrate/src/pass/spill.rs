//! What a pass over many sequences keeps between layers, in a file instead of memory.

use super::state::{SharedMatrices, State};
use gq_model::Matrix;
use std::fs::File;
use std::io::{Read, Result, Seek, SeekFrom, Write};
use std::sync::Arc;

/// A place of fixed size for each sequence: its residual stream, then keys and values that later layers read.
/// Values come back bit for bit.
#[derive(Debug)]
pub(super) struct Spill {
    file: File,
    /// Bytes of a sequence's place.
    stride: u64,
    /// What is in each place.
    kept: Vec<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    x: Size,
    /// Layer that made them, keys, values.
    shared: Vec<(usize, Size, Size)>,
}

/// Width and elements of a matrix.
type Size = (usize, usize);

impl Spill {
    pub(super) fn new(file: File, stride: u64, sequences: usize) -> Spill {
        Spill { file, stride, kept: (0..sequences).map(|_| Kept::default()).collect() }
    }

    pub(super) fn store(&mut self, sequence: usize, State { x, shared }: &State) -> Result<()> {
        let size = |matrix: &Matrix| (matrix.width, matrix.data.len());
        let sizes = shared.iter().map(|(&layer, (k, v))| (layer, size(k), size(v)));
        let Some(kept) = self.kept.get_mut(sequence) else { return Ok(()) };
        *kept = Kept { x: size(x), shared: sizes.collect() };
        let matrices = std::iter::once(&**x).chain(shared.values().flat_map(|(k, v)| [&**k, &**v]));
        let bytes: Vec<u8> = matrices.flat_map(|matrix| &matrix.data).flat_map(|x| x.to_le_bytes()).collect();
        self.file.seek(SeekFrom::Start(sequence as u64 * self.stride))?;
        self.file.write_all(&bytes)
    }

    pub(super) fn load(&self, sequence: usize) -> Result<State> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(sequence as u64 * self.stride))?;
        let mut matrix = |(width, elements): Size| -> Result<Arc<Matrix>> {
            let mut bytes = vec![0; 4 * elements];
            file.read_exact(&mut bytes)?;
            let data = bytes.as_chunks::<4>().0.iter().map(|&x| f32::from_le_bytes(x)).collect();
            Ok(Arc::new(Matrix { width, data }))
        };
        let Some(kept) = self.kept.get(sequence) else { return Ok(Default::default()) };
        let x = matrix(kept.x)?;
        let mut shared = SharedMatrices::new();
        for &(layer, k, v) in &kept.shared {
            shared.insert(layer, (matrix(k)?, matrix(v)?));
        }
        Ok(State { x, shared })
    }
}
