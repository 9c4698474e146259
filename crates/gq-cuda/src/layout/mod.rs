//! How codes lie on a device: permutations of stored bytes, made once at upload.

mod planes;
mod trellis;

pub use planes::{plane_code, planes_upload};
pub use trellis::{trellis_bytes, trellis_upload, trellis_window};
