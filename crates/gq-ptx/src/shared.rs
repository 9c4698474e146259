//! Shared memory of one block.

use crate::access::{History, Stamp};
use crate::fault::FaultKind;

#[derive(Debug)]
pub(crate) struct Shared {
    bytes: Vec<u8>,
    written: Vec<bool>,
    /// Bytes that asynchronous copies are under way to.
    under_way: Vec<bool>,
    histories: Vec<History>,
}

impl Shared {
    /// `size` bytes that nobody has written.
    pub(crate) fn new(size: usize) -> Shared {
        Shared {
            bytes: vec![0; size],
            written: vec![false; size],
            under_way: vec![false; size],
            histories: vec![History::default(); size],
        }
    }

    fn range(&self, address: u64, bytes: usize) -> Result<std::ops::Range<usize>, FaultKind> {
        let size = self.bytes.len() as u64;
        match address.checked_add(bytes as u64).filter(|end| *end <= size) {
            Some(end) => Ok(address as usize..end as usize),
            None => Err(FaultKind::OutOfBounds { address, bytes: bytes as u64, size: Some(size) }),
        }
    }

    /// A read.
    pub(crate) fn load(
        &mut self,
        address: u64,
        out: &mut [u8],
        now: Option<&Stamp>,
    ) -> Result<(), FaultKind> {
        let range = self.range(address, out.len())?;
        for place in range.clone() {
            let address = place as u64;
            if self.under_way[place] {
                return Err(FaultKind::CopyUnderWay { address });
            }
            if !self.written[place] {
                return Err(FaultKind::Uninitialized { address });
            }
            if let Some(other) = now.and_then(|now| self.histories[place].read(now)) {
                return Err(FaultKind::Race { address, other, write: false });
            }
        }
        out.copy_from_slice(&self.bytes[range]);
        Ok(())
    }

    /// A write.
    pub(crate) fn store(&mut self, address: u64, data: &[u8], now: Option<&Stamp>) -> Result<(), FaultKind> {
        let range = self.range(address, data.len())?;
        if let Some(place) = range.clone().find(|place| self.under_way[*place]) {
            return Err(FaultKind::CopyUnderWay { address: place as u64 });
        }
        self.put(range, data, now)
    }

    fn put(
        &mut self,
        range: std::ops::Range<usize>,
        data: &[u8],
        now: Option<&Stamp>,
    ) -> Result<(), FaultKind> {
        for place in range.clone() {
            if let Some(other) = now.and_then(|now| self.histories[place].write(now)) {
                return Err(FaultKind::Race { address: place as u64, other, write: true });
            }
        }
        self.written[range.clone()].fill(true);
        self.bytes[range].copy_from_slice(data);
        Ok(())
    }

    /// An asynchronous copy to `bytes` at `address` begins: a write from now until it is waited for.
    pub(crate) fn begin_copy(
        &mut self,
        address: u64,
        bytes: usize,
        now: Option<&Stamp>,
    ) -> Result<(), FaultKind> {
        let range = self.range(address, bytes)?;
        if let Some(place) = range.clone().find(|place| self.under_way[*place]) {
            return Err(FaultKind::CopyUnderWay { address: place as u64 });
        }
        for place in range.clone() {
            if let Some(other) = now.and_then(|now| self.histories[place].write(now)) {
                return Err(FaultKind::Race { address: place as u64, other, write: true });
            }
        }
        self.under_way[range].fill(true);
        Ok(())
    }

    /// It has been waited for: the thread has written `data`.
    pub(crate) fn end_copy(
        &mut self,
        address: u64,
        data: &[u8],
        now: Option<&Stamp>,
    ) -> Result<(), FaultKind> {
        let range = self.range(address, data.len())?;
        self.under_way[range.clone()].fill(false);
        self.put(range, data, now)
    }
}
