//! Factors into a file: multiplied into the scales of rows and the weights of norms.

use super::{ScalesError, TunedScales};
use gq_calibrate::Factors;
use gq_codec::code_of;
use gq_container::{Container, Finished, Provenance, StoredText, TensorEntry, TextKind, Writer};
use gq_model::Model;
use gq_tensor::{DType, Encoding, decode_f32};
use half::f16;
use std::path::Path;

/// What the provenance says of a tuning after rounding.
pub use gq_container::ScalesTuned;

/// Whether the tensor has one f16 scale per row.
pub(super) fn has_row_scales(entry: &TensorEntry) -> bool {
    code_of(entry.storage()).is_ok_and(|code| code.has_row_scale())
}

/// The factors that the file holds once products with them have been rounded to what it stores.
pub(super) fn storable(
    container: &Container,
    model: &Model,
    mut factors: Factors,
) -> Result<Factors, ScalesError> {
    for (name, factors) in &mut factors {
        let entry = container.tensor(name).ok_or_else(|| ScalesError::Payload { tensor: name.clone() })?;
        if has_row_scales(entry) {
            for (factor, scale) in factors.iter_mut().zip(scales(container, entry)?) {
                let stored = multiplied(scale, *factor);
                *factor = if scale.to_f32() == 0.0 { 1.0 } else { stored.to_f32() / scale.to_f32() };
            }
        } else {
            let (before, plus) = (norm(container, entry)?, plus(model));
            let Some((_, after)) = norm_stored(&before, factors, plus, entry.encoding) else {
                factors.fill(1.0);
                continue;
            };
            for ((factor, before), after) in factors.iter_mut().zip(before).zip(after) {
                *factor = if before + plus == 0.0 { 1.0 } else { (after + plus) / (before + plus) };
            }
        }
    }
    Ok(factors)
}

impl TunedScales {
    /// Writes `container` with the factors in it to `path`, which may be its own. Codes stay as they are.
    ///
    /// # Errors
    /// When a text or payload is not what it should be, or the file cannot be written.
    pub fn write(
        &self,
        container: &Container,
        model: &Model,
        scales_tuned: Option<ScalesTuned>,
        path: &Path,
    ) -> Result<Finished, ScalesError> {
        let mut writer = Writer::create_once(path)?;
        for entry in container.tensors() {
            let payload = container.payload(entry);
            let Some(factors) = self.factors.get(&entry.name) else {
                writer.write_tensor(entry.spec(), payload)?;
                continue;
            };
            if has_row_scales(entry) {
                let scales = scales(container, entry)?;
                let mut changed = payload[..payload.len() - 2 * scales.len()].to_vec();
                for (scale, factor) in scales.into_iter().zip(factors) {
                    changed.extend(multiplied(scale, *factor).to_le_bytes());
                }
                writer.write_tensor(entry.spec(), &changed)?;
            } else {
                let weights = norm(container, entry)?;
                let Some((dtype, weights)) = norm_stored(&weights, factors, plus(model), entry.encoding)
                else {
                    writer.write_tensor(entry.spec(), payload)?;
                    continue;
                };
                let bytes: Vec<u8> = match dtype {
                    DType::F16 => weights.iter().flat_map(|&w| f16::from_f32(w).to_le_bytes()).collect(),
                    _ => weights.iter().flat_map(|w| w.to_le_bytes()).collect(),
                };
                let mut spec = entry.spec();
                spec.encoding = Encoding::Exact(dtype);
                writer.write_tensor(spec, &bytes)?;
            }
        }
        Ok(writer.finish(texts(container, scales_tuned)?)?)
    }
}

/// The texts of the file, with the tuning in the provenance.
fn texts(container: &Container, scales_tuned: Option<ScalesTuned>) -> Result<Vec<StoredText>, ScalesError> {
    let mut texts = Vec::new();
    for kind in container.texts().iter().filter_map(|text| TextKind::from_code(text.kind)) {
        if kind == TextKind::Provenance {
            continue;
        }
        if let Some(text) = container.text(kind)? {
            texts.push(StoredText::new(kind, &text)?);
        }
    }
    if let Some(provenance) = container.provenance()? {
        let scales_tuned = scales_tuned.or_else(|| provenance.scales_tuned.clone());
        texts.push(Provenance { scales_tuned, ..provenance }.to_text()?);
    }
    Ok(texts)
}

fn scales(container: &Container, entry: &TensorEntry) -> Result<Vec<f16>, ScalesError> {
    let matrix = container.matrix(entry).map_err(|_| ScalesError::Payload { tensor: entry.name.clone() })?;
    let (scales, _) = matrix.scales().as_chunks::<2>();
    Ok(scales.iter().map(|&bytes| f16::from_le_bytes(bytes)).collect())
}

/// A scale times a factor; as it was where that is no positive f16.
fn multiplied(scale: f16, factor: f32) -> f16 {
    let product = f16::from_f32(scale.to_f32() * factor);
    if product.is_finite() && product > f16::ZERO { product } else { scale }
}

fn norm(container: &Container, entry: &TensorEntry) -> Result<Vec<f32>, ScalesError> {
    let wrong = || ScalesError::Payload { tensor: entry.name.clone() };
    let Encoding::Exact(dtype) = entry.encoding else { return Err(wrong()) };
    let payload = container.payload(entry);
    let mut weights = vec![0.0; payload.len() / dtype.size()];
    decode_f32(dtype, payload, &mut weights);
    Ok(weights)
}

/// New weights as they are stored, and as what: f32 stays f32, shorter ones become f16, whose steps are finer than
/// those of bf16 at the same bytes. `None` where f16 has not the range, or the type is another.
fn norm_stored(weights: &[f32], factors: &[f32], plus: f32, encoding: Encoding) -> Option<(DType, Vec<f32>)> {
    let tuned = weights.iter().zip(factors).map(|(weight, factor)| (weight + plus) * factor - plus);
    match encoding {
        Encoding::Exact(DType::BF16 | DType::F16) => {
            let halves: Vec<f32> = tuned.map(|x| f16::from_f32(x).to_f32()).collect();
            halves.iter().all(|x| x.is_finite()).then_some((DType::F16, halves))
        }
        Encoding::Exact(DType::F32) => Some((DType::F32, tuned.collect())),
        _ => None,
    }
}

/// What the graph adds to stored weights of norms.
fn plus(model: &Model) -> f32 {
    if model.spec().norm_plus_one { 1.0 } else { 0.0 }
}
