//! Failures of GPUs.

use super::sentence;
use crate::failure::{Exit, Failure};
use crate::units;
use gq_model::DeviceError;
use gq_model::cuda::GpuError;

impl From<GpuError> for Failure {
    fn from(error: GpuError) -> Failure {
        let message = sentence(&error);
        let failure = |code| Failure::new(Exit::Environment, code, message).at("--device");
        match error {
            GpuError::NoDriver => failure("device.no_driver"),
            GpuError::NotStarted { name } => failure("device.not_started").actual(name),
            GpuError::Closed { name, .. } => failure("device.closed").actual(name),
            GpuError::NoRoom { what, free, .. } => failure("device.memory").limit(free).actual(what),
            GpuError::OldDriver { actual } => {
                let actual = format!("CUDA {}.{}", actual / 1000, actual % 1000 / 10);
                failure("device.old_driver").limit("CUDA 12.4").actual(actual)
            }
            GpuError::NoDevice { count, .. } => {
                failure("device.none").limit(format!("a number below {count}")).actual(count)
            }
            GpuError::OldDevice { major, minor, .. } => {
                failure("device.old").limit("8.0").actual(format!("{major}.{minor}"))
            }
            GpuError::OutOfMemory { asked, free, .. } => failure("device.memory").limit(free).actual(asked),
            GpuError::Lost { name, .. } => failure("device.lost").actual(name),
            GpuError::Failed { name, .. } => failure("device.failed").actual(name),
        }
    }
}

impl From<DeviceError> for Failure {
    fn from(error: DeviceError) -> Failure {
        let message = sentence(&error);
        match error {
            DeviceError::Gpu(error) => error.into(),
            DeviceError::Room { needed, weights, cache, context, scratch, free, total } => {
                let message = format!(
                    "the GPU has {} of {} free and the model takes {}: {} for weights, {} for keys and values of {} \
                     tokens, {} for buffers and the driver",
                    units::bytes(free),
                    units::bytes(total),
                    units::bytes(needed),
                    units::bytes(weights),
                    units::bytes(cache),
                    units::count(context as u64),
                    units::bytes(scratch),
                );
                Failure::new(Exit::Environment, "device.memory", message)
                    .at("--device")
                    .limit(free)
                    .actual(needed)
            }
            DeviceError::Activations { tensor } => Failure::new(Exit::Usage, "device.activations", message)
                .at(tensor)
                .limit("int8")
                .actual("f32"),
            DeviceError::Deterministic => {
                Failure::new(Exit::Usage, "device.deterministic", message).at("--deterministic")
            }
            DeviceError::Launch(_) | DeviceError::Scratch { .. } | DeviceError::Missing => {
                Failure::new(Exit::Environment, "device.failed", message).at("--device")
            }
        }
    }
}
