//! Where a model runs: the CPU or a GPU.

use crate::failure::Failure;
use crate::global::Global;
use crate::source::Loaded;
use crate::units;
use gq_model::Model;
use gq_model::cuda::{self, GpuError};
use std::str::FromStr;

/// A device, as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The first GPU that the model fits on, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU of this number.
    Cuda(usize),
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Device, String> {
        let number = |text: &str| text.strip_prefix("cuda:")?.parse().ok();
        match (text, number(text)) {
            ("auto", _) => Ok(Device::Auto),
            ("cpu", _) => Ok(Device::Cpu),
            ("cuda", _) => Ok(Device::Cuda(0)),
            (_, Some(number)) => Ok(Device::Cuda(number)),
            _ => Err("expected auto, cpu, cuda or cuda:N".to_owned()),
        }
    }
}

/// Where a model runs.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct DeviceArgs {
    /// Where MODEL runs: cpu, cuda or cuda:N (an NVIDIA GPU by its number), or auto: the first GPU that it fits on, else
    /// the CPU. A GPU needs NVIDIA's driver and nothing else; it has not been tried on one yet.
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: Device,
}

impl DeviceArgs {
    /// Brings a model to where it is to run, with room for keys and values of `context` tokens.
    ///
    /// # Errors
    /// When a GPU is asked for and there is none that can, or the model does not fit there.
    pub fn place(self, loaded: &mut Loaded, context: usize, global: &Global) -> Result<(), Failure> {
        let output = global.output();
        match self.device {
            Device::Cpu => return Ok(()),
            Device::Cuda(number) => drop(loaded.model.move_to_gpu(number, context)?),
            Device::Auto => {
                if let Err(why) = first(loaded, context) {
                    output.note(&format!("on the CPU: {}", units::printable(&why)));
                    return Ok(());
                }
            }
        }
        if let Some((gpu, plan)) = loaded.model.gpu() {
            output.note(&format!(
                "on GPU {} ({}): {} of its memory, {} for keys and values of {} tokens",
                gpu.number,
                units::printable(&gpu.name),
                units::bytes(plan.total()),
                units::bytes(plan.cache),
                units::count(context as u64),
            ));
        }
        Ok(())
    }

    /// Says, when the work is done, what was slower on the GPU than it might have been.
    pub fn after(self, model: &Model, global: &Global) {
        if let Some(why) = model.gpu_uncaptured() {
            let why = units::printable(&why.to_string());
            global.output().note(&format!("kernels were launched one by one, which is slower: {why}"));
        }
    }
}

/// The first GPU that takes the model; else why none does.
fn first(loaded: &mut Loaded, context: usize) -> Result<(), String> {
    let gpus = cuda::gpus().map_err(|why| why.to_string())?;
    if gpus.is_empty() {
        return Err(GpuError::NoDevice { asked: 0, count: 0 }.to_string());
    }
    let mut reasons = Vec::new();
    for (number, gpu) in gpus.iter().enumerate() {
        let placed = match gpu {
            Ok(_) => loaded.model.move_to_gpu(number, context).map(drop),
            Err(why) => Err(why.clone().into()),
        };
        let Err(why) = placed else { return Ok(()) };
        reasons.push(match gpus.len() {
            1 => why.to_string(),
            _ => format!("GPU {number}: {why}"),
        });
    }
    Err(reasons.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_and_others_refused() {
        let read = |text: &str| text.parse::<Device>();
        assert_eq!(read("auto"), Ok(Device::Auto));
        assert_eq!((read("cuda"), read("cuda:3")), (Ok(Device::Cuda(0)), Ok(Device::Cuda(3))));
        for wrong in ["gpu", "cuda:", "cuda:-1", "cuda:x", ""] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
