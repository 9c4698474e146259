//! What kernels compute, to the bit: plain Rust in the kernels' order of operations.

mod norm;
mod order;
mod product;
mod rotate;

pub use norm::rms_norm;
pub use order::join_parts;
pub use product::{plane_level, plane_product};
pub use rotate::quantize;
