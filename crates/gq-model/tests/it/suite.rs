//! The suite of operators on the CPU backend.

use gq_model::KvType;
use gq_model::cpu::{ActivationMode, Sums};
use gq_suite::Cpu;

gq_suite::suite! {
    cpu_f32: Cpu(Sums::Fastest(ActivationMode::F32), KvType::F32);
    cpu_f32_over_f16: Cpu(Sums::Fastest(ActivationMode::F32), KvType::F16);
    cpu_int8_over_q8: Cpu(Sums::Fastest(ActivationMode::Int8), KvType::Q8);
    cpu_deterministic: Cpu(Sums::Deterministic, KvType::F32);
}
