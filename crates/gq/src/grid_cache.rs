//! Grids that were found, kept in the user's cache: a plan, a conversion and its resumption look for them once.
//!
//! What is kept is about files as they were: path, size, time of change and content of a few rows. A file that was changed
//! behind all of that loses nothing in silence: rounding to a grid that weights are not on is an error.

use gq_checkpoint::{Checkpoint, FileKind};
use gq_convert::{Grids, Policy};
use sha2::{Digest, Sha256};
use std::fs::Metadata;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

/// Where what was found is kept, for one checkpoint and what grids are of use for.
pub struct GridCache(PathBuf);

impl GridCache {
    /// The place; `None` where the user has no cache or a file cannot be looked at.
    pub fn of(checkpoint: &Checkpoint, policy: &Policy) -> Option<GridCache> {
        let mut hash = Sha256::new();
        hash.update(concat!("gq ", env!("CARGO_PKG_VERSION"), " grids 1\n"));
        for file in checkpoint.files().iter().filter(|file| file.kind != FileKind::Text) {
            let path = file.path.canonicalize().ok()?;
            let found = std::fs::metadata(&path).ok()?;
            hash.update(format!("{} {} {:?}\n", path.display(), found.len(), changed(&found)?));
        }
        for (name, bytes) in gq_calibrate::source_files(checkpoint) {
            hash.update(format!("{name} {bytes}\n"));
        }
        // Of the policy, what grids are looked for by.
        let roles = [policy.body, policy.embedding, policy.head, policy.per_layer_table];
        let roles = roles.into_iter().chain([policy.per_layer_projection]).map(gq_convert::Choice::name);
        let rules = policy.overrides.iter().map(|rule| format!("{}={}", rule.pattern, rule.encoding.name()));
        let wanted: Vec<String> = match policy.budget.is_some() && policy.grids {
            // Any grid will do, whatever the budget.
            true => rules.collect(),
            false => roles.chain(rules).chain([policy.grids.to_string()]).collect(),
        };
        hash.update(format!("{} {wanted:?}", policy.budget.is_some()));
        let name: String = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Some(GridCache(crate::user_cache::dir()?.join("grids").join(format!("{name}.json"))))
    }

    /// What was found before.
    pub fn get(&self) -> Option<Grids> {
        serde_json::from_slice(&std::fs::read(&self.0).ok()?).ok()
    }

    /// Keeps what was found. What cannot be kept is found again.
    pub fn keep(&self, grids: &Grids) {
        let Ok(json) = serde_json::to_vec(grids) else { return };
        if self.0.parent().is_some_and(|dir| std::fs::create_dir_all(dir).is_ok()) {
            let _ = gq_files::write_whole(&self.0, &json);
        }
    }
}

fn changed(found: &Metadata) -> Option<u128> {
    Some(found.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_nanos())
}
