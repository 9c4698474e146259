//! Global memory: allocations with an address each, bounds, and who wrote what.

use crate::access::{Histories, Stamp};
use crate::fault::FaultKind;

/// Bits of an address below the number of its allocation.
const OFFSET_BITS: u32 = 36;

/// Global memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    allocations: Vec<Option<Allocation>>,
}

#[derive(Clone, Debug)]
struct Allocation {
    bytes: Vec<u8>,
    /// Whether each byte was ever written.
    written: Vec<bool>,
    histories: Histories,
}

impl Memory {
    /// Allocates `bytes`, unwritten. Addresses are multiples of 2^36.
    pub(crate) fn allocate(&mut self, bytes: usize) -> u64 {
        let made = Allocation {
            bytes: vec![0; bytes],
            written: vec![false; bytes],
            histories: Histories::default(),
        };
        self.allocations.push(Some(made));
        (self.allocations.len() as u64) << OFFSET_BITS
    }

    /// Frees the allocation that begins at `address`. Whether there is one.
    pub(crate) fn free(&mut self, address: u64) -> bool {
        let index = (address >> OFFSET_BITS) as usize;
        let begins = address.trailing_zeros() >= OFFSET_BITS;
        let place = index.checked_sub(1).and_then(|index| self.allocations.get_mut(index));
        place.filter(|_| begins).is_some_and(|place| place.take().is_some())
    }

    /// Bytes of the allocation that begins at `address`, and which of them were ever written.
    pub(crate) fn holds(&self, address: u64) -> Option<(&[u8], &[bool])> {
        let index = ((address >> OFFSET_BITS) as usize).checked_sub(1)?;
        let found = self.allocations.get(index)?.as_ref()?;
        Some((&found.bytes, &found.written))
    }

    /// Where the allocation begins that an address lies in.
    pub(crate) fn beginning(address: u64) -> u64 {
        address >> OFFSET_BITS << OFFSET_BITS
    }

    /// The allocation and the offset of `bytes` at `address`.
    fn find(&mut self, address: u64, bytes: u64) -> Result<(&mut Allocation, usize), FaultKind> {
        let index = (address >> OFFSET_BITS) as usize;
        let offset = address & ((1 << OFFSET_BITS) - 1);
        let place = index.checked_sub(1).and_then(|index| self.allocations.get_mut(index));
        let Some(Some(found)) = place else {
            return Err(FaultKind::OutOfBounds { address, bytes, size: None });
        };
        let size = found.bytes.len() as u64;
        match offset + bytes <= size {
            true => Ok((found, offset as usize)),
            false => Err(FaultKind::OutOfBounds { address, bytes, size: Some(size) }),
        }
    }

    /// The host's copy to the device.
    pub(crate) fn copy_in(&mut self, address: u64, data: &[u8]) -> Result<(), FaultKind> {
        let (found, at) = self.find(address, data.len() as u64)?;
        found.bytes[at..at + data.len()].copy_from_slice(data);
        found.written[at..at + data.len()].fill(true);
        Ok(())
    }

    /// The host's copy from the device.
    pub(crate) fn copy_out(&mut self, address: u64, bytes: usize) -> Result<Vec<u8>, FaultKind> {
        let (found, at) = self.find(address, bytes as u64)?;
        match found.written[at..at + bytes].iter().position(|written| !written) {
            Some(place) => Err(FaultKind::Uninitialized { address: address + place as u64 }),
            None => Ok(found.bytes[at..at + bytes].to_vec()),
        }
    }

    /// A kernel's read. `now` where races are looked for, `read_only` for the path that must not see this launch's writes.
    pub(crate) fn load(
        &mut self,
        address: u64,
        out: &mut [u8],
        now: Option<&Stamp>,
        read_only: bool,
    ) -> Result<(), FaultKind> {
        let (found, at) = self.find(address, out.len() as u64)?;
        for place in 0..out.len() {
            let byte = address + place as u64;
            if !found.written[at + place] {
                return Err(FaultKind::Uninitialized { address: byte });
            }
            let Some(now) = now else { continue };
            let history = found.histories.at(at + place);
            if read_only && history.is_written() {
                return Err(FaultKind::NotReadOnly { address: byte });
            }
            if let Some(other) = history.read(now) {
                return Err(FaultKind::Race { address: byte, other, write: false });
            }
        }
        out.copy_from_slice(&found.bytes[at..at + out.len()]);
        Ok(())
    }

    /// A kernel's write.
    pub(crate) fn store(&mut self, address: u64, data: &[u8], now: Option<&Stamp>) -> Result<(), FaultKind> {
        let (found, at) = self.find(address, data.len() as u64)?;
        if let Some(now) = now {
            for place in 0..data.len() {
                if let Some(other) = found.histories.at(at + place).write(now) {
                    let address = address + place as u64;
                    return Err(FaultKind::Race { address, other, write: true });
                }
            }
        }
        found.bytes[at..at + data.len()].copy_from_slice(data);
        found.written[at..at + data.len()].fill(true);
        Ok(())
    }

    /// Forgets who accessed what: the launch is over.
    pub(crate) fn end_launch(&mut self) {
        self.allocations.iter_mut().flatten().for_each(|allocation| allocation.histories.clear());
    }
}
