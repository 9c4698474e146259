//! Evaluations as one page that needs nothing else: a table and plots, light or dark as the reader prefers.

use crate::plot::{COLORS, Mark, Plot, Scale, Series, escape};
use crate::report::EvalReport;
use std::fmt::Write;

const STYLE: &str = include_str!("page.css");
/// Most points of a line; longer ones are averaged.
const LINE_POINTS: usize = 128;

/// Rounding errors of a model's tensors, in the order of its file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TensorErrors {
    /// The model's name.
    pub model: String,
    /// Squared error over squared norm of each tensor; 0 where it is exact.
    pub relative_mse: Vec<f64>,
}

/// A page about models that were compared with one reference, in the order given.
pub fn render(reports: &[EvalReport]) -> String {
    render_with_tensors(reports, &[])
}

/// The same with the errors of the models' tensors, in the same order.
pub fn render_with_tensors(reports: &[EvalReport], tensors: &[TensorErrors]) -> String {
    let mut body = heading(reports);
    body.push_str(&table(reports));
    body.push_str("<div class=\"plots\">");
    for (title, caption, plot) in plots(reports).into_iter().chain(tensor_plot(tensors)) {
        let svg = plot.svg();
        if !svg.is_empty() {
            let (title, caption) = (escape(title), escape(&caption));
            let _ = write!(body, "<figure><h2>{title}</h2><figcaption>{caption}</figcaption>{svg}</figure>");
        }
    }
    body.push_str("</div>");
    body.push_str(&notes(reports));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{}</title><style>\n{STYLE}</style></head>\n<body><main>{body}</main></body></html>\n",
        escape(&title(reports))
    )
}

fn title(reports: &[EvalReport]) -> String {
    match reports {
        [only] => format!("Evaluation of {}", name(only, 0)),
        _ => format!("Evaluation of {} models", reports.len()),
    }
}

fn name(report: &EvalReport, index: usize) -> String {
    match report.names.model.as_str() {
        "" => format!("model {}", index + 1),
        name => name.to_owned(),
    }
}

fn heading(reports: &[EvalReport]) -> String {
    let mut lead = format!("<h1>{}</h1><p class=\"lead\">", escape(&title(reports)));
    if let Some(first) = reports.first() {
        let names = &first.names;
        if !names.reference.is_empty() {
            let _ = write!(lead, "Reference: <b>{}</b>. ", escape(&names.reference));
        }
        if !names.text.is_empty() {
            let _ = write!(lead, "Text: <b>{}</b>. ", escape(&names.text));
        }
        let (tokens, windows, ctx) =
            (count(first.tokens as u64), count(first.windows as u64), first.scored.ctx);
        let _ = write!(
            lead,
            "{tokens} positions scored, in {windows} window{} of {ctx} tokens.",
            if first.windows == 1 { "" } else { "s" }
        );
    }
    lead + "</p>"
}

fn table(reports: &[EvalReport]) -> String {
    let logits = reports.iter().any(|report| report.logits.is_some());
    let mut table = String::from(
        "<div class=\"scroll\"><table><thead><tr><th>Model</th><th>File</th><th>Body,<br>bits/weight</th>\
         <th>Perplexity</th><th>PPL ratio</th><th>KLD<br>mean</th><th>KLD<br>median</th><th>KLD<br>99 %</th>\
         <th>KLD<br>99.9 %</th><th>KLD<br>max</th><th>Same top<br>token</th><th>RMS \u{394}p</th>",
    );
    table.push_str(if logits {
        "<th>Logit error,<br>max</th></tr></thead><tbody>"
    } else {
        "</tr></thead><tbody>"
    });
    for (index, report) in reports.iter().enumerate() {
        let swatch =
            format!("<span class=\"swatch\" style=\"background:var(--series-{})\"></span>", index % COLORS);
        let _ = write!(table, "<tr><td>{swatch}{}</td>", escape(&name(report, index)));
        let (ppl, ratio) = match (report.ppl, report.ln_ratio) {
            (Some(ppl), Some(ratio)) => {
                let value = ratio.value.exp();
                (with_error(ppl.model, ppl.model_stderr), with_error(value, value * ratio.stderr))
            }
            _ => ("\u{2013}".to_owned(), "\u{2013}".to_owned()),
        };
        let cells = [
            bytes(report.bytes.file),
            format!("{:.3}", report.bpw.body),
            ppl,
            ratio,
            with_error(report.kld.mean, report.kld.stderr),
            digits(report.kld.median),
            digits(report.kld.p99),
            digits(report.kld.p999),
            digits(report.kld.max),
            percent(100.0 * report.top1, 100.0 * report.top1_stderr),
            format!("{:.2} %", 100.0 * report.rms_delta_p),
        ];
        table.extend(cells.iter().map(|cell| format!("<td>{cell}</td>")));
        if logits {
            let error = report.logits.map_or("\u{2013}".to_owned(), |logits| digits(logits.max_abs_error));
            let _ = write!(table, "<td>{error}</td>");
        }
        table.push_str("</tr>");
    }
    if let Some(noise) = reports.iter().find_map(|report| report.noise.as_ref()) {
        let kld = &noise.kld;
        let klds = [kld.median, kld.p99, kld.p999, kld.max].map(|kld| format!("<td>{}</td>", digits(kld)));
        let _ = write!(
            table,
            "<tr class=\"floor\"><td>noise floor</td><td></td><td></td><td></td><td></td><td>{}</td>{}\
             <td>{:.2} %</td><td></td>{}</tr>",
            with_error(kld.mean, kld.stderr),
            klds.concat(),
            100.0 * noise.top1,
            if logits { "<td></td>" } else { "" }
        );
    }
    table + "</tbody></table></div>"
}

/// Titles, captions and plots.
fn plots(reports: &[EvalReport]) -> Vec<(&'static str, String, Plot)> {
    let series = |mark: Mark, points: &dyn Fn(&EvalReport) -> Vec<(f64, f64)>| -> Vec<Series> {
        let one = |(index, report): (usize, &EvalReport)| {
            let points = points(report);
            Series { name: name(report, index), color: index, mark, points }
        };
        reports.iter().enumerate().map(one).collect()
    };
    let plot = |title: &str, x, y, series| Plot { title: title.to_owned(), x, y, series };
    let mut plots = Vec::new();
    if reports.len() > 1 {
        let points = |report: &EvalReport| vec![(report.bytes.file as f64 / 1e6, report.kld.mean)];
        let plot = plot(
            "Mean KL divergence against file size",
            ("file, MB", Scale::Linear),
            ("mean KLD, nats", Scale::Log),
            series(Mark::Dot, &points),
        );
        plots.push(("Size against divergence", "Further down and further left is better.".to_owned(), plot));
    }
    let counted = |report: &EvalReport| {
        let histogram = &report.kld_histogram;
        let edge = |bin: usize| 10f64.powf(histogram.first_log10 + histogram.step_log10 * bin as f64);
        let used = |&bin: &usize| histogram.counts.get(bin).is_some_and(|&n| n > 0);
        let bins = 0..histogram.counts.len();
        let (Some(first), Some(last)) = (bins.clone().find(used), bins.rev().find(used)) else {
            return Vec::new();
        };
        let share = |bin: usize| {
            100.0 * histogram.counts.get(bin).copied().unwrap_or(0) as f64 / report.tokens.max(1) as f64
        };
        let steps = (first..=last).map(|bin| (edge(bin), share(bin)));
        [(edge(first), 0.0)].into_iter().chain(steps).chain([(edge(last + 1), 0.0)]).collect()
    };
    plots.push((
        "Divergence of single positions",
        "Share of positions by KL divergence, in quarters of a decade.".to_owned(),
        plot(
            "Histogram",
            ("KLD, nats", Scale::Log),
            ("positions, %", Scale::Linear),
            series(Mark::Steps, &counted),
        ),
    ));
    let by_position = |report: &EvalReport| averaged(&report.kld_by_position, report.scored.begin);
    let width = reports.iter().map(|report| report.kld_by_position.len()).max().unwrap_or(0);
    plots.push((
        "Along the window",
        format!(
            "Mean over windows{}; a rise would mean that errors add up in the context.",
            per_point(width)
        ),
        plot(
            "KL divergence by position",
            ("position in the window", Scale::Count),
            ("mean KLD, nats", Scale::Log),
            series(Mark::Line, &by_position),
        ),
    ));
    if reports.iter().any(|report| report.windows > 1) {
        let by_window = |report: &EvalReport| averaged(&report.kld_by_window, 1);
        let width = reports.iter().map(|report| report.kld_by_window.len()).max().unwrap_or(0);
        plots.push((
            "Along the text",
            format!("Mean over the positions of a window{}.", per_point(width)),
            plot(
                "KL divergence by window",
                ("window", Scale::Count),
                ("mean KLD, nats", Scale::Log),
                series(Mark::Line, &by_window),
            ),
        ));
    }
    plots
}

/// Errors of tensors over their place in the file.
fn tensor_plot(tensors: &[TensorErrors]) -> Option<(&'static str, String, Plot)> {
    let one = |(color, model): (usize, &TensorErrors)| Series {
        name: model.model.clone(),
        color,
        mark: Mark::Points,
        points: (1..).map(f64::from).zip(model.relative_mse.iter().copied()).collect(),
    };
    let plot = Plot {
        title: "Relative error by tensor".to_owned(),
        x: ("tensor, in the order of the file", Scale::Count),
        y: ("squared error / squared norm", Scale::Log),
        series: tensors.iter().enumerate().map(one).collect(),
    };
    let caption =
        "Rounding error of each coded tensor; tensors that are kept exactly are left out.".to_owned();
    (!tensors.is_empty()).then_some(("Error of single tensors", caption, plot))
}

/// Values over their index, which begins at `first`; neighbors are averaged until few enough are left.
fn averaged(values: &[f64], first: usize) -> Vec<(f64, f64)> {
    let group = values.len().div_ceil(LINE_POINTS).max(1);
    let point = |(index, part): (usize, &[f64])| {
        let n = part.len() as f64;
        ((first + index * group) as f64 + (n - 1.0) / 2.0, part.iter().sum::<f64>() / n)
    };
    values.chunks(group).enumerate().map(point).collect()
}

fn per_point(values: usize) -> String {
    match values.div_ceil(LINE_POINTS) {
        0 | 1 => String::new(),
        group => format!(", {group} neighbors to a point"),
    }
}

fn notes(reports: &[EvalReport]) -> String {
    let mut notes = vec![
        "KLD is KL(reference \u{2016} model) of the next-token distributions in nats, per position; \u{394}p is the \
         change of the probability of the text\u{2019}s own next token. \u{b1} is one standard error; that of the ratio \
         is of paired differences."
            .to_owned(),
        "Divergences can be compared only between evaluations on the same text, windows and reference.".to_owned(),
    ];
    if let Some(ppl) = reports.first().and_then(|report| report.ppl) {
        let (value, error) = (digits(ppl.reference), digits(ppl.reference_stderr));
        notes.insert(0, format!("Perplexity of the reference: {value} \u{b1} {error}."));
    }
    if let Some(noise) = reports.iter().find_map(|report| report.noise.as_ref()) {
        notes.push(format!(
            "The noise floor is the reference compared with itself, run again with {}, on the first {} windows.",
            noise.arithmetic, noise.windows
        ));
    }
    for (index, report) in reports.iter().enumerate() {
        let computed = &report.computed;
        if computed.program.is_empty() {
            continue;
        }
        let mut note = format!(
            "{}: computed by {} with {} activations",
            name(report, index),
            computed.program,
            computed.activations
        );
        if !computed.device.is_empty() {
            let _ = write!(note, " on {}", computed.device);
        }
        if !computed.model_sha256.is_empty() {
            let _ = write!(note, ", sha256 {}", computed.model_sha256);
        }
        notes.push(note + ".");
    }
    let notes = notes.iter().map(|note| format!("<p>{}</p>", escape(note)));
    format!("<div class=\"notes\">{}</div>", notes.collect::<String>())
}

fn with_error(value: f64, error: f64) -> String {
    // Two digits of the error decide how many of the value mean something.
    let decimals = match error > 0.0 {
        true => (1 - error.log10().floor() as i32).clamp(0, 12) as usize,
        false => return digits(value),
    };
    match value.abs() < 1e-3 {
        true => format!("{} <small>\u{b1} {}</small>", digits(value), digits(error)),
        false => format!("{value:.decimals$} <small>\u{b1} {error:.decimals$}</small>"),
    }
}

/// The same with a unit, which belongs to the value: the error stands below.
fn percent(value: f64, error: f64) -> String {
    let text = with_error(value, error);
    match text.split_once(" <small>") {
        Some((value, error)) => format!("{value} % <small>{error}"),
        None => format!("{text} %"),
    }
}

/// Three significant digits.
fn digits(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size < 1e-4 => format!("{value:.1e}"),
        size => {
            let decimals = (2 - size.log10().floor() as i32).clamp(0, 6) as usize;
            format!("{value:.decimals$}")
        }
    }
}

fn bytes(bytes: u64) -> String {
    let value = bytes as f64;
    match bytes {
        0 => "\u{2013}".to_owned(),
        1..1_000_000 => format!("{:.1} kB", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} MB", value / 1e6),
        _ => format!("{:.2} GB", value / 1e9),
    }
}

/// Thousands set apart.
fn count(n: u64) -> String {
    let digits = n.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy);
    groups.collect::<Vec<_>>().join("\u{202f}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_in_a_table() {
        assert_eq!(with_error(41.366_283, 2.680_26), "41.4 <small>\u{b1} 2.7</small>");
        assert_eq!(with_error(0.007_778, 0.000_264_5), "0.00778 <small>\u{b1} 0.00026</small>");
        assert_eq!(percent(97.58, 1.39), "97.6 % <small>\u{b1} 1.4</small>");
        assert_eq!(with_error(1.0, 0.0), "1.00");
        assert_eq!((digits(2.5e-9), digits(0.0)), ("2.5e-9".to_owned(), "0".to_owned()));
        assert_eq!((bytes(1_920_347), bytes(999)), ("1.92 MB".to_owned(), "1.0 kB".to_owned()));
        assert_eq!((count(1_234_567), count(12)), ("1\u{202f}234\u{202f}567".to_owned(), "12".to_owned()));
    }

    #[test]
    fn long_lines_are_averaged_and_keep_their_mean() {
        let values: Vec<f64> = (0..512).map(f64::from).collect();
        let points = averaged(&values, 100);
        assert_eq!((points.len(), points[0]), (128, (101.5, 1.5)));
        assert_eq!(averaged(&[5.0, 7.0], 1), [(1.0, 5.0), (2.0, 7.0)]);
    }
}
