//! Progress of long work: a bar on a terminal, a line now and then elsewhere.

use crate::eta::Eta;
use crate::global::{Global, ProgressMode};
use crate::output::{Output, terminal};
use crate::units;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes, shown as kB, MB, …
    Bytes,
    /// Things with this name, such as `windows`.
    Items(&'static str),
}

/// A stage of long work.
#[derive(Clone, Copy, Debug)]
pub struct Stage {
    /// What is done in it.
    pub name: &'static str,
    /// What is counted.
    pub unit: Unit,
    /// How much there is.
    pub total: u64,
    /// Seconds that it is expected to take here; `None`: nothing is known.
    pub seconds: Option<f64>,
}

/// Seconds between two plain lines.
const PLAIN: Duration = Duration::from_secs(5);

/// Length of a bar: it shows the part of the time that is over.
const LENGTH: u64 = 1000;

/// Progress of one piece of work, in stages.
pub struct Progress {
    label: &'static str,
    stages: Vec<Stage>,
    current: usize,
    position: u64,
    eta: Arc<Mutex<Eta>>,
    bar: Option<ProgressBar>,
    plain: Option<Output>,
    started: Instant,
    spoken: Instant,
}

impl Progress {
    /// Starts showing `label`, out of `total`, of which nothing is known before it has begun.
    pub fn new(mode: ProgressMode, output: Output, label: &'static str, unit: Unit, total: u64) -> Progress {
        Progress::show(mode, output, label, vec![Stage { name: "", unit, total, seconds: None }])
    }

    /// Starts showing work whose stages have rates of their own; says first what is expected of it.
    pub fn staged(global: &Global, label: &'static str, stages: Vec<Stage>) -> Progress {
        // Nobody waits for a second.
        let all: f64 = stages.iter().filter_map(|stage| stage.seconds).sum();
        if let Some(line) = expectation(&stages).filter(|_| all >= 1.0) {
            global.output().note(&format!("{label} takes {line}"));
        }
        Progress::show(global.progress, global.output(), label, stages)
    }

    fn show(mode: ProgressMode, output: Output, label: &'static str, stages: Vec<Stage>) -> Progress {
        let mode = match mode {
            _ if output.quiet => ProgressMode::None,
            ProgressMode::Auto if terminal() => ProgressMode::Bar,
            ProgressMode::Auto => ProgressMode::Plain,
            chosen => chosen,
        };
        let expected: Vec<Option<f64>> = stages.iter().map(|stage| stage.seconds).collect();
        let started = Instant::now();
        let eta = Arc::new(Mutex::new(Eta::new(&expected, 0.0)));
        let bar = (mode == ProgressMode::Bar).then(|| {
            let shared = eta.clone();
            let said = move |_: &ProgressState, out: &mut dyn Write| {
                let eta = shared.lock().unwrap_or_else(PoisonError::into_inner);
                // A terminal that cannot be written to is not ours to report.
                let _ = out.write_str(&left(eta.left(started.elapsed().as_secs_f64())));
            };
            let bar = ProgressBar::with_draw_target(Some(LENGTH), ProgressDrawTarget::stderr_with_hz(10));
            let template = "{prefix} {bar:30} {percent:>3} %  {left}  {wide_msg}";
            let style =
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.with_key("left", said).progress_chars("━╸ "));
            bar.set_prefix(label);
            bar.enable_steady_tick(Duration::from_millis(500));
            bar
        });
        let plain = (mode == ProgressMode::Plain).then_some(output);
        Progress { label, stages, current: 0, position: 0, eta, bar, plain, started, spoken: started }
    }

    /// Moves to `position` in the current stage; `item` says what is being worked on.
    pub fn set(&mut self, position: u64, item: &str) {
        self.position = position;
        let now = self.started.elapsed().as_secs_f64();
        let total = self.stages.get(self.current).map_or(1, |stage| stage.total).max(1);
        let share = {
            let mut eta = self.eta.lock().unwrap_or_else(PoisonError::into_inner);
            eta.set(self.current, position as f64 / total as f64, now);
            eta.share(now)
        };
        if let Some(bar) = &self.bar {
            bar.set_position((share * LENGTH as f64) as u64);
            bar.set_message(units::printable(&format!("{}  {item}", self.counted(now))));
        }
        if let Some(output) = self.plain.filter(|_| self.spoken.elapsed() >= PLAIN) {
            self.spoken = Instant::now();
            output.note(&self.line(now, share));
        }
    }

    /// Moves to `position` of `total` in a stage, by its name; those before it are over.
    pub fn stage(&mut self, name: &str, position: u64, total: u64, item: &str) {
        let own = |stage: &Stage| stage.name == name || stage.name.is_empty();
        let found = self.stages.iter().skip(self.current).position(own);
        if let Some(index) = found.map(|index| index + self.current) {
            self.current = index;
            self.stages[index].total = total;
        }
        self.set(position, item);
    }

    /// Changes what is expected of stages that have not begun; those that are not named are not needed. Says whether that
    /// makes a difference to whoever waits: a tenth of the time, and a second.
    pub fn revise(&mut self, stages: &[Stage]) -> bool {
        let all = |stages: &[Stage]| stages.iter().filter_map(|stage| stage.seconds).sum::<f64>();
        let (before, after) = (all(&self.stages), all(stages));
        let mut eta = self.eta.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, own) in self.stages.iter_mut().enumerate() {
            let found = stages.iter().find(|stage| stage.name == own.name);
            eta.expect(index, found.map_or(Some(0.0), |stage| stage.seconds));
        }
        (after - before).abs() > (0.1 * before).max(1.0)
    }

    /// Changes the total once it is known.
    pub fn set_total(&mut self, total: u64) {
        if let Some(stage) = self.stages.get_mut(self.current) {
            stage.total = total;
        }
    }

    /// Removes the bar and gives back the seconds the work took.
    pub fn finish(self) -> f64 {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.started.elapsed().as_secs_f64()
    }

    /// What is counted in the current stage, and its rate.
    fn counted(&self, now: f64) -> String {
        let Some(stage) = self.stages.get(self.current) else { return String::new() };
        let name = if stage.name.is_empty() { String::new() } else { format!("{} ", stage.name) };
        match stage.unit {
            Unit::Bytes => {
                format!("{name}{} of {}", units::bytes(self.position), units::bytes(stage.total))
            }
            Unit::Items(items) if self.stages.len() == 1 => {
                let rate = self.position as f64 / now.max(1e-9);
                format!("{name}{} of {} {items}, {rate:.2}/s", self.position, stage.total)
            }
            Unit::Items(items) => format!("{name}{} of {} {items}", self.position, stage.total),
        }
    }

    fn line(&self, now: f64, share: f64) -> String {
        let left = left(self.eta.lock().unwrap_or_else(PoisonError::into_inner).left(now));
        format!("{}: {:.0} %, {}, {left}", self.label, 100.0 * share, self.counted(now))
    }
}

/// The time left, in words.
fn left(seconds: Option<f64>) -> String {
    match seconds {
        None => "time left not known yet".to_owned(),
        Some(seconds) if seconds < 1.0 => "almost done".to_owned(),
        Some(seconds) => format!("{} left", units::rough_seconds(seconds)),
    }
}

/// What stages are expected to take, in all and by stage; `None` where of none it is known.
pub fn expectation(stages: &[Stage]) -> Option<String> {
    let known = || stages.iter().filter_map(|stage| stage.seconds);
    let all: f64 = known().sum();
    known().next()?;
    let part = |stage: &Stage| match stage.seconds {
        Some(seconds) if seconds < 0.5 => None,
        Some(seconds) => Some(format!("{} {}", stage.name, units::rough_seconds(seconds))),
        None => Some(format!("{} not estimated", stage.name)),
    };
    let parts: Vec<String> = stages.iter().filter_map(part).collect();
    // The machine was tried as busy as it is.
    let here = "on this machine at its present load";
    Some(match parts.len() {
        0 | 1 => format!("{} {here}", about(all)),
        _ => format!("{} {here} ({})", about(all), parts.join(", ")),
    })
}

/// `about 12 s`, `under a second`.
pub fn about(seconds: f64) -> String {
    match units::rough_seconds(seconds) {
        little if seconds < 1.0 => little,
        some => format!("about {some}"),
    }
}
