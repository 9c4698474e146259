//! Scales of F8 weights, in separate tensors: `w = code * scale`.
//!
//! Supported are `NAME_scale_inv` (block-quantized files; despite its name it multiplies) and `NAME_scale`
//! for a weight `NAME`, each with one value, one per row (`[rows]` or `[rows, 1]`),
//! or one per block of 128 x 128 (`[ceil(rows/128), ceil(cols/128)]`).

use std::ops::Range;

/// Side of a block.
const BLOCK: usize = 128;

/// How a scale tensor covers its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Convention {
    /// One value for the whole weight.
    Tensor,
    /// One value per row.
    Row,
    /// One value per block of 128 rows and 128 columns; the number of blocks in a row.
    Block { across: usize },
}

/// A scale tensor and the weight it belongs to.
#[derive(Clone, Debug)]
pub(crate) struct ScaleSource {
    /// Canonical name of the weight.
    pub weight: String,
    /// Index of the scales among the tensors.
    pub scale: usize,
    /// How they cover the weight.
    pub convention: Convention,
    /// Row of the scaled tensor that the weight begins with: not 0 where files have several weights in one tensor.
    pub first: usize,
}

/// Scales in memory.
#[derive(Clone, Debug)]
pub(crate) struct WeightScale {
    pub convention: Convention,
    /// As [`ScaleSource::first`].
    pub first: usize,
    pub values: Vec<f32>,
}

impl Convention {
    /// The convention that fits both shapes; only matrices have scales.
    pub(crate) fn of(weight: &[usize], scale: &[usize]) -> Option<Convention> {
        let &[rows, cols] = weight else { return None };
        let across = cols.div_ceil(BLOCK);
        match *scale {
            [] | [1] | [1, 1] => Some(Convention::Tensor),
            [n] | [n, 1] if n == rows => Some(Convention::Row),
            [down, n] if down == rows.div_ceil(BLOCK) && n == across => Some(Convention::Block { across }),
            _ => None,
        }
    }
}

impl WeightScale {
    /// Multiplies decoded rows `[rows.len(), cols]` in place.
    pub(crate) fn apply(&self, rows: Range<usize>, cols: usize, values: &mut [f32]) {
        for (row, out) in (self.first + rows.start..).zip(values.chunks_exact_mut(cols.max(1))) {
            match self.convention {
                Convention::Tensor => multiply(out, self.value(0)),
                Convention::Row => multiply(out, self.value(row)),
                Convention::Block { across } => {
                    let first = row / BLOCK * across;
                    for (block, part) in out.chunks_mut(BLOCK).enumerate() {
                        multiply(part, self.value(first + block));
                    }
                }
            }
        }
    }

    fn value(&self, index: usize) -> f32 {
        self.values.get(index).copied().unwrap_or(f32::NAN)
    }
}

fn multiply(values: &mut [f32], scale: f32) {
    values.iter_mut().for_each(|value| *value *= scale);
}

/// Name of the weight that a scale tensor of this name would belong to.
pub(crate) fn weight_of(name: &str) -> Option<String> {
    let weight = name.strip_suffix("_scale_inv").or_else(|| name.strip_suffix("_scale"))?;
    weight.ends_with(".weight").then(|| weight.to_owned())
}

/// Ends of the names of scales that activations and caches have: `NAME.input_scale`, `NAME.output_scale`, `NAME.k_scale`
/// and their zero points (compressed-tensors, ModelOpt), `NAME.activation_scale` and `NAME_activation_scale`
/// (transformers' FP8).
const OF_ACTIVATIONS: [&str; 13] = [
    ".input_scale",
    ".input_zero_point",
    ".output_scale",
    ".output_zero_point",
    ".activation_scale",
    "_activation_scale",
    ".q_scale",
    ".k_scale",
    ".v_scale",
    ".q_zero_point",
    ".k_zero_point",
    ".v_zero_point",
    ".prob_output_scale",
];

/// Whether a tensor of this name is a scale of activations or of a cache of keys and values: weights do not depend on it,
/// and neither is rounded to 8 bits here.
pub(crate) fn is_of_activations(name: &str) -> bool {
    OF_ACTIVATIONS.iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conventions_by_shape() {
        for (weight, scale, expected) in [
            (vec![300, 200], vec![], Some(Convention::Tensor)),
            (vec![300, 200], vec![1], Some(Convention::Tensor)),
            (vec![300, 200], vec![300], Some(Convention::Row)),
            (vec![300, 200], vec![300, 1], Some(Convention::Row)),
            (vec![300, 200], vec![3, 2], Some(Convention::Block { across: 2 })),
            (vec![300, 200], vec![2, 3], None),
            (vec![2, 300, 200], vec![1], None),
        ] {
            assert_eq!(Convention::of(&weight, &scale), expected, "{weight:?} {scale:?}");
        }
    }

    #[test]
    fn blocks_cover_what_they_should() {
        let scale = WeightScale {
            convention: Convention::Block { across: 2 },
            first: 0,
            values: vec![1.0, 2.0, 3.0, 4.0],
        };
        let mut rows = vec![1.0; 2 * 130];
        scale.apply(127..129, 130, &mut rows);
        assert_eq!((rows[0], rows[127], rows[128], rows[129]), (1.0, 1.0, 2.0, 2.0));
        assert_eq!((rows[130], rows[257], rows[258], rows[259]), (3.0, 3.0, 4.0, 4.0));
    }

    #[test]
    fn names_of_scales() {
        assert_eq!(weight_of("a.weight_scale_inv").as_deref(), Some("a.weight"));
        assert_eq!(weight_of("a.weight_scale").as_deref(), Some("a.weight"));
        assert_eq!(weight_of("a.router.per_expert_scale"), None);
        assert_eq!(weight_of("a.activation_scale"), None);
        for (name, expected) in [
            ("a.q_proj.input_scale", true),
            ("a.q_proj.activation_scale", true),
            ("a.experts.gate_up_proj_activation_scale", true),
            ("a.q_proj.weight_scale", false),
            ("a.self_attn.k_scale", true),
            ("a.self_attn.v_proj.output_scale", true),
            ("a.self_attn.q_norm.weight_scale", false),
            ("a.self_attn.scale", false),
        ] {
            assert_eq!(is_of_activations(name), expected, "{name}");
        }
    }
}
