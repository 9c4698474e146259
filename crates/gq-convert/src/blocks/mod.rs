//! Weights in other programs' formats, the block types of GGUF files and integer codes in groups: what each type loses of a
//! tensor, which types a budget is spent on, and rows to codes with the inputs' second moments in view.

mod choose;
mod coder;
mod groups;
mod pace;
mod tried;

pub use choose::{ChooseError, TypeOption, TypedUnit, choose_types, sensitivities};
pub use coder::{BlockCoder, TypeError};
pub use groups::{GroupCoder, Grouped};
pub use pace::Pace;
pub use tried::Importances;
