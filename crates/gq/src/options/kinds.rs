//! Kinds to choose among on the command line.

/// Storage of keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kv {
    /// Single precision.
    F32,
    /// Half precision.
    F16,
    /// Eight bits, one scale per 32.
    Q8,
}

impl From<Kv> for gq_model::KvType {
    fn from(kv: Kv) -> gq_model::KvType {
        match kv {
            Kv::F32 => gq_model::KvType::F32,
            Kv::F16 => gq_model::KvType::F16,
            Kv::Q8 => gq_model::KvType::Q8,
        }
    }
}

/// Arithmetic of activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Activations {
    /// Rounded to int8, one scale per 32 after the rotation.
    Int8,
    /// As they are.
    F32,
}
