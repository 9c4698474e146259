//! Activations as int8: one f32 scale per 32 elements.

use crate::packing::GROUP;
use gq_tensor::Isa;

/// A rotated activation vector in int8, `x[i] ~ scale[i / 32] * value[i]`, |value| <= 127.
#[derive(Clone, Debug, Default)]
pub struct Activations {
    pub(crate) values: Vec<i8>,
    /// Absolute values, which the multiply-add instruction wants.
    pub(crate) magnitudes: Vec<u8>,
    pub(crate) scales: Vec<f32>,
}

impl Activations {
    /// Rounds `x`: per 32 elements, `scale = amax / 127` and `value = x * (127 / amax)` to nearest even.
    ///
    /// Groups whose largest element is below 2^-100 become zeros; a group with a non-finite element gets
    /// scale NaN. The last group may be shorter than 32; it is padded with zeros. The same bits at every level.
    pub fn quantize(level: Isa, x: &[f32]) -> Activations {
        let mut activations = Activations::default();
        activations.quantize_into(level, x);
        activations
    }

    /// [`quantize`](Activations::quantize) into the buffers of `self`.
    pub fn quantize_into(&mut self, level: Isa, x: &[f32]) {
        let groups = x.len().div_ceil(GROUP);
        self.values.resize(groups * GROUP, 0);
        self.magnitudes.resize(groups * GROUP, 0);
        self.scales.resize(groups, 0.0);
        super::quantize_activations(level, x, &mut self.values, &mut self.magnitudes, &mut self.scales);
    }

    /// Elements, rounded up to whole groups of 32.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The values as f32, `min(out.len(), len())` of them.
    pub fn dequantize(&self, out: &mut [f32]) {
        for ((out, values), &scale) in out.chunks_mut(GROUP).zip(self.values.chunks(GROUP)).zip(&self.scales)
        {
            for (out, &value) in out.iter_mut().zip(values) {
                *out = scale * f32::from(value);
            }
        }
    }
}
