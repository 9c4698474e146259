//! Numbers and strings from the bytes of a header.

use super::{GgufError, limits};
use std::io::Read;

/// Reads numbers and strings, never more than there is.
pub(super) struct Reader<'a> {
    pub source: &'a mut dyn Read,
    /// Bytes read so far.
    pub at: u64,
    /// Bytes that there are.
    pub end: u64,
}

/// Bytes read at once where a length comes from the file.
const STEP: usize = 1 << 16;

impl Reader<'_> {
    pub(super) fn position(&self) -> u64 {
        self.at
    }

    /// Refuses what the rest of the file cannot hold, before anything is allocated for it.
    fn need(&self, bytes: Option<u64>) -> Result<u64, GgufError> {
        let needed = bytes.unwrap_or(u64::MAX);
        if needed > self.end - self.at {
            return Err(GgufError::Truncated { at: self.at, needed });
        }
        if needed > limits::HEADER_BYTES - self.at.min(limits::HEADER_BYTES) {
            return Err(GgufError::HeaderTooLong { limit: limits::HEADER_BYTES });
        }
        Ok(needed)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), GgufError> {
        let needed = self.need(Some(buffer.len() as u64))?;
        let at = self.at;
        self.source.read_exact(buffer).map_err(|_| GgufError::Truncated { at, needed })?;
        self.at += needed;
        Ok(())
    }

    pub(super) fn number<const N: usize, T>(
        &mut self,
        convert: impl Fn([u8; N]) -> T,
    ) -> Result<T, GgufError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(convert(bytes))
    }

    pub(super) fn numbers<const N: usize, T>(
        &mut self,
        count: u64,
        convert: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>, GgufError> {
        self.need(count.checked_mul(N as u64))?;
        let mut out = Vec::with_capacity(count as usize);
        let mut buffer = [0; STEP];
        let mut left = count as usize * N;
        while left > 0 {
            let now = left.min(STEP / N * N);
            self.fill(&mut buffer[..now])?;
            out.extend(buffer[..now].as_chunks::<N>().0.iter().map(|bytes| convert(*bytes)));
            left -= now;
        }
        Ok(out)
    }

    /// `count` items of at least `fewest` bytes each.
    pub(super) fn list<T>(
        &mut self,
        count: u64,
        fewest: u64,
        read: impl Fn(&mut Self) -> Result<T, GgufError>,
    ) -> Result<Vec<T>, GgufError> {
        self.need(count.checked_mul(fewest))?;
        (0..count).map(|_| read(self)).collect()
    }

    pub(super) fn string(&mut self, limit: u64) -> Result<String, GgufError> {
        let at = self.at;
        let actual = self.number(u64::from_le_bytes)?;
        if actual > limit {
            return Err(GgufError::StringLen { at, actual, limit });
        }
        let bytes = self.numbers(actual, |[byte]: [u8; 1]| byte)?;
        String::from_utf8(bytes).map_err(|_| GgufError::Utf8 { at })
    }

    pub(super) fn count(&mut self, what: &'static str, limit: u64) -> Result<u64, GgufError> {
        let actual = self.number(u64::from_le_bytes)?;
        if actual > limit { Err(GgufError::Count { what, actual, limit }) } else { Ok(actual) }
    }
}
