//! Plots as inline SVG: lines, steps and points over linear or logarithmic axes.
//!
//! Colors are CSS variables `--series-N` of the page, so that light and dark pages each have their own.

use std::fmt::Write;

/// Size of the drawing in its own units; the page scales it.
const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 300.0;
/// Left, right, top and bottom of the frame.
const FRAME: [f64; 4] = [64.0, 548.0, 12.0, 254.0];
/// Fewest labels wanted on an axis.
const TICKS: f64 = 4.0;
/// Colors of the page.
pub(crate) const COLORS: usize = 8;

/// How an axis runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    Linear,
    /// Linear, with labels at whole numbers.
    Count,
    Log,
}

/// How points are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Joined.
    Line,
    /// A step from each point's x to the next one's, filled below.
    Steps,
    /// A dot with its name next to it.
    Dot,
    /// Small points, one next to the other.
    Points,
}

/// Points of one color.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) color: usize,
    pub(crate) mark: Mark,
    pub(crate) points: Vec<(f64, f64)>,
}

/// A plot.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plot {
    /// What a screen reader says.
    pub(crate) title: String,
    pub(crate) x: (&'static str, Scale),
    pub(crate) y: (&'static str, Scale),
    pub(crate) series: Vec<Series>,
}

/// An axis with its range, in decimal logarithms where it is logarithmic, and its place in the drawing.
struct Axis {
    scale: Scale,
    range: (f64, f64),
    place: (f64, f64),
}

impl Plot {
    /// The drawing; empty when there is nothing to draw.
    pub(crate) fn svg(&self) -> String {
        let [left, right, top, bottom] = FRAME;
        let points = || self.series.iter().flat_map(|series| &series.points);
        let has = |mark: Mark| self.series.iter().any(|series| series.mark == mark);
        // Dots keep off the frame; filled steps stand on zero.
        let side = if has(Mark::Dot) { Floor::Loose } else { Floor::Tight };
        let floor = if has(Mark::Steps) { Floor::Zero } else { Floor::Loose };
        let x = Axis::new(self.x.1, points().map(|point| point.0), (left, right), side);
        let y = Axis::new(self.y.1, points().map(|point| point.1), (bottom, top), floor);
        let (Some(x), Some(y)) = (x, y) else { return String::new() };
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            escape(&self.title)
        );
        for (at, label) in y.ticks() {
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{left}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                left - 8.0,
                at + 4.0
            );
        }
        for (at, label) in x.ticks() {
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{top}\" y2=\"{bottom}\"/>\
                 <text class=\"tick\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
                bottom + 18.0
            );
        }
        let _ = write!(
            svg,
            "<line class=\"axis\" x1=\"{left}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>\
             <text class=\"label\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text class=\"label\" transform=\"translate(14 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            (left + right) / 2.0,
            HEIGHT - 8.0,
            escape(self.x.0),
            (top + bottom) / 2.0,
            escape(self.y.0)
        );
        for series in &self.series {
            series.draw(&x, &y, &mut svg);
        }
        svg.push_str("</svg>");
        svg
    }
}

impl Series {
    fn draw(&self, x: &Axis, y: &Axis, svg: &mut String) {
        let color = format!("var(--series-{})", self.color % COLORS);
        let places = self.points.iter().filter_map(|point| Some((x.place(point.0)?, y.place(point.1)?)));
        let places: Vec<(f64, f64)> = places.collect();
        let path = |step: fn(f64, f64) -> String| -> String {
            let start = places.first().map(|(x, y)| format!("M{x:.1} {y:.1}"));
            start.into_iter().chain(places.iter().skip(1).map(|&(x, y)| step(x, y))).collect()
        };
        let _ = match self.mark {
            Mark::Line => {
                let line = path(|x, y| format!("L{x:.1} {y:.1}"));
                write!(svg, "<path d=\"{line}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.6\"/>")
            }
            Mark::Steps => {
                let line = path(|x, y| format!("H{x:.1}V{y:.1}"));
                let (first, last) = (places.first().map_or(0.0, |p| p.0), places.last().map_or(0.0, |p| p.0));
                let bottom = FRAME[3];
                write!(
                    svg,
                    "<path d=\"{line}L{last:.1} {bottom}H{first:.1}Z\" fill=\"{color}\" fill-opacity=\"0.14\"/>\
                     <path d=\"{line}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.6\"/>"
                )
            }
            Mark::Points => places.iter().try_for_each(|(x, y)| {
                write!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2\" fill=\"{color}\"/>")
            }),
            Mark::Dot => places.iter().try_for_each(|(x, y)| {
                // Names stay inside the frame.
                let (dx, anchor) = if *x > 380.0 { (-9.0, "end") } else { (9.0, "start") };
                write!(
                    svg,
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.5\" fill=\"{color}\"/>\
                     <text class=\"name\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
                    x + dx,
                    y + 4.0,
                    escape(&self.name)
                )
            }),
        };
    }
}

/// Where an axis begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Floor {
    /// At the smallest value.
    Tight,
    /// A little below it.
    Loose,
    /// At zero.
    Zero,
}

impl Axis {
    fn new(scale: Scale, values: impl Iterator<Item = f64>, place: (f64, f64), floor: Floor) -> Option<Axis> {
        let values = values.filter_map(|value| scaled(scale, value));
        let range = values.fold(None, |range: Option<(f64, f64)>, value| {
            let (low, high) = range.unwrap_or((value, value));
            Some((low.min(value), high.max(value)))
        });
        let (low, high) = range?;
        let low = if floor == Floor::Zero && scale == Scale::Linear { low.min(0.0) } else { low };
        let margin = match high > low {
            true => 0.06 * (high - low),
            false => 0.5 * high.abs().max(1.0),
        };
        let range = match floor {
            Floor::Tight if high > low => (low, high),
            Floor::Zero => (low, high + margin),
            Floor::Tight | Floor::Loose => (low - margin, high + margin),
        };
        Some(Axis { scale, range, place })
    }

    fn place(&self, value: f64) -> Option<f64> {
        let (low, high) = self.range;
        let share = (scaled(self.scale, value)? - low) / (high - low);
        Some(self.place.0 + share * (self.place.1 - self.place.0))
    }

    /// Places and labels.
    fn ticks(&self) -> Vec<(f64, String)> {
        let (low, high) = self.range;
        let decades = low.ceil() as i32..=high.floor() as i32;
        let values: Vec<(f64, String)> = match self.scale {
            Scale::Log if decades.clone().count() >= 3 => {
                let step = (decades.clone().count() / 8 + 1) as i32;
                decades.filter(|k| k % step == 0).map(|k| (10f64.powi(k), power(k))).collect()
            }
            Scale::Log => {
                let (low, high) = (10f64.powf(low), 10f64.powf(high));
                let decades = self.range.0.floor() as i32..=self.range.1.ceil() as i32;
                let steps = decades.flat_map(|k| [1.0, 2.0, 5.0].map(|n| n * 10f64.powi(k)));
                let steps: Vec<f64> = steps.filter(|value| (low..=high).contains(value)).collect();
                // Over less than a decade, these may be none.
                let steps = if steps.len() < 3 { even_steps(low, high, 0.0) } else { steps };
                steps.into_iter().map(|value| (value, short(value))).collect()
            }
            Scale::Linear => {
                even_steps(low, high, 0.0).into_iter().map(|value| (value, short(value))).collect()
            }
            Scale::Count => {
                even_steps(low, high, 1.0).into_iter().map(|value| (value, short(value))).collect()
            }
        };
        let inside = |value: f64| {
            let at = scaled(self.scale, value)?;
            (at >= low - 1e-9 && at <= high + 1e-9).then(|| self.place(value)).flatten()
        };
        values.into_iter().filter_map(|(value, label)| Some((inside(value)?, label))).collect()
    }
}

/// Multiples of 1, 2 or 5 times a power of ten, at least `least` apart.
fn even_steps(low: f64, high: f64, least: f64) -> Vec<f64> {
    let rough = (high - low) / TICKS;
    let unit = 10f64.powf(rough.log10().floor());
    let step = [5.0, 2.0].into_iter().find(|n| n * unit <= rough).unwrap_or(1.0) * unit;
    let step = step.max(least);
    let (first, last) = ((low / step).ceil(), (high / step).floor());
    if last < first {
        return Vec::new();
    }
    (0..=(last - first) as usize).map(|i| (first + i as f64) * step).collect()
}

fn scaled(scale: Scale, value: f64) -> Option<f64> {
    let value = match scale {
        Scale::Linear | Scale::Count => value,
        Scale::Log => value.log10(),
    };
    value.is_finite().then_some(value)
}

/// A power of ten with its exponent raised.
fn power(exponent: i32) -> String {
    format!("10<tspan dy=\"-5\" font-size=\"9\">{}</tspan>", exponent.to_string().replace('-', "\u{2212}"))
}

/// A number in few digits.
pub(crate) fn short(value: f64) -> String {
    let text = match value.abs() {
        0.0 => "0".to_owned(),
        size if !(1e-4..1e6).contains(&size) => format!("{value:.0e}"),
        size => {
            let decimals = (2 - size.log10().floor() as i32).clamp(0, 6) as usize;
            let text = format!("{value:.decimals$}");
            match text.contains('.') {
                true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
                false => text,
            }
        }
    };
    text.replace('-', "\u{2212}")
}

/// Text that HTML takes as it is.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c if c.is_control() => escaped.push('\u{FFFD}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_text() {
        for (value, text) in [
            (0.0, "0"),
            (0.05, "0.05"),
            (-1.5, "\u{2212}1.5"),
            (200.0, "200"),
            (12_000.0, "12000"),
            (1e-9, "1e\u{2212}9"),
        ] {
            assert_eq!(short(value), text);
        }
        assert_eq!(escape("<a href=\"x\">&\u{1b}"), "&lt;a href=&quot;x&quot;&gt;&amp;\u{FFFD}");
    }

    #[test]
    fn ticks_lie_inside_and_are_few() {
        for (scale, low, high) in [
            (Scale::Linear, 256.0, 510.0),
            (Scale::Linear, 0.0, 0.037),
            (Scale::Linear, -3.0, 1e5),
            (Scale::Log, 1e-8, 1e2),
            (Scale::Log, 0.011, 0.019),
            (Scale::Log, 0.3, 4.0),
            (Scale::Log, 7.0, 7.0),
        ] {
            let axis = Axis::new(scale, [low, high].into_iter(), (0.0, 100.0), Floor::Loose).unwrap();
            let ticks = axis.ticks();
            assert!((1..=12).contains(&ticks.len()), "{low} {high}: {ticks:?}");
            assert!(ticks.iter().all(|(at, _)| (-1e-6..=100.000_001).contains(at)), "{ticks:?}");
        }
    }

    #[test]
    fn what_is_counted_has_whole_numbers() {
        for (low, high) in [(1.0, 2.0), (1.0, 3.0), (1.0, 1.0), (1.5, 40.5), (0.0, 511.0)] {
            let axis = Axis::new(Scale::Count, [low, high].into_iter(), (0.0, 100.0), Floor::Tight).unwrap();
            let ticks = axis.ticks();
            assert!((1..=12).contains(&ticks.len()), "{low} {high}: {ticks:?}");
            assert!(ticks.iter().all(|(_, label)| label.parse::<u32>().is_ok()), "{ticks:?}");
        }
    }

    #[test]
    fn nothing_to_draw_draws_nothing() {
        let mut plot =
            Plot { title: String::new(), x: ("x", Scale::Linear), y: ("y", Scale::Log), series: Vec::new() };
        assert_eq!(plot.svg(), "");
        let points = vec![(1.0, f64::NAN), (2.0, 0.0)];
        plot.series.push(Series { name: String::new(), color: 0, mark: Mark::Line, points });
        assert_eq!(plot.svg(), "");
    }
}
