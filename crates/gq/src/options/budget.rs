//! Budgets that no choice of codes can meet, found from headers alone, and which part took the room.

use crate::explain::took_room;
use crate::failure::{Exit, Failure};
use crate::units;
use gq_checkpoint::{Checkpoint, ModelSpec};
use gq_convert::{Budget, Choice, PlanError, Policy, Resources};
use gq_model::{KvType, kv_cache_bytes, work_bytes};
use gq_tensor::{Encoding, ScaleGroup};

/// Threads whose memory `--fit` leaves room for: a constant, for a file depends on no machine.
pub const FIT_THREADS: usize = 16;

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// `--size`.
    pub size: Option<u64>,
    /// `--bpw`.
    pub bpw: Option<f64>,
    /// `--fit`.
    pub fit: Option<u64>,
    /// `--ctx`.
    pub ctx: usize,
    /// `--kv`.
    pub kv: KvType,
}

impl Asked {
    /// Bytes of keys and values, and of buffers, that `--fit` has to hold next to the weights.
    pub fn around(&self, spec: &ModelSpec) -> (u64, u64) {
        (kv_cache_bytes(spec, self.ctx, self.kv), work_bytes(spec, self.ctx, self.kv, FIT_THREADS))
    }

    /// Refuses a budget that the coarsest choice does not meet. Weights are not read.
    ///
    /// # Errors
    /// With what the weights take at least, and what took the rest of the room.
    pub fn check(
        &self,
        checkpoint: &Checkpoint,
        policy: &Policy,
        resources: Resources,
    ) -> Result<(), Failure> {
        if !matches!(policy.budget, Some(Budget::FileBytes(_) | Budget::BodyBits(_))) {
            return Ok(());
        }
        // Nobody has looked for grids yet, and one may take half of what its 8 bits were to take.
        let halved = |choice: Choice| match choice {
            Choice::Coded(Encoding::Turbo { bits, .. }) if bits > 4 => {
                Choice::Coded(Encoding::Turbo { bits: 4, group: ScaleGroup::Row })
            }
            other => other,
        };
        let optimistic = Policy {
            embedding: halved(policy.embedding),
            head: halved(policy.head),
            per_layer_table: halved(policy.per_layer_table),
            per_layer_projection: halved(policy.per_layer_projection),
            calibration: None,
            ..policy.clone()
        };
        match gq_convert::plan_measured(checkpoint, &optimistic, resources, None, None) {
            Err(PlanError::Budget { limit, actual, around, fixed }) => {
                Err(self.refusal(checkpoint.spec(), limit, actual, &took_room(around, &fixed)))
            }
            _ => Ok(()),
        }
    }

    fn refusal(&self, spec: &ModelSpec, limit: u64, actual: u64, room: &str) -> Failure {
        let (least, left) = (units::bytes(actual), units::bytes(limit));
        let (place, message) = match (self.size, self.fit, self.bpw) {
            (Some(size), ..) if size < 100_000 => (
                "--size",
                format!(
                    "--size {size} is {size} bytes, the weights take at least {least}: write {size}MB for megabytes"
                ),
            ),
            (Some(size), ..) => (
                "--size",
                format!(
                    "--size {} leaves {left} for the weights, which take at least {least}{room}",
                    units::bytes(size)
                ),
            ),
            (_, Some(fit), _) => {
                let (cache, work) = self.around(spec);
                let message = format!(
                    "--fit {} leaves {left} for the weights, which take at least {least}: keys and values of {} tokens \
                     take {}, buffers {}{room}",
                    units::bytes(fit),
                    units::count(self.ctx as u64),
                    units::bytes(cache),
                    units::bytes(work),
                );
                ("--fit", message)
            }
            (_, _, bpw) => (
                "--bpw",
                format!(
                    "--bpw {} leaves {left} for the body, which takes at least {least}{room}",
                    bpw.unwrap_or_default()
                ),
            ),
        };
        let failure = Failure::new(Exit::Usage, "plan.budget", message).at(place).limit(limit).actual(actual);
        match self.fit {
            Some(_) => failure.advise(format!(
                "allow more bytes, or fewer tokens (--ctx {} now); --kv q8 halves keys and values in f16; fewer bits for \
                 tables: --embedding, --head, --per-layer-table",
                self.ctx
            )),
            None => failure,
        }
    }
}
