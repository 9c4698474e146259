//! Rows to integer codes in groups, with their inputs in view where those were measured.

use super::coder::TypeError;
use super::tried::{Importances, RowCode, Trials};
use crate::execute::ConvertError;
use gq_calibrate::MeasurementsDir;
use gq_checkpoint::Checkpoint;
use gq_codec::{GroupCode, GroupedRows, Metric, round_groups};
use gq_tensor::{DType, Isa};

/// Rounds matrices of a checkpoint to integer codes in groups.
pub struct GroupCoder<'a> {
    trials: Trials<'a>,
}

/// How a matrix is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grouped {
    /// In integer codes.
    Codes(GroupCode),
    /// In BF16.
    Whole,
}

impl RowCode for GroupCode {
    fn number(self) -> u32 {
        self.group() as u32 * 16 + u32::from(self.bits()) + u32::from(self.is_symmetric())
    }

    fn fits(self, cols: usize) -> bool {
        cols.is_multiple_of(self.group())
    }

    fn rounded(self, level: Isa, metric: Metric<'_>, rows: &[f32], _cols: usize) -> Vec<f32> {
        let mut decoded = vec![0.0; rows.len()];
        self.decode(&round_groups(level, self, metric, rows), &mut decoded);
        decoded
    }
}

impl<'a> GroupCoder<'a> {
    /// Without `measurements` all columns count the same.
    pub fn new(
        checkpoint: &'a Checkpoint,
        measurements: Option<&'a MeasurementsDir>,
        level: Isa,
    ) -> GroupCoder<'a> {
        GroupCoder { trials: Trials::new(checkpoint, measurements, level) }
    }

    /// The same with importances of columns, for tensors that were not measured.
    #[must_use]
    pub fn with_importances(self, importances: &'a Importances) -> GroupCoder<'a> {
        GroupCoder { trials: self.trials.with_importances(importances) }
    }

    /// What each of `codes` that a matrix's width allows loses of some of its rows, and what BF16 does.
    ///
    /// # Errors
    /// When weights or measurements cannot be read, or weights are no numbers.
    pub fn errors(&self, name: &str, codes: &[GroupCode]) -> Result<Vec<TypeError<Grouped>>, ConvertError> {
        let found = self.trials.errors(name, codes.iter().copied())?;
        let coded =
            found.codes.into_iter().map(|(code, error)| TypeError { kind: Grouped::Codes(code), error });
        let whole = found.halves.into_iter().filter(|(dtype, _)| *dtype == DType::BF16);
        Ok(coded.chain(whole.map(|(_, error)| TypeError { kind: Grouped::Whole, error })).collect())
    }

    /// Rounds whole rows `[_, cols]` of a matrix that has one input.
    ///
    /// # Errors
    /// When measurements cannot be read or factored.
    pub fn round(&self, name: &str, code: GroupCode, values: &[f32]) -> Result<GroupedRows, ConvertError> {
        let tensor = self.trials.tensor(name)?;
        self.trials.with_metric(code, tensor, 0, |level, metric| round_groups(level, code, metric, values))
    }
}
