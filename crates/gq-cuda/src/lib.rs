//! The CUDA driver found at run time, and kernels.
//!
//! This crate does not know models, files or the encode side.
