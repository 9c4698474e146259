//! `gq plan --table`: sizes one below the other, what each takes here, and which one to take.

use crate::failure::Failure;
use crate::global::Global;
use crate::jobs::convert;
use crate::machine::Machine;
use crate::options::recipe::Recipe;
use crate::profile::memory_rate;
use crate::source::Found;
use crate::table::Table;
use crate::{source, units};
use gq_calibrate::MeasurementsDir;
use gq_checkpoint::{Checkpoint, Role};
use gq_convert::{Plan, PlanError, Resources};
use gq_model::cuda;
use gq_model::{kv_cache_bytes, work_bytes};
use gq_tensor::Storage;
use serde::Serialize;

/// Bits per weight of the body, beside what `gq convert` does unless told otherwise.
const BITS: [f64; 7] = [2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0];

/// Divergence in nats per token below which a smaller file is worth more than a closer one.
const CLOSE: f64 = 0.02;

/// One size.
#[derive(Clone, Debug, Serialize)]
struct Size {
    /// What `gq convert` is told; nothing: its default.
    bpw: Option<f64>,
    command: String,
    /// Of all weights.
    payload_bytes: u64,
    expected_divergence: Option<f64>,
    /// With keys and values of the context, and buffers.
    memory_bytes: u64,
    fits_memory: Option<bool>,
    /// Of the GPU with the most free memory; `None` where there is none.
    gpu_bytes: Option<u64>,
    fits_gpu: Option<bool>,
    bytes_per_token: u64,
    /// As many as memory can be read for: an estimate from above.
    tokens_per_second: f64,
    recommended: bool,
}

/// Plans every size and prints the table.
pub fn show(found: &Found, recipe: &Recipe, global: &Global) -> Result<(), Failure> {
    let checkpoint = source::checkpoint_with(&found.path, &recipe.loras, global)?;
    source::refuse_quantized(&checkpoint, recipe.allow_requantize)?;
    let resources = Resources { threads: global.threads(), max_memory: recipe.max_memory };
    let measurements = recipe.measurements(&checkpoint, None)?;
    let measured = measurements.as_ref().map(MeasurementsDir::value);
    let policy = recipe.policy(&checkpoint, measured);
    let grids = convert::grids_shown(&checkpoint, &policy, resources, global)?;
    let free = Machine::detect().available_bytes;
    let gpus = cuda::gpus().unwrap_or_default();
    let gpu = gpus.iter().flatten().max_by_key(|gpu| gpu.free);
    let rate = source::with_threads(global, memory_rate)?;
    let asked = recipe.asked();
    let spec = checkpoint.spec();
    let around =
        kv_cache_bytes(spec, asked.ctx, asked.kv) + work_bytes(spec, asked.ctx, asked.kv, global.threads());
    let mut sizes: Vec<Size> = Vec::new();
    for bpw in std::iter::once(None).chain(BITS.map(Some)) {
        let policy = match bpw {
            Some(bits) => recipe.at_bits(bits).policy(&checkpoint, measured),
            None => policy.clone(),
        };
        let plan = match gq_convert::plan_measured(&checkpoint, &policy, resources, measured, Some(&grids)) {
            Ok(plan) => plan,
            // No choice of codes is that small.
            Err(PlanError::Budget { .. }) if bpw.is_some() => continue,
            Err(error) => return Err(error.into()),
        };
        let memory_bytes = plan.payload_bytes.saturating_add(around);
        let bytes_per_token = bytes_per_token(&checkpoint, &plan);
        let tensors = plan
            .steps
            .iter()
            .map(|step| (&*step.tensor, &*step.shape, Storage::new(step.encoding, step.rotation)));
        let gpu_bytes = gpu.map(|_| cuda::planned(spec, tensors, asked.ctx, asked.kv).total());
        let option = bpw.map_or_else(String::new, |bits| format!(" --bpw {bits}"));
        sizes.push(Size {
            bpw,
            command: format!("gq convert {}{option}", found.path.display()),
            payload_bytes: plan.payload_bytes,
            expected_divergence: plan.expected_divergence,
            memory_bytes,
            fits_memory: free.map(|free| memory_bytes <= free),
            gpu_bytes,
            fits_gpu: gpu.zip(gpu_bytes).map(|(gpu, bytes)| bytes <= gpu.free),
            bytes_per_token,
            tokens_per_second: rate / bytes_per_token.max(1) as f64,
            recommended: false,
        });
    }
    sizes.sort_by_key(|size| size.payload_bytes);
    if let Some(best) = recommended(&sizes) {
        sizes[best].recommended = true;
    }
    let output = global.output();
    if output.json {
        return output.document(&serde_json::json!({
            "ctx": asked.ctx,
            "memory_bytes_per_second": rate,
            "available_bytes": free,
            "gpu": gpu.map(|gpu| gpu.name.as_str()),
            "sizes": sizes,
        }));
    }
    let mut text = table(&sizes);
    text += &format!(
        "\nmemory: weights, keys and values of {} tokens, and buffers, versus {} available\n\
         tokens/s: an estimate from above, as fast as memory is read here ({:.1} GB/s); `gq bench` measures a file\n",
        units::count(asked.ctx as u64),
        free.map_or_else(|| "an unknown amount".to_owned(), units::bytes),
        rate / 1e9,
    );
    text += &match sizes.iter().find(|size| size.recommended) {
        Some(size) => format!("recommended: {}\n", size.command),
        None => {
            "none of these fits into the memory that is free: fewer tokens (--ctx), --kv q8, or --fit SIZE\n"
                .to_owned()
        }
    };
    if measured.is_none() {
        text += "the divergence of each size is expected from measurements: `gq calibrate SRC -o DIR`, then --measurements DIR\n";
    }
    output.data(&text)
}

/// The smallest size that is close enough, or the closest that fits; without measurements the default, or the largest
/// below it that fits. Sizes come smallest first.
fn recommended(sizes: &[Size]) -> Option<usize> {
    let fitting: Vec<(usize, &Size)> =
        sizes.iter().enumerate().filter(|(_, size)| size.fits_memory != Some(false)).collect();
    let close = fitting.iter().find(|(_, size)| size.expected_divergence.is_some_and(|kld| kld <= CLOSE));
    let usual = sizes.iter().position(|size| size.bpw.is_none())?;
    let measured = sizes.iter().all(|size| size.expected_divergence.is_some());
    let below = fitting.iter().rev().find(|(index, _)| measured || *index <= usual);
    close.or(below).map(|(index, _)| *index)
}

fn table(sizes: &[Size]) -> String {
    let gpu = sizes.iter().any(|size| size.gpu_bytes.is_some());
    let mut titles = vec!["<size", "weights", "KLD", "memory", "<fits"];
    titles.extend(gpu.then_some(["GPU", "<fits"]).into_iter().flatten());
    titles.extend(["tokens/s", "<"]);
    let mut table = Table::new(&titles);
    let said = |fits: Option<bool>| match fits {
        Some(true) => "yes".to_owned(),
        Some(false) => "no".to_owned(),
        None => "-".to_owned(),
    };
    for size in sizes {
        let mut cells = vec![
            size.bpw.map_or_else(|| "default".to_owned(), |bits| format!("--bpw {bits}")),
            units::bytes(size.payload_bytes),
            size.expected_divergence.map_or_else(|| "-".to_owned(), |kld| format!("{kld:.4}")),
            units::bytes(size.memory_bytes),
            said(size.fits_memory),
        ];
        if gpu {
            cells.push(size.gpu_bytes.map_or_else(|| "-".to_owned(), units::bytes));
            cells.push(said(size.fits_gpu));
        }
        cells.push(format!("{:.1}", size.tokens_per_second));
        cells.push(if size.recommended { "<- recommended" } else { "" }.to_owned());
        table.row(cells);
    }
    table.render()
}

/// Bytes of weights that a token is multiplied by: of experts those of the chosen ones.
fn bytes_per_token(checkpoint: &Checkpoint, plan: &Plan) -> u64 {
    let spec = checkpoint.spec();
    let chosen = spec.layers.iter().filter_map(|layer| Some(layer.moe?.router.top_k as u64)).max();
    let bytes = plan.steps.iter().map(|step| {
        let role = checkpoint.tensor(&step.tensor).map(|tensor| tensor.role);
        match role {
            Some(Role::Embedding) if !spec.tied_head => 0,
            None | Some(Role::PerLayerTable | Role::Tower) => 0,
            _ => match (step.shape.as_slice(), chosen) {
                ([experts, _, _], Some(chosen)) => step.bytes / (*experts).max(1) * chosen.min(*experts),
                _ => step.bytes,
            },
        }
    });
    bytes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(bpw: Option<f64>, payload_bytes: u64, kld: Option<f64>, fits: bool) -> Size {
        Size {
            bpw,
            command: String::new(),
            payload_bytes,
            expected_divergence: kld,
            memory_bytes: payload_bytes,
            fits_memory: Some(fits),
            gpu_bytes: None,
            fits_gpu: None,
            bytes_per_token: payload_bytes,
            tokens_per_second: 1.0,
            recommended: false,
        }
    }

    #[test]
    fn what_is_recommended_fits_and_is_close() {
        let with = |klds: [f64; 3], fits: [bool; 3]| {
            let bits = [Some(3.0), None, Some(6.0)];
            let sizes: Vec<Size> =
                (0..3).map(|i| size(bits[i], i as u64 + 1, Some(klds[i]), fits[i])).collect();
            recommended(&sizes)
        };
        assert_eq!(with([0.01, 0.005, 0.001], [true; 3]), Some(0));
        assert_eq!(with([0.1, 0.015, 0.001], [true; 3]), Some(1));
        assert_eq!(with([0.1, 0.05, 0.03], [true; 3]), Some(2));
        assert_eq!(with([0.1, 0.015, 0.001], [true, false, false]), Some(0));
        assert_eq!(with([0.1, 0.015, 0.001], [false; 3]), None);
        // Without measurements the default, or what is below it.
        let plain = |fits: [bool; 3]| {
            let bits = [Some(3.0), None, Some(6.0)];
            let sizes: Vec<Size> = (0..3).map(|i| size(bits[i], i as u64 + 1, None, fits[i])).collect();
            recommended(&sizes)
        };
        assert_eq!((plain([true; 3]), plain([true, false, false])), (Some(1), Some(0)));
    }
}
