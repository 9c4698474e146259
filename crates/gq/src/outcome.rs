//! What a conversion came to, or will come to, as people read it.

use crate::output::Output;
use crate::table::Table;
use crate::units;
use gq_checkpoint::Role;
use gq_convert::{Grids, LeftOut, Lossless, Plan, Report, Step};
use std::collections::BTreeMap;
use std::path::Path;

/// What is said of a file that was made.
pub struct Made<'a> {
    /// What it is made of.
    pub report: &'a Report,
    /// Where it is, and its bytes.
    pub path: &'a Path,
    pub bytes: u64,
    /// Seconds that all of it took, measuring included.
    pub seconds: f64,
}

/// Tables, which are left out where little is to be said, and the line of the file.
pub fn summary(made: &Made<'_>, quiet: bool) -> String {
    let Made { report, path, bytes, seconds } = made;
    let line = format!(
        "{}: {} from {} in {}\n",
        path.display(),
        units::bytes(*bytes),
        units::bytes(report.source_bytes),
        units::seconds(*seconds),
    );
    if quiet {
        return line;
    }
    let groups = groups(report.tensors.iter().map(|t| Row {
        encoding: t.encoding.name(),
        role: &t.role,
        elements: t.shape.iter().product(),
        bytes: t.bytes,
        error: Some(t.relative_mse),
    }));
    format!("{groups}{}\n{line}", left_out(&report.left_out))
}

/// What is expected of the divergence, where something is.
pub fn expectation(plan: &Plan) -> Option<String> {
    let nats = plan.expected_divergence?;
    let by = match plan.corrected {
        true => "by trials",
        false => "predicted without trials",
    };
    Some(format!(
        "expected divergence from the original: {nats:.4} nats per token (KLD), {by}, on text like the calibration's; \
         how far other text diverges, `gq eval` measures\n"
    ))
}

/// One tensor in a table of groups.
pub struct Row<'a> {
    pub encoding: String,
    pub role: &'a str,
    pub elements: u64,
    pub bytes: u64,
    pub error: Option<f64>,
}

/// Tensors summed up by encoding and role, with the encodings of a role one below the other.
pub fn groups<'a>(rows: impl Iterator<Item = Row<'a>>) -> String {
    #[derive(Default)]
    struct Group {
        tensors: u64,
        elements: u64,
        bytes: u64,
        error: f64,
    }
    let mut order: Vec<(String, String)> = Vec::new();
    let mut groups: BTreeMap<(String, String), Group> = BTreeMap::new();
    let mut with_error = false;
    for row in rows {
        let key = (row.role.to_owned(), row.encoding);
        if !order.contains(&key) {
            order.push(key.clone());
        }
        let group = groups.entry(key).or_default();
        group.tensors += 1;
        group.elements += row.elements;
        group.bytes += row.bytes;
        group.error += row.error.unwrap_or(0.0) * row.elements as f64;
        with_error |= row.error.is_some();
    }
    let roles: Vec<String> = order.iter().map(|(role, _)| role.clone()).collect();
    order.sort_by_key(|(role, _)| roles.iter().position(|first| first == role));
    let mut titles = vec!["<tensors of", "<encoding", "count", "weights", "bytes", "bits/weight"];
    titles.extend(with_error.then_some("rel. MSE"));
    let mut table = Table::new(&titles);
    let mut line = |role: &str, encoding: &str, group: &Group| {
        let elements = group.elements.max(1) as f64;
        let mut cells = vec![
            role.to_owned(),
            encoding.to_owned(),
            units::count(group.tensors),
            units::count(group.elements),
            units::count(group.bytes),
            format!("{:.3}", 8.0 * group.bytes as f64 / elements),
        ];
        cells.extend(with_error.then(|| match group.error {
            0.0 => "exact".to_owned(),
            error => format!("{:.3e}", error / elements),
        }));
        table.row(cells);
    };
    let mut total = Group::default();
    for key in order {
        let group = &groups[&key];
        line(&key.0, &key.1, group);
        total.tensors += group.tensors;
        total.elements += group.elements;
        total.bytes += group.bytes;
        total.error += group.error;
    }
    line("all", "", &total);
    table.render()
}

/// A line for each reason.
pub fn left_out(sums: &[LeftOut]) -> String {
    let line = |sum: &LeftOut| {
        format!("left out: {} tensors ({}): {}\n", sum.tensors, units::bytes(sum.source_bytes), sum.reason)
    };
    sums.iter().map(line).collect()
}

/// What a user may want to know of a plan.
pub fn notes(plan: &Plan, grids: &Grids, output: Output) {
    note_exceptions(plan, output);
    lossless(plan, grids).iter().for_each(|line| output.note(line));
}

/// Whether a step belongs to what an option names.
type Part<'a> = &'a dyn Fn(&Step) -> bool;

/// What would be stored without loss at more bytes than were asked for, a sentence for each option.
pub fn lossless(plan: &Plan, grids: &Grids) -> Vec<String> {
    let projection = |step: &Step| step.role.starts_with("per_layer_") && step.body;
    let parts: [(&str, Part<'_>); 5] = [
        ("encoding", &|step| step.body && !projection(step)),
        ("embedding", &|step| step.role == Role::Embedding.name()),
        ("head", &|step| step.role == Role::Head.name()),
        ("per-layer-table", &|step| step.role == Role::PerLayerTable.name()),
        ("per-layer-projection", &projection),
    ];
    let told = parts.into_iter().filter_map(|(option, part)| Some((option, grids.lossless(plan, part)?)));
    let sentence = |(option, lossless): (&str, Lossless)| {
        let how = match lossless.all {
            true => format!("--{option} grid stores"),
            false => "--override 'NAME=grid' stores".to_owned(),
        };
        format!(
            "{} sit on a grid already: {how} them without loss, for {} more",
            match lossless.tensors {
                1 => "the weights of 1 tensor".to_owned(),
                tensors => format!("the weights of {tensors} tensors"),
            },
            units::bytes(lossless.more_bytes)
        )
    };
    told.map(sentence).collect()
}

/// Matrices that the recipe would code and that are kept exactly deserve a word.
pub fn note_exceptions(plan: &Plan, output: Output) {
    let kept = |step: &&Step| step.reason.starts_with("kept exactly: ") && step.shape.len() > 1;
    let mut reasons: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for step in plan.steps.iter().filter(kept).filter(|step| step.reason.contains("width")) {
        let (tensors, bytes) = reasons.entry(&step.reason).or_default();
        *tensors += 1;
        *bytes += step.bytes;
    }
    for (reason, (tensors, bytes)) in reasons {
        output.warn(&format!("{tensors} matrices ({}) are {reason}", units::bytes(bytes)));
    }
}

/// `[576, 1536]`.
pub fn shape(dims: &[u64]) -> String {
    let dims: Vec<String> = dims.iter().map(u64::to_string).collect();
    format!("[{}]", dims.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_stands_in_one_place() {
        let row = |role, encoding: &str| Row {
            encoding: encoding.to_owned(),
            role,
            elements: 8,
            bytes: 4,
            error: None,
        };
        let rows = [
            row("query", "tt4"),
            row("up", "tt3"),
            row("query", "tt5"),
            row("up", "tt3"),
            row("query", "tt4"),
        ];
        let table = groups(rows.into_iter());
        let first: Vec<Vec<&str>> =
            table.lines().skip(1).map(|line| line.split_whitespace().take(3).collect()).collect();
        let expected = [["query", "tt4", "2"], ["query", "tt5", "1"], ["up", "tt3", "2"], ["all", "5", "40"]];
        assert_eq!(first, expected, "{table}");
    }
}
