//! The pass against inference, gradients against differences in f64.

use crate::deterministic::{Deterministic, Gradients, Overlay, Place};
use crate::fisher::{draw, head, uniform};
use crate::pass::{Layers, Run, Walk, logits, rope_tables};
use crate::{CalibrationPass, Observation, fisher_diagonal};
use gq_model::{Linear, LogitRows, Matrix, Model, Norm, Ops, WeightId};
use gq_suite::{MatrixF64, ReferenceF64, tiny as model};
use gq_tensor::Isa;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const TINY: [&str; 14] = [
    "llama",
    "qwen2",
    "qwen3-moe",
    "qwen3-moe-mixed",
    "gpt-oss",
    "gpt-oss-resaved",
    "ministral3",
    "phi3",
    "phi3-long",
    "gemma3",
    "gemma4-e2b",
    "gemma4-e4b",
    "gemma4-moe",
    "gemma4-dense",
];

fn tokens(model: &Model, count: usize) -> Vec<u32> {
    (0..count).map(|i| (i * i * 7 + 3 * i + 5) as u32 % model.vocab_size() as u32).collect()
}

fn numbers(n: usize, seed: u64) -> Vec<f32> {
    (0..n as u64).map(|i| (uniform(seed, i) * 2.0 - 1.0) as f32).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

#[test]
fn the_pass_computes_what_inference_does() {
    for name in TINY {
        let model = model(name, Isa::detect());
        let tokens = tokens(&model, 40);
        let mut pass = CalibrationPass::new(&model, vec![tokens.clone()]).unwrap();
        let mut products = 0;
        while pass
            .next_layer(&mut |seen| {
                products += seen.weights.len();
                assert_eq!(seen.input.width, seen.weights[0].shape().cols);
            })
            .unwrap()
        {}
        assert!(products >= 5 * pass.layers(), "{name}: {products}");
        let hidden = pass.states.get(0).unwrap().x;
        let passed = logits(&model, &hidden, 0, Overlay::default());
        let (mut cache, mut inferred) = (model.new_cache(tokens.len()), Vec::new());
        model.forward(&tokens, &mut cache, LogitRows::All, &mut inferred).unwrap();
        let error = passed.data.iter().zip(&inferred).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(error < 5e-4, "{name}: {error:e}");
    }
}

#[test]
fn a_spilled_pass_observes_the_same_bits() {
    for name in TINY {
        let model = model(name, Isa::detect());
        let observed = |spilled: bool| {
            let sequences = vec![tokens(&model, 30), tokens(&model, 7), tokens(&model, 19)];
            let mut pass = CalibrationPass::new(&model, sequences).unwrap();
            if spilled {
                pass = pass.spilled_to(tempfile::tempfile().unwrap());
            }
            let mut bits: Vec<u32> = Vec::new();
            let mut observe = |seen: Observation<'_>| {
                bits.push(seen.sequence as u32);
                bits.extend(seen.input.data.iter().map(|x| x.to_bits()));
            };
            while pass.next_layer(&mut observe).unwrap() {
                assert!(!spilled || pass.states.held() == 0);
            }
            pass.head(&mut observe).unwrap();
            bits
        };
        assert!(observed(true) == observed(false), "{name}");
    }
}

#[test]
fn the_same_bits_on_every_level_and_thread_count() {
    for name in TINY {
        let run = |level: Isa, threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let model = model(name, level);
            let sequences = vec![tokens(&model, 37), tokens(&model, 5)];
            pool.install(|| fisher_diagonal(&model, &sequences, 3, &mut |_| ()).unwrap())
        };
        let first = run(Isa::detect(), 1);
        assert_eq!(first, run(Isa::detect(), 3), "{name}");
        for level in Isa::available() {
            assert_eq!(first, run(level, 2), "{name} on {}", level.name());
        }
        assert!(first.rows.values().flatten().all(|x| x.is_finite()), "{name}");
    }
}

fn size(x: &[f32]) -> f64 {
    dot(x, x).sqrt()
}

/// Derivatives of a random functional of the last residual stream, by what enters the first layer and by the
/// outputs of every product, next to differences of forward passes in f64.
#[test]
fn gradients_equal_finite_differences_in_f64() {
    for name in TINY {
        let model = model(name, Isa::detect());
        let tokens = tokens(&model, 24);
        let walk = Walk::new(&model, &tokens);
        let start = walk.start(Run::default());
        let (x, per_layer) = (start.x, start.vectors);
        let layers = Layers::forward(&walk, Overlay::default(), x.clone(), per_layer.clone());
        let functional = numbers(x.data.len(), 11);
        let given = Matrix { width: x.width, data: functional.clone() };
        let mut expected = BTreeSet::new();
        let mut pass = CalibrationPass::new(&model, vec![tokens.clone()]).unwrap();
        let mut note = |seen: Observation<'_>| {
            let layers = seen.weights.iter().filter(|weight| weight.name().contains(".layers."));
            expected.extend(layers.map(|weight| (weight.name().to_owned(), seen.expert)));
        };
        while pass.next_layer(&mut note).unwrap() {}
        let mut products: Vec<(String, Option<usize>, Vec<f32>)> = Vec::new();
        let mut seen = |weight: &Linear, place: Place, dy: &Matrix| {
            let expert = match place {
                Place::Expert(expert) => Some(expert),
                _ => None,
            };
            products.push((weight.name().to_owned(), expert, dy.data.clone()));
        };
        let (dx, _) = layers.backward(given, &mut seen, &mut Default::default());
        let vectors = per_layer.as_deref().map(MatrixF64::from);
        let run = |x: MatrixF64, pushed: Option<(String, Option<usize>, Vec<f64>)>| -> f64 {
            let mut ops = ReferenceF64 { ropes: &model.spec().ropes, pushed, ..ReferenceF64::default() };
            let layers = 0..model.graph().layers();
            let x = layers.fold(x, |x, layer| model.graph().layer(&mut ops, layer, x, vectors.as_ref()));
            x.data.iter().zip(&functional).map(|(x, &f)| x * f64::from(f)).sum()
        };
        let compare = |what: &str, gradient: &[f32], at: &dyn Fn(f64, &[f32]) -> f64| {
            let direction = numbers(gradient.len(), 100);
            let step = 1e-5;
            let difference = (at(step, &direction) - at(-step, &direction)) / (2.0 * step);
            let scale = size(gradient) * size(&direction) / (gradient.len() as f64).sqrt();
            let error = (dot(gradient, &direction) - difference).abs() / scale;
            // f32 has 6e-8 of a number, and a gradient passes some hundred sums.
            assert!(error < 5e-5, "{name}, {what}: {error:e}");
        };
        let x = MatrixF64::from(&*x);
        compare("residual", &dx.data, &|step, direction| {
            let mut x = x.clone();
            x.data.iter_mut().zip(direction).for_each(|(x, &d)| *x += step * f64::from(d));
            run(x, None)
        });
        let seen = products.iter().map(|(weight, expert, _)| (weight.clone(), *expert));
        assert_eq!(seen.collect::<BTreeSet<_>>(), expected, "{name}");
        for (weight, expert, dy) in &products {
            compare(&format!("{weight} {expert:?}"), dy, &|step, direction| {
                let push = direction.iter().map(|&d| step * f64::from(d)).collect();
                run(x.clone(), Some((weight.clone(), *expert, push)))
            });
        }
    }
}

#[test]
fn the_head_gives_the_gradient_of_drawn_labels() {
    for name in ["llama", "qwen2", "qwen3-moe", "qwen3-moe-mixed", "gemma4-e2b"] {
        let model = model(name, Isa::detect());
        let hidden = Arc::new(Matrix {
            width: model.spec().hidden_size,
            data: numbers(9 * model.spec().hidden_size, 5),
        });
        let dx = head(&model, &hidden, 77, &mut |_, _, _| ());
        let probabilities = |hidden: &MatrixF64| {
            let mut p = model.graph().logits(&mut ReferenceF64::default(), hidden);
            p.data.chunks_exact_mut(model.vocab_size()).for_each(gq_suite::softmax);
            p
        };
        let base = probabilities(&MatrixF64::from(&*hidden));
        let rows = base.rows().enumerate();
        let narrow = |p: &[f64]| p.iter().map(|&p| p as f32).collect::<Vec<_>>();
        let labels: Vec<_> = rows.map(|(row, p)| draw(&narrow(p), uniform(77, row as u64))).collect();
        let direction = numbers(hidden.data.len(), 6);
        let loss = |step: f64| {
            let mut hidden = MatrixF64::from(&*hidden);
            hidden.data.iter_mut().zip(&direction).for_each(|(x, &d)| *x += step * f64::from(d));
            probabilities(&hidden).rows().zip(&labels).map(|(p, &label)| -p[label].ln()).sum::<f64>()
        };
        let difference = (loss(1e-5) - loss(-1e-5)) / 2e-5;
        let error = (dot(&dx.data, &direction) - difference).abs();
        let scale = size(&dx.data) * size(&direction) / (direction.len() as f64).sqrt();
        assert!(error < 5e-5 * scale, "{name}: {error:e} of {scale:e}");
    }
}

/// What a norm divides is what is weighed: the flag is on exactly the products that a norm of all their outputs
/// follows, and their gradients are seen behind it.
#[test]
fn products_before_a_norm_are_known() {
    for (name, per_layer) in [("llama", 0), ("qwen2", 0), ("gemma3", 2), ("gemma4-e2b", 3), ("gemma4-moe", 2)]
    {
        let model = model(name, Isa::detect());
        let tokens = tokens(&model, 12);
        let ropes = rope_tables(&model, tokens.len());
        let (mut marked, mut followed) = (0, 0);
        for layer in 0..model.graph().layers() {
            let mut ops = Deterministic::new(Isa::detect(), &ropes);
            let start = model.graph().start(&mut ops, &tokens);
            ops.tape = Some(Default::default());
            model.graph().layer(&mut ops, layer, start.x, start.per_layer.as_ref());
            let tape = ops.tape.take().unwrap();
            (marked, followed) = (marked + tape.normed(), followed + tape.normed_and_followed());
        }
        assert_eq!(marked, per_layer * model.graph().layers(), "{name}");
        assert_eq!(marked, followed, "{name}");
    }
}

/// A token ten times as large is the same to a norm, so it must be the same to what is measured before one.
#[test]
fn tokens_weigh_alike_before_a_norm() {
    for name in ["gemma3", "gemma4-e2b", "gemma4-moe"] {
        let model = model(name, Isa::detect());
        let mut normed: Vec<(Linear, Matrix)> = Vec::new();
        let mut pass = CalibrationPass::new(&model, vec![tokens(&model, 12)]).unwrap();
        let mut keep = |seen: Observation<'_>| {
            if let ([weight], Some(_)) = (seen.weights, seen.sizes) {
                normed.push(((*weight).clone(), seen.weighed().into_owned()));
            }
        };
        while pass.next_layer(&mut keep).unwrap() {}
        assert!(!normed.is_empty(), "{name}");
        for (weight, input) in normed {
            // Every second token `factor` times as large.
            let run = |factor: f32| {
                let mut seen = Matrix::default();
                let mut observe = |observed: Observation<'_>| seen = observed.weighed().into_owned();
                let mut ops = Deterministic::new(Isa::detect(), &[]);
                ops.tape = Some(Default::default());
                ops.observer = Some(&mut observe);
                let mut x = input.clone();
                for row in x.data.chunks_exact_mut(input.width).step_by(2) {
                    row.iter_mut().for_each(|x| *x *= factor);
                }
                let x = ops.leaf(x);
                let [y] = ops.linear(&x, [&weight]);
                let width = y.matrix.width;
                let (id, eps) = (WeightId::unique(), weight.normed().unwrap());
                let norm = Norm { id, name: None, weight: None, width, eps };
                let z = ops.rms_norm(&y, &norm);
                let mut gradients = Gradients::default();
                gradients.add(z.id, Matrix { width, data: numbers(z.matrix.data.len(), 4) });
                let mut gradient = Matrix::default();
                ops.backward(&mut gradients, &mut |_, _, dy| gradient = dy.clone());
                drop(ops);
                (seen.data, gradient.data)
            };
            let (once, ten) = (run(1.0), run(10.0));
            let difference = |a: &[f32], b: &[f32]| {
                let apart: Vec<f32> = a.iter().zip(b).map(|(a, b)| a - b).collect();
                (dot(&apart, &apart) / dot(a, a)).sqrt()
            };
            let (inputs, gradients) = (difference(&once.0, &ten.0), difference(&once.1, &ten.1));
            assert!(inputs < 0.01 && gradients < 0.01, "{name} {}: {inputs} {gradients}", weight.name());
        }
    }
}

#[test]
fn labels_follow_their_probabilities() {
    let p = [0.1f32, 0.0, 0.6, 0.3];
    let mut counts = [0usize; 4];
    (0..20_000).for_each(|i| counts[draw(&p, uniform(1, i))] += 1);
    for (count, p) in counts.iter().zip(p) {
        let (mean, spread) = (20_000.0 * p, (20_000.0 * p * (1.0 - p)).sqrt());
        assert!((*count as f32 - mean).abs() <= 4.0 * spread, "{counts:?}");
    }
}

/// A device keeps its copies by these numbers.
#[test]
fn weights_have_ids_of_their_own() {
    for name in ["llama", "gemma4-moe"] {
        let model = model(name, Isa::detect());
        let mut names = BTreeMap::new();
        let mut ids = BTreeMap::new();
        let mut note = |seen: Observation<'_>| {
            for weight in seen.weights {
                assert_eq!(names.entry(weight.id()).or_insert(weight.name().to_owned()), weight.name());
                assert_eq!(*ids.entry(weight.name().to_owned()).or_insert(weight.id()), weight.id());
            }
        };
        let mut pass = CalibrationPass::new(&model, vec![vec![1, 2, 3]]).unwrap();
        while pass.next_layer(&mut note).unwrap() {}
        assert!(names.len() > 6 * pass.layers(), "{name}");
    }
}
