//! What kernels compute, to the bit: plain Rust in the kernels' order of operations.

mod attention;
mod experts;
mod heads;
mod math;
mod norm;
mod order;
mod product;
mod rotate;
mod trellis;

pub use attention::{Scores, attention};
pub use experts::{choose_experts, mix_experts};
pub use heads::{cache_row, cached, head};
pub use math::{exp, gated, tanh};
pub use norm::rms_norm;
pub use order::join_parts;
pub use product::{Quantized, exact_product, plane_level, plane_product, plane_product_of_many};
pub use rotate::quantize;
pub use trellis::{trellis_level, trellis_product, trellis_product_of_many};
