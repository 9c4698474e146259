//! Matrix products of f32 views: the one call of the `gemm` crate, whose interface is raw pointers, and products of
//! deterministic arithmetic of the same views.

use gemm::gemm;
use gq_codec::{Operand, Parallelism, ProductShape, fixed_product};
use gq_tensor::Isa;

/// A borrowed matrix: `rows` rows of `cols` elements, `stride` apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    stride: usize,
}

impl<'a> View<'a> {
    /// # Panics
    /// When the rows do not lie within `data` or overlap.
    pub(crate) fn new(data: &'a [f32], rows: usize, cols: usize, stride: usize) -> View<'a> {
        assert!(fits(data.len(), rows, cols, stride), "view of {rows} x {cols} in {}", data.len());
        View { data, rows, cols, stride }
    }

    fn operand(&self) -> Operand<'a> {
        Operand::rows(self.data, self.stride)
    }
}

/// A matrix to write to.
#[derive(Debug)]
pub(crate) struct ViewMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    cols: usize,
    stride: usize,
}

impl<'a> ViewMut<'a> {
    /// # Panics
    /// When the rows do not lie within `data` or overlap.
    pub(crate) fn new(data: &'a mut [f32], rows: usize, cols: usize, stride: usize) -> ViewMut<'a> {
        assert!(fits(data.len(), rows, cols, stride), "view of {rows} x {cols} in {}", data.len());
        ViewMut { data, rows, cols, stride }
    }
}

fn fits(len: usize, rows: usize, cols: usize, stride: usize) -> bool {
    let last = rows.checked_sub(1).and_then(|last| last.checked_mul(stride)?.checked_add(cols));
    cols <= stride && last.is_none_or(|end| end <= len)
}

/// In what order sums are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    /// As this machine is fastest, spread so over threads.
    Fastest(Parallelism),
    /// The same everywhere ([`fixed_product`]).
    Deterministic(Isa, Parallelism),
}

/// `y[i, j] = sum over k of x[i, k] w[j, k]`: activations `x [n, k]` and weights `w [m, k]` to `y [n, m]`.
///
/// # Panics
/// When the shapes do not fit.
pub(crate) fn multiply_transposed(x: View<'_>, w: View<'_>, y: ViewMut<'_>, arithmetic: Arithmetic) {
    assert_eq!((x.cols, x.rows, w.rows), (w.cols, y.rows, y.cols), "shapes of the product");
    let (ws, xs) = (w.stride as isize, x.stride as isize);
    match arithmetic {
        Arithmetic::Fastest(parallelism) => call(y, w.data, (1, ws), x.data, (xs, 1), w.cols, parallelism),
        Arithmetic::Deterministic(level, parallelism) => {
            deterministic(level, parallelism, y, x.operand(), w.operand().t(), w.cols)
        }
    }
}

/// `y[i, j] = sum over k of p[i, k] v[k, j]`: weights of positions `p [n, k]` and values `v [k, m]` to `y [n, m]`.
///
/// # Panics
/// When the shapes do not fit.
pub(crate) fn multiply(p: View<'_>, v: View<'_>, y: ViewMut<'_>, arithmetic: Arithmetic) {
    assert_eq!((p.cols, p.rows, v.cols), (v.rows, y.rows, y.cols), "shapes of the product");
    let (vs, ps) = (v.stride as isize, p.stride as isize);
    match arithmetic {
        Arithmetic::Fastest(parallelism) => call(y, v.data, (vs, 1), p.data, (ps, 1), v.rows, parallelism),
        Arithmetic::Deterministic(level, parallelism) => {
            deterministic(level, parallelism, y, p.operand(), v.operand(), v.rows)
        }
    }
}

fn deterministic(
    level: Isa,
    parallelism: Parallelism,
    y: ViewMut<'_>,
    a: Operand<'_>,
    b: Operand<'_>,
    k: usize,
) {
    for row in y.data.chunks_mut(y.stride.max(1)).take(y.rows) {
        row[..y.cols].fill(0.0);
    }
    fixed_product(
        level,
        parallelism,
        ProductShape { rows: y.rows, cols: y.cols, depth: k },
        a,
        b,
        y.data,
        y.stride,
    );
}

/// `y^T = left right`, with `left [y.cols, k]` and `right [k, y.rows]` and their (column, row) strides.
#[allow(unsafe_code)]
fn call(
    y: ViewMut<'_>,
    left: &[f32],
    left_strides: (isize, isize),
    right: &[f32],
    right_strides: (isize, isize),
    k: usize,
    parallelism: Parallelism,
) {
    let parallelism = match parallelism {
        Parallelism::Serial => gemm::Parallelism::None,
        Parallelism::Threads => gemm::Parallelism::Rayon(0),
    };
    // SAFETY: `View::new` and `ViewMut::new` have checked that every element at row * stride + column lies within the
    // slices, and both callers have checked that the shapes agree, so every address that the strides lead to is in
    // bounds; `y` is borrowed mutably and so overlaps neither operand. `y` is not read (`read_dst` is off).
    unsafe {
        gemm(
            y.cols,
            y.rows,
            k,
            y.data.as_mut_ptr(),
            y.stride as isize,
            1,
            false,
            left.as_ptr(),
            left_strides.0,
            left_strides.1,
            right.as_ptr(),
            right_strides.0,
            right_strides.1,
            0.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        (0..n as u32).map(|i| ((i * 7919 + seed) % 101) as f32 / 50.0 - 1.0).collect()
    }

    #[test]
    fn both_products_with_strides() {
        let shapes = [(1, 1, 1), (3, 5, 7), (17, 33, 64), (1, 70, 65), (64, 1, 31)];
        let fixed =
            Isa::available().into_iter().map(|level| Arithmetic::Deterministic(level, Parallelism::Threads));
        let fastest = [Parallelism::Serial, Parallelism::Threads].map(Arithmetic::Fastest);
        let ways: Vec<_> = fastest.into_iter().chain(fixed).collect();
        for ((n, m, k), how) in shapes.into_iter().flat_map(|shape| ways.iter().map(move |&how| (shape, how)))
        {
            let (x, w) = (numbers(n * (k + 3), 1), numbers(m * (k + 1), 2));
            let mut y = vec![9.0; n * (m + 2)];
            let (xv, wv) = (View::new(&x, n, k, k + 3), View::new(&w, m, k, k + 1));
            multiply_transposed(xv, wv, ViewMut::new(&mut y, n, m, m + 2), how);
            let v = numbers(k * (m + 4), 3);
            let mut z = vec![9.0; n * m];
            multiply(xv, View::new(&v, k, m, m + 4), ViewMut::new(&mut z, n, m, m), how);
            for (i, j) in (0..n).flat_map(|i| (0..m).map(move |j| (i, j))) {
                let dot: f32 = (0..k).map(|l| x[i * (k + 3) + l] * w[j * (k + 1) + l]).sum();
                assert!((y[i * (m + 2) + j] - dot).abs() < 1e-4, "{n} {m} {k}");
                let dot: f32 = (0..k).map(|l| x[i * (k + 3) + l] * v[l * (m + 4) + j]).sum();
                assert!((z[i * m + j] - dot).abs() < 1e-4, "{n} {m} {k}");
            }
            assert!(y.chunks(m + 2).all(|row| row[m..] == [9.0, 9.0]), "the gaps are left alone");
        }
    }

    #[test]
    #[should_panic(expected = "view of")]
    fn views_beyond_their_slice_are_refused() {
        View::new(&[0.0; 10], 3, 4, 4);
    }
}
