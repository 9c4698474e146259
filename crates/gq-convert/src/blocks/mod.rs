//! Weights in the block types of GGUF files: what each type loses of a tensor, which types a budget is spent on, and rows to
//! blocks with the inputs' second moments in view.

mod choose;
mod coder;

pub use choose::{BlockOption, BlockTensor, TooSmall, choose_types, sensitivities};
pub use coder::{BlockCoder, TypeError};
