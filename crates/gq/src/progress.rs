//! Progress of long work: a bar on a terminal, a line now and then elsewhere.

use crate::output::{Output, terminal};
use crate::units;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::{Duration, Instant};

/// What `--progress` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ProgressMode {
    /// A bar on a terminal, plain lines elsewhere.
    Auto,
    /// A bar.
    Bar,
    /// A line every few seconds.
    Plain,
    /// Nothing.
    None,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes, shown as kB, MB, …
    Bytes,
    /// Things with this name, such as `windows`.
    Items(&'static str),
}

/// Progress of one piece of work.
pub struct Progress {
    label: &'static str,
    unit: Unit,
    total: u64,
    bar: Option<ProgressBar>,
    plain: Option<Output>,
    started: Instant,
    spoken: Instant,
    position: u64,
}

impl Progress {
    /// Starts showing `label`, out of `total`.
    pub fn new(mode: ProgressMode, output: Output, label: &'static str, unit: Unit, total: u64) -> Progress {
        let mode = match mode {
            _ if output.quiet => ProgressMode::None,
            ProgressMode::Auto if terminal() => ProgressMode::Bar,
            ProgressMode::Auto => ProgressMode::Plain,
            chosen => chosen,
        };
        let bar = (mode == ProgressMode::Bar).then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(10));
            let template = match unit {
                Unit::Bytes => {
                    "{prefix} {bar:30} {percent:>3} %  {decimal_bytes} of {decimal_total_bytes}  \
                     {decimal_bytes_per_sec}  {eta} left  {wide_msg}"
                }
                Unit::Items(_) => {
                    "{prefix} {bar:30} {percent:>3} %  {pos} of {len}  {per_sec}  {eta} left  {wide_msg}"
                }
            };
            let style =
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.progress_chars("━╸ "));
            bar.set_prefix(label);
            bar
        });
        let now = Instant::now();
        let plain = (mode == ProgressMode::Plain).then_some(output);
        Progress { label, unit, total, bar, plain, started: now, spoken: now, position: 0 }
    }

    /// Moves to `position`; `item` says what is being worked on.
    pub fn set(&mut self, position: u64, item: &str) {
        self.position = position;
        if let Some(bar) = &self.bar {
            bar.set_position(position);
            bar.set_message(units::printable(item));
        }
        if let Some(output) = self.plain.filter(|_| self.spoken.elapsed() >= Duration::from_secs(5)) {
            self.spoken = Instant::now();
            output.note(&self.line());
        }
    }

    /// Changes the total once it is known.
    pub fn set_total(&mut self, total: u64) {
        self.total = total;
        if let Some(bar) = &self.bar {
            bar.set_length(total);
        }
    }

    /// Removes the bar and gives back the seconds the work took.
    pub fn finish(self) -> f64 {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.started.elapsed().as_secs_f64()
    }

    fn line(&self) -> String {
        let elapsed = self.started.elapsed().as_secs_f64();
        let rate = self.position as f64 / elapsed.max(1e-9);
        let left = self.total.saturating_sub(self.position) as f64 / rate.max(1e-9);
        let percent = 100.0 * self.position as f64 / self.total.max(1) as f64;
        let (done, rate) = match self.unit {
            Unit::Bytes => (
                format!("{} of {}", units::bytes(self.position), units::bytes(self.total)),
                format!("{}/s", units::bytes(rate as u64)),
            ),
            Unit::Items(name) => {
                (format!("{} of {} {name}", self.position, self.total), format!("{rate:.2}/s"))
            }
        };
        format!("{}: {percent:.0} %, {done}, {rate}, {} left", self.label, units::seconds(left))
    }
}
