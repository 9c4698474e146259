//! How long measuring and calibrated rounding take on a machine: operations counted from the model's shape, and a rate
//! that is tried for a moment. For people to plan by; nothing else depends on it.

use super::{Plan, Step};
use gq_checkpoint::{Checkpoint, Role, SourceTensor};
use gq_codec::{ColumnCode, Factor, Operand, Parallelism, ProductShape, Strip, code_of, fixed_product};
use gq_tensor::{Encoding, Isa, States, Storage};
use rayon::BroadcastContext;
use std::collections::BTreeSet;
use std::iter::Sum;
use std::ops::Add;
use std::sync::Arc;
use std::time::Instant;

/// Passes that gradients of a token cost: forward, and back through the activations alone.
const GRADIENT_PASSES: f64 = 2.3;
/// A moment is symmetric, and made in blocks: multiplications of a token by those of a full outer product.
const MOMENT: f64 = 0.4;
/// Multiplications of choosing a damping, by the cube of the width.
const DAMPING: f64 = 2.0;
/// The same of making one's factors, of which choosing takes several.
const FACTORS: f64 = 0.8;
/// Passes of all trials together, by the number of trials: their states are one until the first layer that differs.
const TRIAL_PASSES: f64 = 0.67;
/// Trials of a model with gradients: groups of roles by depth, and everything twice.
const TRIALS: f64 = 25.0;
/// The same without gradients: more depths.
const TRIALS_ALONE: f64 = 75.0;
/// What trials round to.
const TRIED: Encoding = Encoding::Trellis { bits: 3, states: States::S10 };
/// Passes that tuning scales and norms costs for each token: the original's, and the file's forward and back.
const TUNING_PASSES: f64 = 10.0;
/// Passes that rounding again costs for each token of its text.
const AGAIN_PASSES: f64 = 5.0;
/// Shape of the products that are tried: below a megabyte, which no promise of memory has to count.
const PROBE: ProductShape = ProductShape { rows: 96, cols: 384, depth: 384 };
/// Columns of the strip that each thread rounds to [`TRIED`], for the same reason.
const PROBE_COLUMNS: usize = 32;
/// The least number of products or strips that are timed, and the seconds for which more of them are. Threads that start
/// and processors that speed up make the first ones up to twice as slow: the fastest counts, unless something else runs.
const TIMES: usize = 5;
const SECONDS: f64 = 0.15;
/// Mean time of a product by that of the fastest from which on something else is taken to run: the mean counts then.
const LOADED: f64 = 1.25;

/// Multiplications: of matrices, and what searching for codes takes as long as.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Multiplications {
    /// Of matrices, in the fixed arithmetic.
    pub products: f64,
    /// Of searches for codes, as [`ColumnCode::multiplications`] counts them.
    pub codes: f64,
}

impl Add for Multiplications {
    type Output = Multiplications;

    fn add(self, other: Multiplications) -> Multiplications {
        Multiplications { products: self.products + other.products, codes: self.codes + other.codes }
    }
}

impl Sum for Multiplications {
    fn sum<I: Iterator<Item = Multiplications>>(all: I) -> Multiplications {
        all.fold(Multiplications::default(), Add::add)
    }
}

impl From<f64> for Multiplications {
    /// Of matrices alone.
    fn from(products: f64) -> Multiplications {
        Multiplications { products, codes: 0.0 }
    }
}

/// Multiplications of each kind that this machine does in a second at its present load, with all threads of a pool.
#[derive(Clone, Copy, Debug)]
pub struct Speed(Multiplications);

impl Speed {
    /// Tries products and codes for some tenths of a second on rayon's current pool.
    pub fn probe(level: Isa) -> Speed {
        let products = Speed::products(level);
        Speed(Multiplications { products, codes: Speed::codes(level).unwrap_or(products) })
    }

    fn codes(level: Isa) -> Option<f64> {
        let code = column_code(TRIED)?;
        let (n, rows) = (PROBE_COLUMNS, Encoding::STRIP_ROWS);
        let identity: Vec<f32> = (0..n * n).map(|i| f32::from(u8::from(i % (n + 1) == 0))).collect();
        let factor = Factor::new(level, &identity, n, 0.0).ok()?;
        let rotated: Vec<f32> = (0..rows * n).map(|i| ((i * 7919) % 1009) as f32 / 504.5 - 1.0).collect();
        let (codes, scales) = (TRIED.codes_bytes(rows, n)?, rows * TRIED.scales_row_bytes(n));
        let one = |_: BroadcastContext<'_>| {
            let (mut codes, mut scales) = (vec![0; codes], vec![0; scales]);
            let strip = Strip { rotated: &rotated, row_weights: None };
            code.encode(level, Parallelism::Serial, &factor, strip, &mut codes, &mut scales);
        };
        let seconds = timed(|| drop(rayon::broadcast(one)));
        let weights = (rayon::current_num_threads() * rows * n) as f64;
        Some(weights * code.multiplications() / seconds)
    }

    fn products(level: Isa) -> f64 {
        let ProductShape { rows: m, cols: n, depth: k } = PROBE;
        let a: Vec<f32> = (0..m * k).map(|i| ((i * 7919) % 1009) as f32 / 504.5 - 1.0).collect();
        let b: Vec<f32> = (0..k * n).map(|i| ((i * 104_729) % 1013) as f32 / 506.5 - 1.0).collect();
        let mut c = vec![0.0; m * n];
        let (a, b) = (Operand::rows(&a, k), Operand::rows(&b, n));
        let seconds = timed(|| fixed_product(level, Parallelism::Threads, PROBE, a, b, &mut c, n));
        (m * n * k) as f64 / seconds
    }

    /// Seconds that so many multiplications take.
    pub fn seconds(self, work: impl Into<Multiplications>) -> f64 {
        let work = work.into();
        work.products / self.0.products + work.codes / self.0.codes
    }
}

/// Seconds that something takes at the present load, tried for [`SECONDS`].
fn timed(mut once: impl FnMut()) -> f64 {
    let (began, mut seconds) = (Instant::now(), Vec::new());
    while seconds.len() < TIMES || began.elapsed().as_secs_f64() < SECONDS {
        let start = Instant::now();
        once();
        seconds.push(start.elapsed().as_secs_f64());
    }
    typical(&seconds).max(1e-9)
}

/// Seconds of a product at the present load, from those of several: the fastest, or the mean where that is much longer.
/// The first are left out of the mean.
fn typical(seconds: &[f64]) -> f64 {
    let fastest = seconds.iter().copied().fold(f64::INFINITY, f64::min);
    let later = seconds.get(TIMES - 1..).unwrap_or_default();
    let mean = later.iter().sum::<f64>() / later.len().max(1) as f64;
    if mean > LOADED * fastest { mean } else { fastest }
}

/// What a model costs, in multiplications.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Effort {
    /// Of a token through all layers and the head.
    pub pass: f64,
    /// The head's part of that.
    head: f64,
    /// Of a token's second moments at the inputs that are measured.
    moments: f64,
    /// Of choosing the dampings of these inputs.
    dampings: f64,
    /// Of rounding what is measured in layers once, to the trellis that is tried.
    pub rounding: Multiplications,
    /// Of rounding the rest: embedding and head.
    rounding_outside: Multiplications,
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amounts {
    /// Tokens of second moments.
    pub tokens: usize,
    /// Tokens of gradients.
    pub gradient_tokens: usize,
    /// Tokens of trials.
    pub trial_tokens: usize,
}

impl Effort {
    /// Of a checkpoint of which the tensors that `wanted` accepts are measured.
    pub fn new(checkpoint: &Checkpoint, wanted: &dyn Fn(&str) -> bool) -> Effort {
        let spec = checkpoint.spec();
        let (mut effort, mut inputs) = (Effort::default(), BTreeSet::new());
        for tensor in checkpoint.tensors().iter().filter(|tensor| is_product(tensor, spec.tied_head)) {
            let weights = (tensor.rows() * tensor.cols()) as f64;
            effort.pass += weights * active(tensor, checkpoint);
            if tensor.layer.is_none() {
                effort.head += weights;
            }
            if wanted(&tensor.name) {
                let own = of_code(TRIED, weights, tensor.cols()).unwrap_or_default();
                match tensor.layer {
                    Some(_) => effort.rounding = effort.rounding + own,
                    None => effort.rounding_outside = effort.rounding_outside + own,
                }
                inputs.insert((tensor.layer, input(tensor.role), tensor.cols()));
            }
        }
        for (_, input, cols) in inputs {
            let (n, experts) = (cols as f64, of_experts(input, checkpoint));
            effort.moments += MOMENT * n * n * if experts > 1.0 { top_k(checkpoint) } else { 1.0 };
            effort.dampings += DAMPING * n * n * n * experts;
        }
        let attention = spec.layers.iter().map(|layer| layer.attention.q_width() as f64 * 512.0);
        effort.pass += attention.sum::<f64>();
        effort
    }

    /// Multiplications of gradients, of layers with their moments, of trials in the layers, and of the heads' logits.
    pub fn measuring(&self, amounts: Amounts) -> [Multiplications; 4] {
        let [tokens, gradients, trials] =
            [amounts.tokens, amounts.gradient_tokens, amounts.trial_tokens].map(|n| n as f64);
        let streams = if gradients > 0.0 { TRIALS } else { TRIALS_ALONE };
        let layers = self.pass - self.head;
        let passes = trials * streams * TRIAL_PASSES * layers;
        let none = Multiplications::default();
        let (rounding, outside) =
            if trials > 0.0 { (self.rounding, self.rounding_outside) } else { (none, none) };
        [
            Multiplications::from(gradients * GRADIENT_PASSES * self.pass),
            Multiplications::from(tokens * (layers + self.moments) + self.dampings),
            rounding + passes.into(),
            outside + (trials * (streams + 1.0) * self.head).into(),
        ]
    }

    /// Multiplications of factoring every moment that is measured once.
    pub fn factoring(&self) -> f64 {
        FACTORS / DAMPING * self.dampings
    }

    /// Multiplications of tuning scales and norms on so many tokens.
    pub fn tuning_scales(&self, tokens: usize) -> f64 {
        tokens as f64 * TUNING_PASSES * self.pass
    }

    /// Multiplications of rounding again on so many tokens.
    pub fn rounding_again(&self, tokens: usize) -> Multiplications {
        let measured = tokens as f64 * (AGAIN_PASSES * self.pass + 3.0 * self.moments) + self.dampings;
        self.rounding + self.rounding_outside + measured.into()
    }

    /// Multiplications of a calibrated conversion to encodings like those of `plan`, in which what is not rounded counts
    /// for nothing.
    pub fn coding(plan: &Plan) -> Multiplications {
        let cost = |step: &Step| of_code(step.encoding, step.elements() as f64, step.matrix().cols);
        plan.steps.iter().filter_map(cost).sum()
    }
}

/// Multiplications of rounding so many weights with feedback over `cols` columns; `None` where there is none.
fn of_code(encoding: Encoding, weights: f64, cols: usize) -> Option<Multiplications> {
    let codes = weights * column_code(encoding)?.multiplications();
    Some(Multiplications { products: weights * cols as f64, codes })
}

fn column_code(encoding: Encoding) -> Option<Arc<dyn ColumnCode>> {
    code_of(Storage::unrotated(encoding)).ok()?.columns()
}

fn is_product(tensor: &SourceTensor, tied: bool) -> bool {
    let table = matches!(tensor.role, Role::PerLayerTable) || tensor.role == Role::Embedding && !tied;
    tensor.role.is_used() && tensor.shape.len() > 1 && !table
}

/// The part of a tensor that a token meets.
fn active(tensor: &SourceTensor, checkpoint: &Checkpoint) -> f64 {
    let layer = tensor.layer.and_then(|layer| checkpoint.spec().layers.get(layer));
    match (tensor.role, layer.and_then(|layer| layer.moe)) {
        (Role::ExpertGateUp | Role::ExpertDown, Some(moe)) => {
            moe.router.top_k as f64 / moe.experts.max(1) as f64
        }
        _ => 1.0,
    }
}

/// The first of the roles that share an input.
fn input(role: Role) -> &'static str {
    match role {
        Role::Query | Role::Key | Role::Value => "attention",
        Role::Gate | Role::Up => "mlp",
        other => other.name(),
    }
}

fn of_experts(input: &str, checkpoint: &Checkpoint) -> f64 {
    let experts = [Role::ExpertGateUp, Role::ExpertDown].map(Role::name).contains(&input);
    let moe = checkpoint.spec().layers.iter().find_map(|layer| layer.moe).filter(|_| experts);
    moe.map_or(1.0, |moe| moe.experts as f64)
}

fn top_k(checkpoint: &Checkpoint) -> f64 {
    checkpoint.spec().layers.iter().find_map(|layer| layer.moe).map_or(1.0, |moe| moe.router.top_k as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_load_counts_and_the_first_products_do_not() {
        assert_eq!(typical(&[2.0, 1.5, 1.2, 1.0, 1.0, 1.1, 1.0]), 1.0);
        // Half of the time something else runs.
        assert_eq!(typical(&[2.0, 2.0, 2.0, 2.0, 1.0, 3.0, 1.0, 3.0]), 2.0);
    }

    /// Two layers, 64 wide; counted by hand from `testdata/tiny/llama`.
    #[test]
    fn operations_are_counted_from_the_shape() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/tiny/llama");
        let checkpoint = Checkpoint::open(&dir).unwrap();
        let products = checkpoint.tensors().iter().filter(|tensor| tensor.shape.len() > 1);
        let all: usize = products.clone().map(|tensor| tensor.rows() * tensor.cols()).sum();
        let tables = products.filter(|tensor| tensor.role == Role::Embedding);
        let looked_up: usize = match checkpoint.spec().tied_head {
            true => 0,
            false => tables.map(|tensor| tensor.rows() * tensor.cols()).sum(),
        };
        let scores: usize =
            checkpoint.spec().layers.iter().map(|layer| layer.attention.q_width() * 512).sum();
        let whole = Effort::new(&checkpoint, &|_| true);
        assert_eq!(whole.pass, (all - looked_up + scores) as f64);
        // What is not measured costs no moments; all of it passes through the model.
        let none = Effort::new(&checkpoint, &|_| false);
        assert_eq!((none.pass, none.moments, none.dampings), (whole.pass, 0.0, 0.0));
        assert_eq!([none.rounding, none.rounding_outside], [Multiplications::default(); 2]);
        // What is measured is rounded once, with a search for each code and the feedback of the columns before it.
        let rounded = whole.rounding + whole.rounding_outside;
        let weights = (all - looked_up) as f64;
        assert_eq!(rounded.codes, weights * column_code(TRIED).unwrap().multiplications());
        let amounts = |tokens| Amounts { tokens, gradient_tokens: 512, trial_tokens: 512 };
        let [gradients, layers, trials, logits] = whole.measuring(amounts(4096));
        let twice = whole.measuring(amounts(8192));
        assert_eq!([gradients, trials, logits], [twice[0], twice[2], twice[3]]);
        let ratio = twice[1].products / layers.products;
        assert!((1.9..=2.0).contains(&ratio), "{layers:?} {twice:?}");
        assert!(none.measuring(amounts(4096))[1].products < layers.products);
        let untried = Amounts { trial_tokens: 0, ..amounts(4096) };
        assert_eq!(whole.measuring(untried)[2..], [Multiplications::default(); 2]);
        // A machine of twice the speed takes half of the time.
        let speed = |products, codes| Speed(Multiplications { products, codes });
        assert_eq!(speed(2e9, 1e9).seconds(1e9), 0.5 * speed(1e9, 1e9).seconds(1e9));
        assert_eq!(speed(2e9, 4e9).seconds(Multiplications { products: 4e9, codes: 4e9 }), 3.0);
    }
}
