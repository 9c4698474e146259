//! Writes a GGUF whose types were chosen, and again where a type does not hold what it was chosen for.

use super::super::mix;
use super::types::Matrices;
use crate::export::Weights;
use crate::export::types::most;
use crate::failure::Failure;
use crate::options::recipe::MixBudget;
use crate::progress::Progress;
use gq_calibrate::Measurements;
use gq_checkpoint::gguf::{GgmlType, Value};
use gq_checkpoint::gguf_model::{Beyond, ExportError, ExportOptions, ExportPlan, ExportSource};
use gq_convert::{BlockCoder, ConvertError, TypeError, choose_types};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

/// What a file is planned from.
pub struct Mix<'a> {
    pub source: ExportSource<'a>,
    /// With F16 for every matrix that has a choice, and types of those that have none.
    pub options: ExportOptions,
    pub notes: Vec<(String, Value)>,
    pub budget: MixBudget,
    /// What each type loses, by canonical name.
    pub errors: BTreeMap<String, Vec<TypeError>>,
    pub sensitivities: &'a Measurements,
}

/// A written file.
pub struct Written {
    pub plan: ExportPlan,
    pub bytes: u64,
    pub widened: Vec<Beyond>,
}

impl Mix<'_> {
    /// The file before types are chosen: every matrix that has a choice in F16.
    pub fn draft(&self) -> Result<ExportPlan, Failure> {
        self.plan(&self.options)
    }

    fn plan(&self, options: &ExportOptions) -> Result<ExportPlan, Failure> {
        let mut plan = ExportPlan::new(self.source, options)?;
        for (key, value) in &self.notes {
            plan.set(key, value.clone())?;
        }
        Ok(plan)
    }

    /// The file with the types that the budget is best spent on; `held` are tensors whose types are decided.
    pub fn chosen(&self, held: &BTreeMap<String, GgmlType>) -> Result<ExportPlan, Failure> {
        let mut options = self.options.clone();
        options.overrides.extend(held.clone());
        let draft = self.plan(&options)?;
        let matrices = Matrices::of(&draft, &options.overrides);
        let limit = matrices.limit(self.budget)?;
        let tensors: Vec<_> = matrices.names().map(|name| matrices.options(name, &self.errors)).collect();
        let kinds = choose_types(&tensors, self.sensitivities, limit).map_err(mix::not_spent)?;
        options.kind = most(&kinds, |name| matrices.elements(name)).unwrap_or(options.kind);
        options.overrides.extend(kinds);
        self.plan(&options)
    }

    /// Writes the file; tensors that their types do not hold get wider ones, and the rest of the budget the others.
    pub fn write(
        &self,
        path: &Path,
        weights: &Weights,
        coder: &BlockCoder<'_>,
        progress: &RefCell<&mut Progress>,
    ) -> Result<Written, Failure> {
        let (mut held, mut widened): (BTreeMap<String, GgmlType>, Vec<Beyond>) = Default::default();
        loop {
            let plan = self.chosen(&held)?;
            let total = plan.file_bytes();
            let done = plan.write_coded(
                path,
                &mut |name, rows, out| Ok(weights.read_rows(name, rows, out)?),
                &mut |tensor, rows, values, out| {
                    if tensor.source.is_none() || tensor.new.shape.len() == 1 {
                        return Ok(false);
                    }
                    let count = rows.len().max(1);
                    let (cols, row_bytes) = (values.len() / count, out.len() / count);
                    let (mut done, mut rounded) = (0, true);
                    for (name, run) in tensor.source_rows(rows) {
                        let next = done + run.len();
                        let values = &values[done * cols..next * cols];
                        let out = &mut out[done * row_bytes..next * row_bytes];
                        rounded &= coder.round(name, tensor.new.kind, &[run], values, out)?;
                        done = next;
                    }
                    Ok(rounded)
                },
                &|done| progress.borrow_mut().stage("writing", done, total, ""),
            );
            match done {
                Ok(bytes) => return Ok(Written { plan, bytes, widened }),
                Err(ExportError::<ConvertError>::Beyond { tensors })
                    if tensors.iter().all(|beyond| !held.contains_key(&beyond.name)) =>
                {
                    held.extend(tensors.iter().map(|beyond| (beyond.name.clone(), beyond.holds)));
                    widened.extend(tensors);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}
