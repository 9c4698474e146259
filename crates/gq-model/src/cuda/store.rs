//! Memory of what stays on a device for as long as the model does: one range, as long as was planned, handed out from its
//! beginning. An allocation of the driver's for each of a thousand matrices would take more than their bytes.

use super::arena::GRAIN;
use crate::error::DeviceError;
use gq_cuda::{Buffer, Gpu, Span};

/// Bytes of a range that is made where none was planned.
const MORE: u64 = 1 << 20;

/// The range, or several where nothing was planned.
#[derive(Default)]
pub(super) struct Store {
    ranges: Vec<Buffer>,
    /// Bytes of the last range that were handed out.
    used: u64,
    /// Bytes that were planned; `None`: it grows as it has to.
    planned: Option<u64>,
}

/// Where bytes were put.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    range: usize,
    at: usize,
    pub(super) span: Span,
}

impl Store {
    /// A range of as many bytes as were planned, of which no more can be taken.
    pub(super) fn planned(gpu: &Gpu, bytes: u64) -> Result<Store, DeviceError> {
        let ranges = if bytes > 0 { vec![gpu.reserve(bytes as usize)?] } else { Vec::new() };
        Ok(Store { ranges, used: 0, planned: Some(bytes) })
    }

    /// So many bytes of anything, at a multiple of [`GRAIN`].
    pub(super) fn take(&mut self, gpu: &Gpu, bytes: usize) -> Result<Place, DeviceError> {
        let needed = (bytes.max(1) as u64).next_multiple_of(GRAIN);
        let free = |range: &Buffer| range.span().bytes - self.used;
        if self.ranges.last().is_none_or(|range| free(range) < needed) {
            if let Some(limit) = self.planned {
                return Err(DeviceError::Scratch { needed: self.used + needed, limit });
            }
            self.ranges.push(gpu.reserve(needed.max(MORE) as usize)?);
            self.used = 0;
        }
        let (range, at) = (self.ranges.len() - 1, self.used as usize);
        let all = self.ranges.get(range).map(Buffer::span).ok_or(DeviceError::Missing)?;
        self.used += needed;
        Ok(Place { range, at, span: Span { address: all.address + at as u64, bytes: bytes as u64 } })
    }

    /// Bytes to a place that was taken, from its element `first` on.
    pub(super) fn write(
        &mut self,
        gpu: &Gpu,
        to: Place,
        first: usize,
        bytes: &[u8],
    ) -> Result<(), DeviceError> {
        let range = self.ranges.get_mut(to.range).ok_or(DeviceError::Missing)?;
        Ok(gpu.write(range, to.at + first, bytes)?)
    }

    /// Takes memory for these bytes and brings them there.
    pub(super) fn put(&mut self, gpu: &Gpu, bytes: &[u8]) -> Result<Span, DeviceError> {
        let place = self.take(gpu, bytes.len())?;
        if !bytes.is_empty() {
            self.write(gpu, place, 0, bytes)?;
        }
        Ok(place.span)
    }

    /// Bytes that were handed out, and bytes that were planned.
    pub(super) fn filled(&self) -> (u64, Option<u64>) {
        (self.used, self.planned)
    }
}
