//! The operators in f64, by their formulas: what backends and gradients are held against.

use gq_checkpoint::{Activation, Curve, RopeSpec, Scoring};
use gq_model::{Attention, Linear, Matrix, Norm, Ops, Router};
use gq_tensor::Isa;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// A matrix `[rows, width]` in f64.
#[derive(Clone, Debug)]
pub struct MatrixF64 {
    /// Elements of a row.
    pub width: usize,
    /// All elements.
    pub data: Vec<f64>,
}

impl From<&Matrix> for MatrixF64 {
    fn from(x: &Matrix) -> MatrixF64 {
        MatrixF64 { width: x.width, data: wide(&x.data) }
    }
}

impl MatrixF64 {
    /// The same in f32.
    pub fn narrow(&self) -> Matrix {
        Matrix { width: self.width, data: self.data.iter().map(|&x| x as f32).collect() }
    }

    /// Its rows, in order.
    pub fn rows(&self) -> impl Iterator<Item = &[f64]> {
        self.data.chunks_exact(self.width)
    }

    fn map(mut self, f: impl Fn(f64) -> f64) -> MatrixF64 {
        self.data.iter_mut().for_each(|x| *x = f(*x));
        self
    }

    fn zip(mut self, other: &MatrixF64, f: impl Fn(f64, f64) -> f64) -> MatrixF64 {
        self.data.iter_mut().zip(&other.data).for_each(|(x, &y)| *x = f(*x, y));
        self
    }
}

/// One sequence from position 0.
#[derive(Debug, Default)]
pub struct ReferenceF64<'a> {
    /// The model's rotary embeddings.
    pub ropes: &'a [RopeSpec],
    /// Keys and values by layer.
    pub shared: BTreeMap<usize, (MatrixF64, MatrixF64)>,
    /// Added to the outputs of a product, by the weight's name, or of one expert's product; in units of each token's root
    /// mean square where a norm of them all comes right after.
    pub pushed: Option<(String, Option<usize>, Vec<f64>)>,
}

impl ReferenceF64<'_> {
    fn push(&self, weight: &Linear, expert: Option<usize>, y: &mut MatrixF64) {
        if let Some((_, _, push)) =
            self.pushed.as_ref().filter(|(name, which, _)| name == weight.name() && *which == expert)
        {
            assert_eq!(push.len(), y.data.len());
            for (y, push) in y.data.chunks_exact_mut(y.width).zip(push.chunks_exact(y.width)) {
                let size = |eps: f32| (dot(y, y) / y.len() as f64 + f64::from(eps)).sqrt();
                let unit = weight.normed().map_or(1.0, size);
                y.iter_mut().zip(push).for_each(|(y, d)| *y += unit * d);
            }
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

fn matrix(weight: &Linear, rows: Range<usize>) -> MatrixF64 {
    let mut out = vec![0.0; rows.len() * weight.shape().cols];
    weight.read_rows(Isa::detect(), rows, &mut out);
    MatrixF64 { width: weight.shape().cols, data: wide(&out) }
}

fn product(x: &MatrixF64, weight: &Linear, rows: Range<usize>) -> MatrixF64 {
    let (width, w) = (rows.len(), matrix(weight, rows));
    let data = x.rows().flat_map(|x| w.rows().map(move |w| dot(x, w))).collect();
    MatrixF64 { width, data }
}

fn activate(activation: Activation, gate: f64, up: f64) -> f64 {
    let limit = activation.limit.map_or(f64::INFINITY, f64::from);
    let (x, up) = (gate.min(limit), up.clamp(-limit, limit) + f64::from(activation.up_offset));
    let value = match activation.curve {
        Curve::Swish { alpha } => x / (1.0 + (-f64::from(alpha) * x).exp()),
        Curve::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
        Curve::Sigmoid => 1.0 / (1.0 + (-x).exp()),
    };
    value * up
}

/// The experts of one token, in their order, with their factors, by the formulas of the references: transformers'
/// `Glm4MoeTopkRouter` (sigmoid), `Qwen3MoeTopKRouter` (softmax), `GptOssTopKRouter` (softmax of the chosen), and Gemma 4's
/// factor for each expert.
pub fn chosen(scores: &[f64], router: &Router) -> Vec<(usize, f64)> {
    let spec = router.spec;
    let mut weights = scores.to_vec();
    match spec.scoring {
        Scoring::Softmax => softmax(&mut weights),
        Scoring::Sigmoid => weights.iter_mut().for_each(|x| *x = 1.0 / (1.0 + (-*x).exp())),
        Scoring::SoftmaxOfChosen => {}
    }
    let mut ranks = weights.clone();
    for (rank, &bias) in ranks.iter_mut().zip(router.selection_bias.iter().flatten()) {
        *rank += f64::from(bias);
    }
    let largest = |x: &[f64], count: usize| -> Vec<usize> {
        let mut order: Vec<usize> = (0..x.len()).collect();
        order.sort_by(|&a, &b| x[b].total_cmp(&x[a]));
        order[..count].to_vec()
    };
    if let Some(groups) = spec.groups {
        let size = ranks.len() / groups.count;
        let goodness: Vec<f64> = ranks
            .chunks(size)
            .map(|group| largest(group, groups.best).iter().map(|&expert| group[expert]).sum())
            .collect();
        let kept = largest(&goodness, groups.kept);
        for (expert, rank) in ranks.iter_mut().enumerate() {
            if !kept.contains(&(expert / size)) {
                *rank = f64::NEG_INFINITY;
            }
        }
    }
    let experts = largest(&ranks, spec.top_k);
    let mut factors: Vec<f64> = experts.iter().map(|&expert| weights[expert]).collect();
    if spec.scoring == Scoring::SoftmaxOfChosen {
        softmax(&mut factors);
    }
    let sum: f64 = factors.iter().sum();
    let own = |expert: usize| router.scales.as_ref().map_or(1.0, |scales| f64::from(scales[expert]));
    let factor = |(&expert, factor): (&usize, f64)| {
        let factor = if spec.renormalize { factor / (sum + 1e-20) } else { factor };
        (expert, factor * own(expert) * f64::from(spec.scale))
    };
    let mut chosen: Vec<_> = experts.iter().zip(factors).map(factor).collect();
    chosen.sort_by_key(|(expert, _)| *expert);
    chosen
}

/// Softmax in place.
pub fn softmax(scores: &mut [f64]) {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    scores.iter_mut().for_each(|x| *x = (*x - largest).exp());
    let sum: f64 = scores.iter().sum();
    scores.iter_mut().for_each(|x| *x /= sum);
}

impl Ops for ReferenceF64<'_> {
    type Value = MatrixF64;
    type Routes = Vec<Vec<(usize, f64)>>;

    fn embed(&mut self, table: &Linear, tokens: &[u32]) -> MatrixF64 {
        let rows = tokens.iter().flat_map(|&token| matrix(table, token as usize..token as usize + 1).data);
        MatrixF64 { width: table.shape().cols, data: rows.collect() }
    }

    fn linear<const N: usize>(&mut self, x: &MatrixF64, weights: [&Linear; N]) -> [MatrixF64; N] {
        weights.map(|weight| {
            let mut y = product(x, weight, 0..weight.shape().rows);
            if let Some(bias) = weight.bias() {
                let width = y.width;
                for row in y.data.chunks_exact_mut(width) {
                    row.iter_mut().zip(bias).for_each(|(y, &b)| *y += f64::from(b));
                }
            }
            self.push(weight, None, &mut y);
            y
        })
    }

    fn rms_norm(&mut self, x: &MatrixF64, norm: &Norm) -> MatrixF64 {
        let mut y = x.clone();
        for row in y.data.chunks_exact_mut(norm.width) {
            let r = 1.0 / (dot(row, row) / norm.width as f64 + f64::from(norm.eps)).sqrt();
            row.iter_mut().for_each(|x| *x *= r);
            if let Some(weight) = &norm.weight {
                row.iter_mut().zip(weight).for_each(|(x, &w)| *x *= f64::from(w));
            }
        }
        y
    }

    fn rope(&mut self, mut x: MatrixF64, rope: usize) -> MatrixF64 {
        let Some(spec) = self.ropes.get(rope) else { return x };
        let (width, factor) = (x.width, f64::from(spec.attention_factor));
        let frequencies = spec.frequencies(x.data.len() / width.max(1));
        for (position, row) in x.data.chunks_exact_mut(width).enumerate() {
            for head in row.chunks_exact_mut(spec.head_dim) {
                for (i, &frequency) in frequencies.iter().enumerate() {
                    let (sin, cos) = f64::from(position as f32 * frequency).sin_cos();
                    let (a, b) = (head[i], head[i + frequencies.len()]);
                    head[i] = factor * (a * cos - b * sin);
                    head[i + frequencies.len()] = factor * (b * cos + a * sin);
                }
            }
        }
        x
    }

    fn attention(
        &mut self,
        q: MatrixF64,
        new: Option<(MatrixF64, MatrixF64)>,
        cache: usize,
        layer: &Attention,
    ) -> MatrixF64 {
        let spec = &layer.spec;
        if let Some(new) = new {
            self.shared.insert(cache, new);
        }
        let (k, v) = &self.shared[&cache];
        let (dim, group) = (spec.head_dim, spec.heads / spec.kv_heads);
        let mut out = MatrixF64 { width: q.width, data: vec![0.0; q.data.len()] };
        for (position, (q, out)) in q.rows().zip(out.data.chunks_exact_mut(q.width)).enumerate() {
            let first = (position + 1).saturating_sub(spec.window.unwrap_or(usize::MAX));
            for head in 0..spec.heads {
                let part = |row: usize, x: &'_ MatrixF64| {
                    let at = row * x.width + head / group * dim;
                    x.data[at..at + dim].to_vec()
                };
                let q = &q[head * dim..(head + 1) * dim];
                let scale = f64::from(spec.scale) * growth(spec, position);
                let scores = (first..=position).map(|row| scale * dot(q, &part(row, k)));
                let mut scores: Vec<f64> = match spec.softcap.map(f64::from) {
                    Some(cap) => scores.map(|score| cap * (score / cap).tanh()).collect(),
                    None => scores.collect(),
                };
                // A sink is one more score, without a value.
                scores.extend(layer.sinks.iter().map(|sinks| f64::from(sinks[head])));
                softmax(&mut scores);
                for (row, p) in (first..=position).zip(scores) {
                    let out = &mut out[head * dim..(head + 1) * dim];
                    out.iter_mut().zip(part(row, v)).for_each(|(y, v)| *y += p * v);
                }
            }
        }
        out
    }

    fn gated(&mut self, activation: Activation, gate: MatrixF64, up: &MatrixF64) -> MatrixF64 {
        gate.zip(up, |gate, up| activate(activation, gate, up))
    }

    fn route(&mut self, scores: &MatrixF64, router: &Router) -> Vec<Vec<(usize, f64)>> {
        scores.rows().map(|scores| chosen(scores, router)).collect()
    }

    fn grouped_linear(
        &mut self,
        x: &MatrixF64,
        routes: &Vec<Vec<(usize, f64)>>,
        weight: &Linear,
    ) -> MatrixF64 {
        let experts: Vec<usize> = routes.iter().flatten().map(|(expert, _)| *expert).collect();
        let (rows_per_matrix, share) = (weight.shape().rows_each(), experts.len() / (x.data.len() / x.width));
        let mut out = MatrixF64 { width: rows_per_matrix, data: vec![0.0; experts.len() * rows_per_matrix] };
        for expert in experts.iter().copied().collect::<BTreeSet<_>>() {
            let places = || (0..experts.len()).filter(|&place| experts[place] == expert);
            let input = places().flat_map(|place| &x.data[place / share * x.width..][..x.width]);
            let input = MatrixF64 { width: x.width, data: input.copied().collect() };
            let mut part = product(&input, weight, expert * rows_per_matrix..(expert + 1) * rows_per_matrix);
            for row in part.data.chunks_exact_mut(rows_per_matrix) {
                let bias = weight.bias().into_iter().flatten().skip(expert * rows_per_matrix);
                row.iter_mut().zip(bias).for_each(|(y, &b)| *y += f64::from(b));
            }
            self.push(weight, Some(expert), &mut part);
            for (place, row) in places().zip(part.rows()) {
                out.data[place * rows_per_matrix..(place + 1) * rows_per_matrix].copy_from_slice(row);
            }
        }
        out
    }

    fn combine(&mut self, x: MatrixF64, routes: &Vec<Vec<(usize, f64)>>) -> MatrixF64 {
        let mut sum = MatrixF64 { width: x.width, data: vec![0.0; routes.len() * x.width] };
        let mut rows = x.rows();
        for (chosen, sum) in routes.iter().zip(sum.data.chunks_exact_mut(x.width)) {
            for ((_, factor), row) in chosen.iter().zip(&mut rows) {
                sum.iter_mut().zip(row).for_each(|(sum, y)| *sum += factor * y);
            }
        }
        sum
    }

    fn add(&mut self, x: MatrixF64, y: &MatrixF64) -> MatrixF64 {
        x.zip(y, |x, y| x + y)
    }

    fn scale(&mut self, x: MatrixF64, factor: f32) -> MatrixF64 {
        x.map(|x| x * f64::from(factor))
    }

    fn softcap(&mut self, x: MatrixF64, cap: f32) -> MatrixF64 {
        let cap = f64::from(cap);
        x.map(|x| cap * (x / cap).tanh())
    }

    fn rows(&mut self, x: MatrixF64, rows: Range<usize>) -> MatrixF64 {
        MatrixF64 { width: x.width, data: x.data[rows.start * x.width..rows.end * x.width].to_vec() }
    }

    fn columns(&mut self, x: &MatrixF64, columns: Range<usize>) -> MatrixF64 {
        MatrixF64 {
            width: columns.len(),
            data: x.rows().flat_map(|row| row[columns.clone()].to_vec()).collect(),
        }
    }
}

/// What queries at a position are multiplied by.
fn growth(spec: &gq_checkpoint::AttentionSpec, position: usize) -> f64 {
    let grown = |growth: gq_checkpoint::QueryGrowth| {
        1.0 + growth.beta * (1.0 + (position as f64 / growth.original_max_positions).floor()).ln()
    };
    spec.query_growth.map_or(1.0, grown)
}
