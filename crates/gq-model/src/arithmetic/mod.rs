//! What operators compute, in one order of operations: the same bits on every CPU and thread count.
//!
//! Backends that run at once ([`cpu`](crate::cpu)) and those that calibrate take their element-wise operators, norms,
//! rotary embeddings and routing from here, so that they agree to the bit; [`stored`] has products with stored weights
//! in the same manner, for those whose results decide codes.

pub mod elementwise;
mod pieces;
mod rope;
mod routing;
pub mod stored;

pub use gq_tensor::{softmax, softmax_with_sink};
pub use pieces::in_pieces;
pub use rope::{Place, RopeTable};
pub(crate) use routing::scatter;
pub use routing::{Choice, Routes, weigh};
