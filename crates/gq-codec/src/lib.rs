//! The mathematics: rotations, codebooks, codes, rounding, packing and CPU kernels.
//!
//! This crate does not know files, containers, models or GPUs.
