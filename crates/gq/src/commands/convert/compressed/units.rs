//! Matrices of which engines make one product, and which codes a budget is spent on.

use super::super::mix;
use crate::export::safetensors::file_bytes;
use crate::export::{Weights, packed, rows_of};
use crate::failure::{Exit, Failure};
use crate::options::groups::GroupArgs;
use crate::options::recipe::MixBudget;
use gq_calibrate::Measurements;
use gq_checkpoint::{ModelSpec, Role};
use gq_codec::GroupCode;
use gq_convert::{Grouped, TypeError, TypeOption, TypedUnit, choose_types};
use std::collections::BTreeMap;

/// Most bytes of weights in one file.
pub const SHARD: u64 = 5_000_000_000;

/// Modules of a layer that vLLM makes one product of, so that they have one form; the others stand alone.
const TOGETHER: [(&str, &[&str], &[Role]); 4] = [
    ("self_attn", &["q_proj", "k_proj", "v_proj"], &[Role::Query, Role::Key, Role::Value]),
    ("self_attn", &["o_proj"], &[Role::Output]),
    ("mlp", &["gate_proj", "up_proj"], &[Role::Gate, Role::Up]),
    ("mlp", &["down_proj"], &[Role::Down]),
];

/// Matrices of a layer that have one form.
pub struct Unit {
    /// The layer's number.
    pub layer: usize,
    /// Which of [`TOGETHER`].
    kind: usize,
    /// Canonical names and shapes.
    pub tensors: Vec<(String, [usize; 2])>,
}

impl Unit {
    /// Names of modules in files, whether or not this layer has all of them.
    pub fn modules(&self) -> Vec<String> {
        let (parent, modules, _) = TOGETHER[self.kind];
        modules.iter().map(|module| format!("model.layers.{}.{parent}.{module}", self.layer)).collect()
    }

    fn weights(&self) -> u64 {
        self.tensors.iter().map(|(_, [rows, cols])| (rows * cols) as u64).sum()
    }

    /// Whether all of its matrices can be in a code.
    fn fits(&self, code: GroupCode) -> bool {
        self.tensors.iter().all(|(_, shape)| packed::is_packable(code, *shape))
    }

    /// Bytes in a form, without the tensors that say shapes.
    fn bytes(&self, form: Grouped) -> u64 {
        let bytes = |(name, shape): &(String, [usize; 2])| match form {
            Grouped::Codes(code) => {
                packed::entries(name, code, *shape).iter().map(packed::Entry::bytes).sum()
            }
            Grouped::Whole => 2 * (shape[0] * shape[1]) as u64,
        };
        self.tensors.iter().map(bytes).sum()
    }
}

/// A model's matrices.
pub struct Units {
    pub units: Vec<Unit>,
    /// Modules that are never coded, as files call them.
    pub whole: Vec<String>,
    /// Codes to choose from.
    pub codes: Vec<GroupCode>,
}

impl Units {
    /// The matrices of a model, and the codes that they may have.
    ///
    /// # Errors
    /// When the model has experts, when no matrix can be coded, or one cannot be in groups that were asked for; the nearest
    /// that works is named.
    pub fn of(weights: &Weights, asked: &GroupArgs) -> Result<Units, Failure> {
        let spec = &weights.spec;
        if spec.layers.iter().any(|layer| layer.moe.is_some()) {
            let message = "experts are not written for --format compressed-tensors: --format gguf and .gq files have them";
            let failure = Failure::new(Exit::Usage, "convert.format_family", message).at("--format");
            return Err(failure.limit("models without experts").actual("experts"));
        }
        if let Some(fused) = weights.tensors.iter().find_map(|tensor| spec.fused(&tensor.name)) {
            let message = format!(
                "{}: fused projections are not written for --format compressed-tensors: --format gguf and .gq files have them",
                fused.hub
            );
            let failure = Failure::new(Exit::Usage, "convert.format_family", message).at("--format");
            return Err(failure.limit("models with separate projections").actual("fused projections"));
        }
        let (mut units, mut whole): (Vec<Unit>, Vec<String>) = (Vec::new(), vec!["lm_head".to_owned()]);
        for tensor in weights.tensors.iter().filter(|tensor| tensor.shape.len() == 2) {
            let Some((declared, layer)) = spec.declaration(&tensor.name) else { continue };
            let kind = TOGETHER.iter().position(|(.., roles)| roles.contains(&declared.role));
            let (rows, cols) = rows_of(&tensor.shape);
            match (layer, kind) {
                (Some(layer), Some(kind)) => {
                    let unit = units.iter_mut().find(|unit| (unit.layer, unit.kind) == (layer, kind));
                    let named = (tensor.name.clone(), [rows, cols]);
                    match unit {
                        Some(unit) => unit.tensors.push(named),
                        None => units.push(Unit { layer, kind, tensors: vec![named] }),
                    }
                }
                _ if matches!(declared.role, Role::Embedding | Role::PerLayerTable | Role::Head) => {}
                _ => whole.extend(tensor.name.strip_suffix(".weight").map(str::to_owned)),
            }
        }
        let units = Units { units, whole, codes: asked.codes() };
        units.refuse(asked, spec)?;
        Ok(units)
    }

    fn refuse(&self, asked: &GroupArgs, spec: &ModelSpec) -> Result<(), Failure> {
        let fitting = |codes: &[GroupCode]| {
            self.units.iter().filter(|unit| codes.iter().any(|code| unit.fits(*code))).count()
        };
        let others = GroupArgs { group_size: Vec::new(), ..asked.clone() }.codes();
        if fitting(&others) == 0 {
            let message = format!(
                "no matrix has a width that groups of 32 divide (this model's is {}): --format gguf and .gq files take any",
                spec.hidden_size
            );
            let failure = Failure::new(Exit::Usage, "convert.format_width", message).at("--format");
            return Err(failure.limit("multiples of 32").actual(spec.hidden_size));
        }
        let without = self.units.iter().find(|unit| !self.codes.iter().any(|code| unit.fits(*code)));
        let Some((name, [_, cols])) =
            without.filter(|_| !asked.group_size.is_empty()).and_then(|unit| unit.tensors.first())
        else {
            return Ok(());
        };
        let best = [128, 64, 32].into_iter().max_by_key(|group| {
            let codes: Vec<_> = others.iter().copied().filter(|code| code.group() == *group).collect();
            (fitting(&codes), *group)
        });
        let (given, best) = (asked.sizes(), best.unwrap_or(32));
        let message = format!(
            "{name} has {cols} columns, which groups of {} do not divide: --group-size {best} works",
            given
        );
        let failure = Failure::new(Exit::Usage, "convert.group_size", message).at("--group-size");
        Err(failure.limit("a divisor of the columns").actual(cols).advise(format!("--group-size {best}")))
    }

    /// Canonical names of matrices that may be coded, with their elements.
    pub fn matrices(&self) -> impl Iterator<Item = (&str, u64)> {
        let tensors = self.units.iter().flat_map(|unit| &unit.tensors);
        tensors.map(|(name, [rows, cols])| (name.as_str(), (rows * cols) as u64))
    }

    /// Rows and columns of these matrices.
    pub fn shapes(&self) -> Vec<(usize, usize)> {
        let tensors = self.units.iter().flat_map(|unit| &unit.tensors);
        tensors.map(|(_, [rows, cols])| (*rows, *cols)).collect()
    }

    /// Forms that a unit may have.
    fn forms(&self, unit: &Unit) -> Vec<Grouped> {
        let codes = self.codes.iter().filter(|code| unit.fits(**code));
        codes.map(|code| Grouped::Codes(*code)).chain([Grouped::Whole]).collect()
    }

    /// Bytes of everything that has no choice, at most: headers are longest where matrices have the most parts.
    fn around(&self, weights: &Weights) -> u64 {
        let parts = |form: &Grouped| match form {
            Grouped::Codes(code) => 2 + usize::from(!code.is_symmetric()),
            Grouped::Whole => 1,
        };
        let longest = |unit: &Unit| self.forms(unit).into_iter().max_by_key(parts).unwrap_or(Grouped::Whole);
        let forms: Vec<_> = self.units.iter().map(longest).collect();
        let taken: u64 = self.units.iter().zip(&forms).map(|(unit, form)| unit.bytes(*form)).sum();
        let all = self.units.iter().zip(forms);
        let all = all.flat_map(|(unit, form)| unit.tensors.iter().map(move |(name, _)| (name.clone(), form)));
        // Offsets may have more digits in a larger file: two numbers of each of at most four parts.
        let digits = 16 * self.matrices().count() as u64;
        file_bytes(weights, &codes(&all.collect()), SHARD).saturating_sub(taken) + digits
    }

    /// Bytes of all files with weights at most, where matrices get `limit`.
    pub fn most(&self, weights: &Weights, limit: u64) -> u64 {
        let whole: u64 = self.units.iter().map(|unit| unit.bytes(Grouped::Whole)).sum();
        self.around(weights) + limit.min(whole)
    }

    /// Bytes that a budget leaves for matrices.
    ///
    /// # Errors
    /// When the smallest forms of all take more, with the least budget that they fit in.
    pub fn limit(&self, weights: &Weights, budget: MixBudget) -> Result<u64, Failure> {
        let (around, all) = (self.around(weights), self.units.iter().map(Unit::weights).sum());
        let smallest = |unit: &Unit| self.forms(unit).into_iter().map(|form| unit.bytes(form)).min();
        let least: u64 = self.units.iter().filter_map(smallest).sum();
        let limit = budget.for_matrices(all, around);
        match least <= limit {
            true => Ok(limit),
            false => Err(budget.too_small(limit, least, all, around)),
        }
    }

    /// The forms that a budget is best spent on, by canonical name; `errors` say what each loses.
    ///
    /// # Errors
    /// Those of [`limit`](Units::limit).
    pub fn chosen(
        &self,
        weights: &Weights,
        budget: MixBudget,
        errors: &BTreeMap<String, Vec<TypeError<Grouped>>>,
        sensitivities: &Measurements,
    ) -> Result<BTreeMap<String, Grouped>, Failure> {
        let error = |name: &str, form: Grouped| {
            let found = errors.get(name)?.iter().find(|found| found.kind == form)?;
            Some(found.error)
        };
        let units: Vec<_> = self
            .units
            .iter()
            .map(|unit| {
                let option = |form: Grouped| {
                    let errors =
                        unit.tensors.iter().map(|(name, _)| error(name, form)).collect::<Option<_>>()?;
                    Some(TypeOption { kind: form, bytes: unit.bytes(form), errors })
                };
                TypedUnit {
                    tensors: unit.tensors.iter().map(|(name, _)| name.clone()).collect(),
                    options: self.forms(unit).into_iter().filter_map(option).collect(),
                }
            })
            .collect();
        let limit = self.limit(weights, budget)?;
        choose_types(&units, sensitivities, limit).map_err(mix::not_spent)
    }
}

/// The matrices that are coded.
pub fn codes(forms: &BTreeMap<String, Grouped>) -> BTreeMap<String, GroupCode> {
    let coded = forms.iter().filter_map(|(name, form)| match form {
        Grouped::Codes(code) => Some((name.clone(), *code)),
        Grouped::Whole => None,
    });
    coded.collect()
}
