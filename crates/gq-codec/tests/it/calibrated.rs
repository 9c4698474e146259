//! Rounding with second moments in view: the factorization, the product under it, and what is gained.

use gq_codec::{ColumnCode, Factor, Operand, Parallelism, ProductShape, Strip, code_of, fixed_product};
use gq_tensor::{CodedRows, Encoding, Isa, MatrixShape, ScaleGroup, Storage};
use std::sync::Arc;

fn normal(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        ((z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB) >> 40) as f32 / (1u64 << 24) as f32
    };
    (0..n).map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0).collect()
}

fn columns(encoding: Encoding) -> Arc<dyn ColumnCode> {
    code_of(Storage::unrotated(encoding)).unwrap().columns().unwrap()
}

/// Second moments of inputs that share a few strong directions.
fn moments(n: usize) -> Vec<f32> {
    let (tokens, strong) = (6 * n, 8);
    let (z, mix, mut x) = (normal(tokens * strong, 1), normal(strong * n, 2), normal(tokens * n, 3));
    let level = Isa::detect();
    fixed_product(
        level,
        Parallelism::Threads,
        ProductShape { rows: tokens, cols: n, depth: strong },
        Operand::rows(&z, strong),
        Operand::rows(&mix, n),
        &mut x,
        n,
    );
    let mut h = vec![0.0; n * n];
    fixed_product(
        level,
        Parallelism::Threads,
        ProductShape { rows: n, cols: n, depth: tokens },
        Operand::rows(&x, n).t(),
        Operand::rows(&x, n),
        &mut h,
        n,
    );
    h
}

/// Rows whose errors cost the same.
fn plain(rotated: &[f32]) -> Strip<'_> {
    Strip { rotated, row_weights: None }
}

#[test]
fn the_product_is_one_chain_per_element_at_every_level_and_thread_count() {
    for (m, n, k) in [(1, 1, 1), (6, 16, 5), (7, 17, 300), (100, 33, 257), (13, 1030, 3)] {
        let (a, b, start) = (normal(m * k, 4), normal(k * n, 5), normal(m * n, 6));
        let mut expected = start.clone();
        for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
            let chain = (0..k).fold(start[i * n + j], |sum, l| a[i * k + l].mul_add(b[l * n + j], sum));
            expected[i * n + j] = chain;
        }
        for level in Isa::available() {
            for threads in [1, 2, 3] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let (mut c, mut alone) = (start.clone(), start.clone());
                let (a, b) = (Operand::rows(&a, k), Operand::rows(&b, n));
                pool.install(|| {
                    fixed_product(
                        level,
                        Parallelism::Threads,
                        ProductShape { rows: m, cols: n, depth: k },
                        a,
                        b,
                        &mut c,
                        n,
                    )
                });
                assert_eq!(c, expected, "{m} {n} {k} {level:?} {threads}");
                pool.install(|| {
                    let shape = ProductShape { rows: m, cols: n, depth: k };
                    fixed_product(level, Parallelism::Serial, shape, a, b, &mut alone, n)
                });
                assert_eq!(alone, expected, "{m} {n} {k} {level:?} {threads}, in one thread");
            }
        }
    }
}

#[test]
fn factors_multiply_back() {
    let n = 160;
    let h = moments(n);
    let factor = Factor::new(Isa::detect(), &h, n, 0.0).unwrap();
    assert_eq!(factor.damping(), 0.0);
    let (u, d) = (factor.upper(), factor.diagonal());
    for (i, j) in [(0, 0), (3, 150), (77, 78), (159, 159), (150, 3)] {
        let sum: f64 = (i.max(j)..n).map(|k| f64::from(u[i * n + k]) * d[k] * f64::from(u[j * n + k])).sum();
        let expected = f64::from(h[i * n + j]);
        assert!((sum - expected).abs() < 1e-4 * f64::from(h[0]), "{i} {j}: {sum} {expected}");
    }
}

#[test]
fn a_deficient_matrix_is_damped_until_it_factors_and_says_so() {
    let n = 64;
    let mut h = vec![0.0; n * n];
    h[0] = 1.0; // rank one
    let factor = Factor::new(Isa::detect(), &h, n, 0.0).unwrap();
    assert!(factor.damping() > 0.0);
    assert!(Factor::new(Isa::detect(), &vec![f32::NAN; n * n], n, 0.01).is_err());
    // No inputs at all: nothing to weigh, plain rounding.
    let none = Factor::new(Isa::detect(), &vec![0.0; n * n], n, 0.01).unwrap();
    assert_eq!(none.mean_feedback(), 0.0);
}

/// `sum e H e^T / sum w H w^T`.
fn proxy(h: &[f32], w: &[f32], decoded: &[f32], n: usize) -> f64 {
    let quadratic = |x: &[f32]| -> f64 {
        let rows = x.len() / n;
        let mut xh = vec![0.0; x.len()];
        let level = Isa::detect();
        fixed_product(
            level,
            Parallelism::Threads,
            ProductShape { rows, cols: n, depth: n },
            Operand::rows(x, n),
            Operand::rows(h, n),
            &mut xh,
            n,
        );
        xh.iter().zip(x).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let error: Vec<f32> = w.iter().zip(decoded).map(|(w, d)| w - d).collect();
    quadratic(&error) / quadratic(w)
}

#[test]
fn feedback_beats_nearest_rounding_in_the_metric_it_minimizes_with_the_same_bytes_at_every_level() {
    let (n, rows) = (160, 40);
    let h = moments(n);
    let w = normal(rows * n, 9);
    let factor = Factor::new(Isa::detect(), &h, n, 0.01).unwrap();
    let row = ScaleGroup::Row;
    for (bits, group) in
        [(2, row), (3, row), (4, row), (6, row), (8, row), (3, ScaleGroup::G32), (4, ScaleGroup::G32)]
    {
        let encoding = Encoding::Turbo { bits, group };
        let decode = |payload: &[u8]| {
            let shape = MatrixShape::new(rows, n);
            let matrix = CodedRows::of_payload(encoding, shape, payload).unwrap();
            let decoder = gq_codec::Decoder::new(Storage::unrotated(encoding), n).unwrap();
            let mut out = vec![0.0; rows * n];
            for (row, out) in out.chunks_mut(n).enumerate() {
                decoder.decode_row(Isa::Scalar, &matrix, row, out);
            }
            out
        };
        let split = rows * encoding.codes_row_bytes(n);
        let mut nearest = vec![0; encoding.payload_bytes(rows, n).unwrap() as usize];
        let encoder = gq_codec::Encoder::new(Storage::unrotated(encoding), n).unwrap();
        let (codes, scales) = nearest.split_at_mut(split);
        let scales = scales.chunks_mut(encoding.scales_row_bytes(n));
        for (row, (codes, scale)) in codes.chunks_mut(split / rows).zip(scales).enumerate() {
            let row = &w[row * n..(row + 1) * n];
            encoder.encode_row(Isa::Scalar, row, codes, scale, &mut Default::default());
        }
        let mut first: Option<Vec<u8>> = None;
        for level in Isa::available() {
            let mut payload = vec![0; nearest.len()];
            let (codes, scales) = payload.split_at_mut(split);
            let outcome =
                columns(encoding).encode(level, Parallelism::Threads, &factor, plain(&w), codes, scales);
            let measured = proxy(&h, &w, &decode(&payload), n);
            let told: f64 = outcome.errors.iter().sum::<f64>() / outcome.energies.iter().sum::<f64>();
            assert!(measured < 0.6 * proxy(&h, &w, &decode(&nearest), n), "{encoding:?}");
            // The report counts the damping as well; fp16 scales add a little.
            assert!(measured < 1.05 * told + 1e-6 && told < 3.0 * measured, "{bits}: {told} {measured}");
            assert!(first.get_or_insert_with(|| payload.clone()) == &payload, "{level:?}");
        }
    }
}

/// Fed back, such a value would be in every later column of its row; other rows never see it, and it is not hidden.
#[test]
fn a_row_with_a_value_that_is_not_finite_is_marked_and_others_stay() {
    let (n, rows) = (160, 16);
    let factor = Factor::new(Isa::detect(), &moments(n), n, 0.01).unwrap();
    let mut zeroed = normal(rows * n, 9);
    zeroed[5 * n..6 * n].fill(0.0);
    // Zeros have scales of 0, a broken row has none; otherwise they are the same.
    let marked = |mut scales: Vec<u8>, row_bytes: usize| {
        let row = &mut scales[5 * row_bytes..6 * row_bytes];
        let all = |scale: [u8; 2]| row.chunks(2).all(|x| x == scale);
        assert!(all([0, 0]) || all([0, 0x7E]), "{row:?}");
        let is_nan = all([0, 0x7E]);
        row.fill(0);
        (scales, is_nan)
    };
    let unmarked = |(codes, (scales, is_nan)): (Vec<u8>, (Vec<u8>, bool))| {
        assert!(!is_nan);
        (codes, scales)
    };
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut broken = zeroed.clone();
        broken[5 * n + 70] = value;
        for level in Isa::available() {
            for name in ["tq3-g32", "tt3"] {
                let encoding = Encoding::from_name(name).unwrap();
                let scales_row = encoding.scales_row_bytes(n);
                let coded = |w: &[f32]| {
                    let mut codes = vec![0; encoding.codes_bytes(rows, n).unwrap()];
                    let mut scales = vec![0; rows * scales_row];
                    columns(encoding).encode(
                        level,
                        Parallelism::Threads,
                        &factor,
                        plain(w),
                        &mut codes,
                        &mut scales,
                    );
                    (codes, marked(scales, scales_row))
                };
                let (codes, (scales, is_nan)) = coded(&broken);
                let same = (codes, scales) == unmarked(coded(&zeroed));
                assert!(is_nan && same, "{name}, {value} on {}", level.name());
            }
        }
    }
}
