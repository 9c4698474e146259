//! Loads, stores and asynchronous copies of a warp.

use crate::fault::FaultKind;
use crate::instruction::{Access, Place, RowId, Space};
use crate::lanes::{Result, lanes};
use crate::operand::{CONSTANT_WINDOW, LOCAL_WINDOW, SHARED_WINDOW};
use crate::types::{LANES, Row};
use crate::warp::{Copy, Surroundings, Warp};

impl Warp {
    /// Addresses of active lanes, aligned.
    fn addresses(&self, base: RowId, offset: i64, align: u64, active: u32) -> Result<Row> {
        let mut out = [0; LANES];
        let base = self.row(base);
        for lane in lanes(active) {
            out[lane] = base[lane].wrapping_add(offset as u64);
            if out[lane] % align != 0 {
                return Err((Some(lane), FaultKind::Misaligned { address: out[lane], align }));
            }
        }
        Ok(out)
    }

    pub(crate) fn load(&mut self, access: &Access, active: u32, of: &mut Surroundings<'_>) -> Result<()> {
        let (bytes, count) = (access.bytes as usize, access.count as usize);
        let size = bytes * count;
        let addresses = self.addresses(access.base, access.offset, size as u64, active)?;
        count_access(access.space, &addresses, size as u64, active, of);
        let mut values = [[0; LANES]; 4];
        for lane in lanes(active) {
            let mut data = [0u8; 32];
            self.load_lane(access.space, addresses[lane], &mut data[..size], lane, of)?;
            for (place, value) in values[..count].iter_mut().enumerate() {
                let mut word = [0u8; 8];
                word[..bytes].copy_from_slice(&data[place * bytes..(place + 1) * bytes]);
                let word = u64::from_le_bytes(word);
                let unused = 64 - 8 * bytes as u32;
                value[lane] = if access.signed { ((word << unused) as i64 >> unused) as u64 } else { word };
            }
        }
        for (row, value) in access.rows.iter().zip(&values[..count]) {
            self.put(*row, value, active);
        }
        Ok(())
    }

    fn load_lane(
        &mut self,
        space: Space,
        address: u64,
        out: &mut [u8],
        lane: usize,
        of: &mut Surroundings<'_>,
    ) -> Result<()> {
        let now = self.stamp(lane, of);
        let (space, address) = resolved(space, address);
        let found = match space {
            Space::Shared => of.shared.load(address, out, now.as_ref()),
            Space::Local => {
                let place =
                    self.local_range(address, out.len(), lane, of).map_err(|kind| (Some(lane), kind))?;
                out.copy_from_slice(&self.local[place]);
                Ok(())
            }
            Space::Constant => constant(of.constants, address, out),
            Space::Parameter => constant(of.parameters, address, out),
            Space::ReadOnly => of.memory.load(address, out, now.as_ref(), true),
            Space::Global | Space::Generic => of.memory.load(address, out, now.as_ref(), false),
        };
        found.map_err(|kind| (Some(lane), kind))
    }

    pub(crate) fn store(&mut self, access: &Access, active: u32, of: &mut Surroundings<'_>) -> Result<()> {
        let (bytes, count) = (access.bytes as usize, access.count as usize);
        let size = bytes * count;
        let addresses = self.addresses(access.base, access.offset, size as u64, active)?;
        count_access(access.space, &addresses, size as u64, active, of);
        for lane in lanes(active) {
            let mut data = [0u8; 32];
            for (place, row) in access.rows[..count].iter().enumerate() {
                let word = self.row(*row)[lane].to_le_bytes();
                data[place * bytes..(place + 1) * bytes].copy_from_slice(&word[..bytes]);
            }
            let now = self.stamp(lane, of);
            let (space, address) = resolved(access.space, addresses[lane]);
            let stored = match space {
                Space::Shared => of.shared.store(address, &data[..size], now.as_ref()),
                Space::Local => self.local_range(address, size, lane, of).map(|place| {
                    self.local[place].copy_from_slice(&data[..size]);
                }),
                Space::Constant | Space::Parameter => Err(FaultKind::WriteToConstant { address }),
                _ => of.memory.store(address, &data[..size], now.as_ref()),
            };
            stored.map_err(|kind| (Some(lane), kind))?;
        }
        Ok(())
    }

    fn local_range(
        &self,
        address: u64,
        bytes: usize,
        lane: usize,
        of: &Surroundings<'_>,
    ) -> std::result::Result<std::ops::Range<usize>, FaultKind> {
        let size = u64::from(of.kernel.local);
        match address + bytes as u64 <= size {
            true => {
                let start = lane * size as usize + address as usize;
                Ok(start..start + bytes)
            }
            false => Err(FaultKind::OutOfBounds { address, bytes: bytes as u64, size: Some(size) }),
        }
    }

    /// Global to shared, seen when it is waited for; bytes beyond `from_bytes` become zero.
    pub(crate) fn copy(
        &mut self,
        to: Place,
        from: Place,
        bytes: usize,
        from_bytes: Option<RowId>,
        active: u32,
        of: &mut Surroundings<'_>,
    ) -> Result<()> {
        let to = self.addresses(to.base, to.offset, bytes as u64, active)?;
        let from = self.addresses(from.base, from.offset, bytes as u64, active)?;
        count_access(Space::Global, &from, bytes as u64, active, of);
        for lane in lanes(active) {
            let read = from_bytes.map_or(bytes, |row| (self.row(row)[lane] as usize).min(bytes));
            let mut data = [0; 16];
            self.load_lane(Space::Global, from[lane], &mut data[..read], lane, of)?;
            let now = self.stamp(lane, of);
            let (_, to) = resolved(Space::Shared, to[lane]);
            of.shared.begin_copy(to, bytes, now.as_ref()).map_err(|kind| (Some(lane), kind))?;
            self.uncommitted.push(Copy { lane, to, data, bytes });
        }
        Ok(())
    }

    pub(crate) fn wait(&mut self, but: Option<u32>, active: u32, of: &mut Surroundings<'_>) -> Result<()> {
        let keep = but.map_or(0, |but| but as usize).min(self.committed.len());
        let mut done: Vec<Copy> = Vec::new();
        let old = self.committed.len() - keep;
        for group in &mut self.committed[..old] {
            let (mine, others) =
                std::mem::take(group).into_iter().partition(|copy| active >> copy.lane & 1 == 1);
            done.extend::<Vec<Copy>>(mine);
            *group = others;
        }
        self.committed
            .drain(..old)
            .filter(|group| !group.is_empty())
            .for_each(|group| self.uncommitted.extend(group));
        if but.is_none() {
            let (mine, others) = std::mem::take(&mut self.uncommitted)
                .into_iter()
                .partition(|copy| active >> copy.lane & 1 == 1);
            done.extend::<Vec<Copy>>(mine);
            self.uncommitted = others;
        }
        for copy in done {
            let now = self.stamp(copy.lane, of);
            let ended = of.shared.end_copy(copy.to, &copy.data[..copy.bytes], now.as_ref());
            ended.map_err(|kind| (Some(copy.lane), kind))?;
        }
        Ok(())
    }
}

/// A generic address by its window; one that names its space without the window.
fn resolved(space: Space, address: u64) -> (Space, u64) {
    match space {
        Space::Shared => (space, address & !SHARED_WINDOW),
        Space::Local => (space, address & !LOCAL_WINDOW),
        Space::Constant => (space, address & !CONSTANT_WINDOW),
        Space::Parameter => (space, address),
        _ if address & CONSTANT_WINDOW != 0 => (Space::Constant, address & !CONSTANT_WINDOW),
        _ if address & SHARED_WINDOW != 0 => (Space::Shared, address & !SHARED_WINDOW),
        _ if address & LOCAL_WINDOW != 0 => (Space::Local, address & !LOCAL_WINDOW),
        _ => (space, address),
    }
}

fn constant(bytes: &[u8], address: u64, out: &mut [u8]) -> std::result::Result<(), FaultKind> {
    let range =
        usize::try_from(address).ok().and_then(|start| bytes.get(start..start.checked_add(out.len())?));
    let size = Some(bytes.len() as u64);
    let found = range.ok_or(FaultKind::OutOfBounds { address, bytes: out.len() as u64, size })?;
    out.copy_from_slice(found);
    Ok(())
}

fn count_access(space: Space, addresses: &Row, bytes: u64, active: u32, of: &mut Surroundings<'_>) {
    match space {
        Space::Global | Space::ReadOnly => {
            of.counters.global(lanes(active).map(|lane| addresses[lane]), bytes)
        }
        Space::Shared => {
            let mut list = [0; LANES];
            let mut count = 0;
            for lane in lanes(active) {
                list[count] = addresses[lane] & !SHARED_WINDOW;
                count += 1;
            }
            of.counters.shared(&list[..count], bytes);
        }
        _ => {}
    }
}
