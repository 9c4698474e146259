//! Converts a checkpoint: looks for grids, measures, plans and codes, with progress.

use crate::failure::Failure;
use crate::global::Global;
use crate::grid_cache::GridCache;
use crate::jobs::{measure, measuring_memory};
use crate::options::amounts::Measuring;
use crate::options::decision::{Calibrate, Why};
use crate::options::recipe::Recipe;
use crate::progress::{Progress, Stage, Unit};
use crate::source;
use crate::{expected, guard, outcome, progress};
use gq_calibrate::MeasurementsDir;
use gq_checkpoint::Checkpoint;
use gq_convert::{Event, ExecuteOptions, Grids, Plan, PlanError, Policy, Report, Resources};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of weights that are looked through sooner than this machine is tried for an estimate.
const UNTRIED: u64 = 32 << 20;

/// Where a file goes, and what becomes of what is there.
pub struct Place<'a> {
    pub path: &'a Path,
    pub restart: bool,
    pub keep: bool,
}

/// A conversion of which everything is known but what is to be measured.
pub struct Job<'a> {
    pub checkpoint: &'a Arc<Checkpoint>,
    pub recipe: &'a Recipe,
    pub calibrate: Calibrate,
    pub resources: Resources,
    pub grids: Grids,
    /// What it would be without measurements; `None` where nothing can be planned without.
    pub draft: Option<Plan>,
}

impl<'a> Job<'a> {
    /// Before anything was looked at: what is wrong already is said alone.
    pub fn new(
        checkpoint: &'a Arc<Checkpoint>,
        recipe: &'a Recipe,
        calibrate: Calibrate,
        resources: Resources,
    ) -> Result<Job<'a>, Failure> {
        let (policy, grids) = (recipe.policy(checkpoint, None), Grids::default());
        let draft = match gq_convert::plan_measured(checkpoint, &policy, resources, None, None) {
            Ok(plan) => Some(plan),
            // Grids may say otherwise, and of a divergence nothing is known yet.
            Err(PlanError::OffGrid { .. } | PlanError::Budget { .. } | PlanError::NotMeasured) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Job { checkpoint, recipe, calibrate, resources, grids, draft })
    }

    /// Looks for grids, and says what cannot be done before anything is measured.
    pub fn find_grids(&mut self, progress: &mut Progress, global: &Global) -> Result<(), Failure> {
        let policy = self.recipe.policy(self.checkpoint, None);
        self.grids = grids(self.checkpoint, &policy, self.resources, progress)?;
        let plan =
            || gq_convert::plan_measured(self.checkpoint, &policy, self.resources, None, Some(&self.grids));
        self.draft = if self.recipe.target_kld.is_none() { Some(plan()?) } else { None };
        if let Some(draft) = &self.draft {
            source::refuse_rounding(self.checkpoint, draft, self.recipe.allow_requantize)?;
        }
        let left_out = self.measuring(false).map_or(0, |how| how.without.len());
        let exact = self.checkpoint.tensors().iter().filter(|tensor| tensor.shape.len() < 2).count();
        if left_out > exact {
            let matrices = left_out - exact;
            global
                .output()
                .note(&format!("{matrices} matrices are stored without loss: they are not measured"));
        }
        Ok(())
    }

    /// Refuses to begin what would not fit on the disk, as far as it is known yet.
    pub fn room(&self, place: &Place<'_>, global: &Global) -> Result<(), Failure> {
        self.room_for(place, self.draft.as_ref().map_or(0, |plan| plan.payload_bytes), global)
    }

    /// The same for an output of `payload` bytes.
    pub fn room_for(&self, place: &Place<'_>, payload: u64, global: &Global) -> Result<(), Failure> {
        let max_memory = self.resources.max_memory;
        let measuring = self.measuring(place.keep).map(|how| {
            measuring_memory::room(self.checkpoint, &how, &measurements_path(place.path), max_memory, global)
        });
        let measuring = measuring.transpose()?.unwrap_or_default();
        guard::space(place.path, measuring.needed(payload))
    }

    /// Why nothing is measured where that costs something: what is stored without loss could not be closer.
    pub fn uncalibrated(&self) -> Option<Why> {
        match self.calibrate {
            Calibrate::Without(why) if !self.draft.as_ref().is_some_and(Plan::is_lossless) => Some(why),
            _ => None,
        }
    }

    /// What is measured, less what is stored without loss whatever is measured; `None`: there is nothing to measure.
    pub fn measuring(&self, all: bool) -> Option<Measuring> {
        let Calibrate::Measure(how) = &self.calibrate else { return None };
        let certain = self.draft.as_ref().filter(|_| !all).map(Plan::certain).unwrap_or_default();
        let how = how.clone().leaving_out(certain, self.checkpoint);
        how.wants_some(self.checkpoint).then_some(how)
    }

    /// The stages from here on.
    pub fn stages(&self, all: bool, global: &Global) -> Result<Vec<Stage>, Failure> {
        let mut stages = vec![expected::grids(self.checkpoint, global)?];
        if let Some(how) = self.measuring(all) {
            stages.extend(expected::measuring(self.checkpoint, &how, global)?);
        }
        let calibrated = !matches!(self.calibrate, Calibrate::Without(_));
        match (&self.draft, self.recipe.target_kld) {
            (Some(plan), _) => stages.push(expected::coding(plan, calibrated, global)?),
            // How many files it takes is not known; each has a bar of its own.
            (None, Some(_)) => {}
            (None, None) => stages.push(Stage { name: "coding", unit: Unit::Bytes, total: 1, seconds: None }),
        }
        Ok(stages)
    }

    /// The measurements that codes are rounded by, read, taken up or made.
    pub fn measurements(
        &self,
        place: &Place<'_>,
        progress: &mut Progress,
        global: &Global,
    ) -> Result<Option<MeasurementsDir>, Failure> {
        let max_memory = self.resources.max_memory;
        let dir = measurements_path(place.path);
        // What an earlier command kept was measured for any size, and whatever takes its place stays as well.
        let found = || MeasurementsDir::open(&dir).is_ok_and(|found| !found.is_temporary());
        let keep = place.keep || (!place.restart && found());
        let how =
            self.measuring(place.keep).and_then(|how| if keep { self.measuring(true) } else { Some(how) });
        let measured = match (&self.calibrate, how) {
            (Calibrate::Measured | Calibrate::Without(_), _) => None,
            (Calibrate::Measure(_), None) => {
                global.output().note("every weight is stored without loss: nothing is measured");
                None
            }
            (Calibrate::Measure(_), Some(how)) => {
                if place.restart {
                    MeasurementsDir::discard(&dir)?;
                }
                let source = self.checkpoint;
                Some(measure::finished_or_measured(source, &how, &dir, keep, max_memory, progress, global)?)
            }
        };
        self.recipe.measurements(self.checkpoint, measured)
    }

    /// What becomes of the measurements, in a line.
    pub fn tidy(
        &self,
        measurements: Option<&MeasurementsDir>,
        place: &Place<'_>,
        command: &str,
    ) -> Result<String, Failure> {
        let (Calibrate::Measure(_), Some(measurements)) = (&self.calibrate, measurements) else {
            return Ok(String::new());
        };
        let dir = measurements_path(place.path);
        let dir = dir.display();
        if place.keep {
            measurements.set_temporary(false)?;
            return Ok(format!(
                "measurements kept: another size takes seconds with `{command} --measurements {dir} --size …`\n"
            ));
        }
        if !measurements.is_temporary() {
            // An earlier command left them for further sizes.
            return Ok(format!("measurements in {dir} stay: an earlier command kept some there\n"));
        }
        measurements.remove()?;
        Ok("measurements removed; --keep-measurements, or `gq calibrate`, leaves them for further sizes\n"
            .to_owned())
    }

    /// What the calibrated command would take here, where a large model was not calibrated.
    pub fn tell_calibrated(&self, why: Why, how: Measuring, global: &Global) -> Result<(), Failure> {
        if let (Why::Large(_), Some(plan)) = (why, &self.draft) {
            let stages = expected::calibrated(self.checkpoint, how, plan, global)?;
            if let Some(line) = progress::expectation(&stages) {
                global.output().note(&format!("that takes {line}"));
            }
        }
        Ok(())
    }
}

/// Plans without measurements and executes, with progress.
pub fn convert(
    checkpoint: &Checkpoint,
    policy: &Policy,
    resources: Resources,
    path: &Path,
    options: ExecuteOptions<'_>,
    global: &Global,
) -> Result<Report, Failure> {
    let grids = grids_shown(checkpoint, policy, resources, global)?;
    let measured = options.measurements.map(MeasurementsDir::value);
    let plan = gq_convert::plan_measured(checkpoint, policy, resources, measured, Some(&grids))?;
    guard::space(path, plan.payload_bytes)?;
    let output = global.output();
    let stages = vec![expected::coding(&plan, options.measurements.is_some(), global)?];
    let mut progress = Progress::staged(global, "convert", stages);
    let report = execute(checkpoint, &plan, path, options, &mut progress, global)?;
    progress.finish();
    outcome::notes(&plan, &grids, output);
    Ok(report)
}

/// Executes a plan, with progress in the stage of coding.
pub fn execute(
    checkpoint: &Checkpoint,
    plan: &Plan,
    path: &Path,
    options: ExecuteOptions<'_>,
    progress: &mut Progress,
    global: &Global,
) -> Result<Report, Failure> {
    let output = global.output();
    let report = gq_convert::execute(plan, checkpoint, path, options, &mut |event| match event {
        Event::Resumed { tensors } => {
            output.note(&format!("taking up an interrupted conversion: {tensors} tensors are done"));
        }
        Event::Advanced { bytes, tensor } => progress.stage("coding", bytes, plan.source_bytes, tensor),
        Event::Finished { .. } => {}
    })?;
    Ok(report)
}

/// Looks for grids that the weights already sit on, with progress in a stage of its own; what was found before is taken
/// from the cache.
pub fn grids(
    checkpoint: &Checkpoint,
    policy: &Policy,
    resources: Resources,
    progress: &mut Progress,
) -> Result<Grids, Failure> {
    let cache = GridCache::of(checkpoint, policy);
    if let Some(found) = cache.as_ref().and_then(GridCache::get) {
        return Ok(found);
    }
    let total = checkpoint.tensors().iter().map(|tensor| tensor.bytes).sum();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(resources.threads).build();
    let pool = pool.map_err(gq_convert::ConvertError::from)?;
    let mut seen = |bytes: u64, tensor: &str| progress.stage("grids", bytes, total, tensor);
    let found = pool.install(|| Grids::find(checkpoint, policy, &mut seen))?;
    if let Some(cache) = cache {
        cache.keep(&found);
    }
    Ok(found)
}

/// The same with a bar of its own.
pub fn grids_shown(
    checkpoint: &Checkpoint,
    policy: &Policy,
    resources: Resources,
    global: &Global,
) -> Result<Grids, Failure> {
    // Found before: that takes no time.
    if let Some(found) = GridCache::of(checkpoint, policy).as_ref().and_then(GridCache::get) {
        return Ok(found);
    }
    let bytes: u64 = checkpoint.tensors().iter().map(|tensor| tensor.bytes).sum();
    let stage = match policy.grids && bytes > UNTRIED {
        true => expected::grids(checkpoint, global)?,
        false => Stage { name: "grids", unit: Unit::Bytes, total: 1, seconds: None },
    };
    let mut progress = Progress::staged(global, "looking for grids", vec![stage]);
    let found = grids(checkpoint, policy, resources, &mut progress);
    progress.finish();
    found
}

/// `path.measurements`: measurements made for one conversion, kept until it is done.
pub fn measurements_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".measurements");
    PathBuf::from(name)
}
