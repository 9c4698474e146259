//! The moments of one layer's inputs while they are collected.

use crate::Observation;
use crate::measurements::Moment;
use gq_checkpoint::{Checkpoint, Role};
use gq_tensor::Isa;
use std::collections::BTreeMap;

/// Which moment experts' gate and up projections are rounded by. Their down projections have one each in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExpertMoments {
    /// That of the tokens which chose the expert, joined with the layer's.
    #[default]
    Own,
    /// That of all tokens of the layer's experts: one for all.
    Layer,
}

impl ExpertMoments {
    /// Whether each expert has a moment for its inputs of a tensor of this role.
    pub(super) fn is_own(self, role: Role) -> bool {
        match role {
            Role::ExpertDown => true,
            Role::ExpertGateUp => self == ExpertMoments::Own,
            _ => false,
        }
    }
}

/// Moments of one layer's inputs.
pub(super) struct Collected {
    pub(super) inputs: BTreeMap<String, Pair>,
    /// Inputs of each tensor: one, or by expert.
    pub(super) tensors: BTreeMap<String, BTreeMap<usize, String>>,
    expert_moments: ExpertMoments,
}

/// Of tokens that decide, and of those held out.
pub(super) struct Pair {
    pub(super) train: Moment,
    pub(super) held: Moment,
}

impl Collected {
    pub(super) fn new(expert_moments: ExpertMoments) -> Collected {
        Collected { inputs: BTreeMap::new(), tensors: BTreeMap::new(), expert_moments }
    }

    pub(super) fn add(
        &mut self,
        checkpoint: &Checkpoint,
        level: Isa,
        wanted: &dyn Fn(&str) -> bool,
        held: bool,
        seen: &Observation<'_>,
    ) {
        let names = seen.weights.iter().map(|weight| weight.name());
        let names: Vec<&str> = names.filter(|name| wanted(name)).collect();
        let Some(first) = names.first() else { return };
        let own = |role| self.expert_moments.is_own(role);
        let expert = seen.expert.filter(|_| checkpoint.tensor(first).is_some_and(|tensor| own(tensor.role)));
        let input = match expert {
            Some(expert) => format!("{first}#{expert}"),
            None => (*first).to_owned(),
        };
        for name in &names {
            let inputs = self.tensors.entry((*name).to_owned()).or_default();
            inputs.insert(expert.unwrap_or(0), input.clone());
        }
        let n = seen.input.width;
        let new = || Pair { train: Moment::new(n), held: Moment::new(n) };
        let pair = self.inputs.entry(input).or_insert_with(new);
        let moment = if held { &mut pair.held } else { &mut pair.train };
        moment.add(level, &seen.weighed());
    }

    /// Experts see few tokens: each moment is that of its own tokens and, with little weight, the mean of all experts.
    pub(super) fn share_among_experts(&mut self, checkpoint: &Checkpoint) {
        // Experts that no token chose have the mean alone.
        for (name, inputs) in &mut self.tensors {
            let tensor = checkpoint.tensor(name).filter(|tensor| self.expert_moments.is_own(tensor.role));
            let Some(tensor) = tensor else { continue };
            for expert in 0..tensor.shape.first().copied().unwrap_or(0) {
                let input = inputs.entry(expert).or_insert_with(|| format!("{name}#{expert}")).clone();
                let new = || Pair { train: Moment::new(tensor.cols()), held: Moment::new(tensor.cols()) };
                self.inputs.entry(input).or_insert_with(new);
            }
        }
        for inputs in self.tensors.values().filter(|inputs| inputs.len() > 1) {
            let mut mean: Option<Pair> = None;
            for input in inputs.values() {
                let Some(pair) = self.inputs.get(input) else { continue };
                match &mut mean {
                    Some(mean) => {
                        mean.train.join(&pair.train);
                        mean.held.join(&pair.held);
                    }
                    None => mean = Some(Pair { train: pair.train.clone(), held: pair.held.clone() }),
                }
            }
            let Some(mean) = mean else { continue };
            for input in inputs.values() {
                if let Some(pair) = self.inputs.get_mut(input) {
                    blend(&mut pair.train, &mean.train);
                    blend(&mut pair.held, &mean.held);
                }
            }
        }
    }
}

/// Tokens of all experts that are joined to an expert's own, for each column (`scripts/trials/expert_moments.py`).
const JOINED: f64 = 1.0 / 16.0;

/// Adds `mean` with the weight of [`JOINED`] tokens for each column. The count of tokens stays the expert's own.
fn blend(moment: &mut Moment, mean: &Moment) {
    let (own, prior) = (moment.tokens as f64, JOINED * moment.n as f64);
    let factor = prior / mean.tokens.max(1) as f64;
    let scale = if own > 0.0 { own / (own + prior) } else { 1.0 / prior };
    for (x, &m) in moment.sum.iter_mut().zip(&mean.sum) {
        *x = ((f64::from(*x) + f64::from(m) * factor) * scale) as f32;
    }
    moment.tokens = moment.tokens.max(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    const N: usize = 64;

    /// So many tokens that are `value` everywhere.
    fn seen(tokens: usize, value: f32) -> Moment {
        let mut moment = Moment::new(N);
        let x = gq_model::Matrix { width: N, data: vec![value; tokens * N] };
        moment.add(Isa::detect(), &x);
        moment
    }

    /// Width 64: four tokens of the mean are joined. Of those that decide, one expert saw 6 of ones, another 2 of threes; of
    /// those held out, one 2 of twos and a third 2 of fours.
    #[test]
    fn experts_are_joined_with_their_mean() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/tiny/gemma4-moe");
        let checkpoint = Checkpoint::open(&path).unwrap();
        let is_gates = |tensor: &&gq_checkpoint::SourceTensor| tensor.role == Role::ExpertGateUp;
        let tensor = checkpoint.tensors().iter().find(is_gates).unwrap();
        let (name, experts) = (tensor.name.clone(), tensor.shape[0]);
        assert!(experts > 3 && tensor.cols() == N, "{experts} experts, {} columns", tensor.cols());
        let mut collected = Collected::new(ExpertMoments::Own);
        let none = || Moment::new(N);
        let pairs = [(seen(6, 1.0), seen(2, 2.0)), (seen(2, 3.0), none()), (none(), seen(2, 4.0))];
        for (expert, (train, held)) in pairs.into_iter().enumerate() {
            let input = format!("{name}#{expert}");
            collected.tensors.entry(name.clone()).or_default().insert(expert, input.clone());
            collected.inputs.insert(input, Pair { train, held });
        }
        collected.share_among_experts(&checkpoint);
        assert_eq!(collected.tensors[&name].len(), experts);
        // Means of the squares: (6 * 1 + 2 * 9) / 8 = 3 and (2 * 4 + 2 * 16) / 4 = 10.
        let expected = [(18.0 / 10.0, 48.0 / 6.0), (30.0 / 6.0, 10.0), (3.0, 72.0 / 6.0), (3.0, 10.0)];
        for (expert, (train, held)) in expected.into_iter().enumerate() {
            let pair = &collected.inputs[&format!("{name}#{expert}")];
            let tokens = [6, 2, 0, 0][expert];
            assert_eq!(pair.train.seen, tokens);
            for (moment, expected) in [(&pair.train, train), (&pair.held, held)] {
                let triangle = moment.triangle();
                assert!(triangle.iter().all(|x| (x - expected).abs() < 1e-5), "{expert}: {triangle:?}");
            }
        }
    }

    #[test]
    fn gates_have_moments_of_their_own_where_that_is_asked_for() {
        let own = |which: ExpertMoments| {
            [Role::ExpertDown, Role::ExpertGateUp, Role::Gate].map(|role| which.is_own(role))
        };
        assert_eq!(own(ExpertMoments::Own), [true, true, false]);
        assert_eq!(own(ExpertMoments::Layer), [true, false, false]);
    }
}
