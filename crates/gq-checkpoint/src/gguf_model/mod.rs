//! Models in GGUF files: read as the parts of a checkpoint under canonical names, and written.

mod carried;
mod config;
mod export;
mod export_meta;
mod export_rope;
mod export_source;
mod export_tokenizer;
mod model;
mod named_templates;
mod names;
mod naming;
mod pieces;
mod pre_tokenizer;
mod range;
mod special_names;
mod stacks;
mod token_types;
mod tokenizer;
mod turn_tokens;
mod vocabulary;
mod whole;

pub use export::{EncodeRows, ExportError, ExportPlan, ReadRows};
pub use export_source::{ExportOptions, ExportSource, ExportTensor};
pub(crate) use model::GgufModel;
pub use pre_tokenizer::pre_tokenizer_names;
pub use range::Beyond;
pub use special_names::ends_of_generation;
pub use stacks::gguf_names;
pub use tokenizer::{TokenizerTexts, tokenizer_texts};
