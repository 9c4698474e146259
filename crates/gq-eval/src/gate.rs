//! Limits that an evaluation must keep, such as `kld=0.05`.

use crate::report::EvalReport;
use serde::Serialize;
use std::str::FromStr;

/// One limit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Gate {
    /// Figure that is limited, one of [`Gate::NAMES`].
    pub name: String,
    /// Largest value that passes; for `top1` the smallest.
    pub limit: f64,
}

/// A gate that is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("gate {actual:?} is not NAME=LIMIT with one of {}", Gate::NAMES.join(", "))]
pub struct GateError {
    /// The text given.
    pub actual: String,
}

impl Gate {
    /// Figures that can be limited.
    pub const NAMES: [&'static str; 10] = [
        "kld",
        "kld-median",
        "kld-p90",
        "kld-p99",
        "kld-p999",
        "kld-max",
        "ppl-ratio",
        "rms-delta-p",
        "top1",
        "logit-error",
    ];

    /// Reads a list such as `kld=0.05,ppl-ratio=1.02`.
    ///
    /// # Errors
    /// For the first entry that is not a gate; an empty list is one.
    pub fn parse_list(text: &str) -> Result<Vec<Gate>, GateError> {
        text.split(',').map(str::parse).collect()
    }

    /// The gates that `report` fails, in their order.
    pub fn failed<'a>(gates: &'a [Gate], report: &EvalReport) -> Vec<&'a Gate> {
        gates.iter().filter(|gate| !gate.passes(report)).collect()
    }

    /// The figure in `report`; `None` where it was not measured.
    pub fn actual(&self, report: &EvalReport) -> Option<f64> {
        match self.name.as_str() {
            "kld" => Some(report.kld.mean),
            "kld-median" => Some(report.kld.median),
            "kld-p90" => Some(report.kld.p90),
            "kld-p99" => Some(report.kld.p99),
            "kld-p999" => Some(report.kld.p999),
            "kld-max" => Some(report.kld.max),
            "ppl-ratio" => report.ln_ratio.map(|ln| ln.value.exp()),
            "rms-delta-p" => report.ppl.map(|_| report.rms_delta_p),
            "top1" => Some(report.top1),
            "logit-error" => report.logits.map(|l| l.max_abs_error),
            _ => None,
        }
    }

    /// Whether `report` keeps the limit; a figure that was not measured, or is no number, does not.
    pub fn passes(&self, report: &EvalReport) -> bool {
        self.actual(report).is_some_and(|actual| match self.name.as_str() {
            "top1" => actual >= self.limit,
            _ => actual <= self.limit,
        })
    }
}

impl FromStr for Gate {
    type Err = GateError;

    fn from_str(text: &str) -> Result<Gate, GateError> {
        let bad = || GateError { actual: text.to_owned() };
        let (name, limit) = text.split_once('=').ok_or_else(bad)?;
        let limit: f64 = limit.trim().parse().map_err(|_| bad())?;
        let name = name.trim();
        if !Gate::NAMES.contains(&name) || !limit.is_finite() {
            return Err(bad());
        }
        Ok(Gate { name: name.to_owned(), limit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parsed() {
        let gate = |name: &str, limit| Gate { name: name.to_owned(), limit };
        assert_eq!("kld=0.05".parse(), Ok(gate("kld", 0.05)));
        let list = Gate::parse_list("kld=0.05, ppl-ratio=1.02");
        assert_eq!(list, Ok(vec![gate("kld", 0.05), gate("ppl-ratio", 1.02)]));
        for bad in ["", "kld", "kld=", "kld=nan", "kld=inf", "KLD=1", "ppl=1", "=1", "kld=0.1,", "kld=1=2"] {
            assert!(Gate::parse_list(bad).is_err(), "{bad}");
        }
    }
}
