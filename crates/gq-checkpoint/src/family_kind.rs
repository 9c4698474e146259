//! Which families there are; what each of them is, its file in `family/` says.

use serde::{Deserialize, Serialize};

/// A supported architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// `LlamaForCausalLM`, `MistralForCausalLM`.
    Llama,
    /// `Qwen2ForCausalLM`: Qwen2 and Qwen2.5.
    Qwen2,
    /// `Qwen3ForCausalLM`.
    Qwen3,
    /// `Qwen3MoeForCausalLM`.
    Qwen3Moe,
    /// `Ministral3ForCausalLM`, and the text part of `Mistral3ForConditionalGeneration` where it is of that class.
    Mistral3,
    /// `Phi3ForCausalLM`: Phi-3, Phi-3.5, Phi-4 and Phi-4-mini.
    Phi3,
    /// `GptOssForCausalLM`.
    GptOss,
    /// `Gemma3ForCausalLM` and the text part of `Gemma3ForConditionalGeneration`.
    Gemma3,
    /// `Gemma4ForCausalLM` and the text part of `Gemma4ForConditionalGeneration` and the unified variant.
    Gemma4,
}

impl Family {
    /// Every family.
    pub const ALL: [Family; 9] = [
        Family::Llama,
        Family::Qwen2,
        Family::Qwen3,
        Family::Qwen3Moe,
        Family::Mistral3,
        Family::Phi3,
        Family::GptOss,
        Family::Gemma3,
        Family::Gemma4,
    ];
}
