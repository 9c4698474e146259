//! Orders of sums that kernels share.

use std::ops::Add;

/// The sum of the lanes of a warp: lanes 16 apart first, neighbors last.
pub(super) fn warp_sum<V: Copy + Add<Output = V>>(mut lanes: [V; 32]) -> V {
    for apart in [16, 8, 4, 2, 1] {
        for lane in 0..apart {
            lanes[lane] = lanes[lane] + lanes[lane + apart];
        }
    }
    lanes[0]
}

/// The sum of as many matrices, one after another in `parts`, in order.
pub fn join_parts(parts: &[f32], count: usize) -> Vec<f32> {
    let mut matrices = parts.chunks_exact((parts.len() / count.max(1)).max(1));
    let mut out = matrices.next().unwrap_or(&[]).to_vec();
    for part in matrices {
        out.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
    }
    out
}
