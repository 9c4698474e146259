//! Caches that answers take turns with: as many as were planned, each as long as the context.

use gq_model::{KvCache, Model};

/// Tokens in common that are worth taking a cache with other things behind them.
const WORTH: usize = 32;

/// Keys and values, and the tokens they are of.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) cache: KvCache,
    pub(super) seen: Vec<u32>,
    /// When it was given back; larger is later.
    used: u64,
}

/// Those that nobody has.
#[derive(Debug)]
pub(super) struct Slots {
    free: Vec<Slot>,
    clock: u64,
}

impl Slots {
    /// `count` empty ones for `context` tokens each. Memory is touched as tokens come, and kept.
    pub(super) fn new(model: &Model, count: usize, context: usize) -> Slots {
        let slot = || Slot { cache: model.new_cache(context), seen: Vec::new(), used: 0 };
        Slots { free: (0..count).map(|_| slot()).collect(), clock: 0 }
    }

    /// Whether there is one.
    pub(super) fn any(&self) -> bool {
        !self.free.is_empty()
    }

    /// Tokens that free ones remember.
    pub(super) fn tokens(&self) -> usize {
        self.free.iter().map(|slot| slot.cache.len()).sum()
    }

    /// One for a prompt, and how many of its tokens it has already: the one that has seen most of it, else the one that
    /// was not used for longest.
    pub(super) fn take(&mut self, prompt: &[u32]) -> Option<Slot> {
        let most = prompt.len().saturating_sub(1); // the last token's logits are needed
        let common = |slot: &Slot| slot.seen.iter().zip(prompt).take_while(|(a, b)| a == b).count().min(most);
        let worth = |slot: &Slot| Some(common(slot)).filter(|&common| common >= WORTH).unwrap_or(0);
        let best = (0..self.free.len())
            .max_by_key(|&index| (worth(&self.free[index]), std::cmp::Reverse(self.free[index].used)))?;
        let mut slot = self.free.swap_remove(best);
        let kept = common(&slot);
        let kept = slot.cache.truncate(kept);
        slot.seen.truncate(kept);
        Some(slot)
    }

    /// Gives one back.
    pub(super) fn give(&mut self, mut slot: Slot) {
        self.clock += 1;
        slot.used = self.clock;
        slot.seen.truncate(slot.cache.len());
        self.free.push(slot);
    }

    /// Puts an empty one in the place of one that may hold anything.
    pub(super) fn replace(&mut self, slot: Slot, model: &Model) {
        let cache = model.new_cache(slot.cache.max_tokens());
        drop(slot);
        self.give(Slot { cache, seen: Vec::new(), used: 0 });
    }
}
