//! What a launch did, counted per warp instruction.

use std::collections::BTreeMap;

/// Counts of one launch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Warp instructions executed (an instruction of a warp counts once, whatever its lanes).
    pub instructions: u64,
    /// The same by the first part of the opcode (`fma`, `ld`, `prmt` …).
    pub by_opcode: BTreeMap<String, u64>,
    /// Global loads and stores of a warp.
    pub global_requests: u64,
    /// Sectors of 32 bytes that these touch.
    pub global_sectors: u64,
    /// Sectors that the bytes they move would fill.
    pub ideal_sectors: u64,
    /// Shared loads and stores of a warp.
    pub shared_requests: u64,
    /// Passes these take: most distinct words that one bank is asked for.
    pub shared_wavefronts: u64,
    /// Passes they would take without conflicts.
    pub ideal_wavefronts: u64,
    /// Block barriers, by warp.
    pub barriers: u64,
}

impl Counters {
    /// A global access of `bytes` per lane.
    pub(crate) fn global(&mut self, addresses: impl Iterator<Item = u64>, bytes: u64) {
        let (mut sectors, mut total) = (Vec::with_capacity(32), 0);
        for address in addresses {
            sectors.extend(address / 32..=(address + bytes - 1) / 32);
            total += bytes;
        }
        sectors.sort_unstable();
        sectors.dedup();
        self.global_requests += 1;
        self.global_sectors += sectors.len() as u64;
        self.ideal_sectors += total.div_ceil(32).min(sectors.len() as u64);
    }

    /// A shared access of `bytes` per lane: 32 banks of 4 bytes; 8 and 16 bytes go by half and quarter warps.
    pub(crate) fn shared(&mut self, addresses: &[u64], bytes: u64) {
        let lanes = (128 / bytes.max(4)) as usize;
        self.shared_requests += 1;
        for part in addresses.chunks(lanes) {
            let mut words: Vec<u64> = Vec::with_capacity(64);
            words.extend(part.iter().flat_map(|address| address / 4..=(address + bytes - 1) / 4));
            words.sort_unstable();
            words.dedup();
            let mut banks = [0u64; 32];
            words.iter().for_each(|word| banks[(word % 32) as usize] += 1);
            self.shared_wavefronts += banks.into_iter().max().unwrap_or(0);
            self.ideal_wavefronts += (words.len() as u64).div_ceil(32);
        }
    }

    /// Adds the counts of another launch.
    pub fn add(&mut self, other: &Counters) {
        self.instructions += other.instructions;
        for (opcode, count) in &other.by_opcode {
            *self.by_opcode.entry(opcode.clone()).or_default() += count;
        }
        self.global_requests += other.global_requests;
        self.global_sectors += other.global_sectors;
        self.ideal_sectors += other.ideal_sectors;
        self.shared_requests += other.shared_requests;
        self.shared_wavefronts += other.shared_wavefronts;
        self.ideal_wavefronts += other.ideal_wavefronts;
        self.barriers += other.barriers;
    }
}
