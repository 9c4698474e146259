//! How codes lie on a device: permutations of stored bytes, made once at upload.

mod planes;

pub use planes::{plane_code, planes_upload};
