//! sha256 of source files, on demand.

use crate::{ReadError, SourceFile};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;

impl SourceFile {
    /// sha256 of the file in lower-case hexadecimal; `progress` gets the number of bytes of each step.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn sha256(&self, mut progress: impl FnMut(u64)) -> Result<String, ReadError> {
        let failed = |source| ReadError::Io { path: self.path.clone(), source };
        let mut file = File::open(&self.path).map_err(failed)?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            let now = file.read(&mut buffer).map_err(failed)?;
            if now == 0 {
                return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
            }
            hash.update(buffer.get(..now).unwrap_or_default());
            progress(now as u64);
        }
    }
}
