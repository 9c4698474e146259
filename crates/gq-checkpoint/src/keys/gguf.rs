//! Keys of GGUF's metadata, as llama.cpp (b11549) reads them.

use super::{ALL, Families, GEMMA, GEMMA3, GEMMA4, GgufKey, LLAMA_QWEN, QWEN3_MOE};
use crate::Family;

const fn row(
    key: &'static str,
    families: Families,
    meaning: &'static str,
    absent: &'static str,
    written: &'static str,
    accepted: &'static str,
) -> GgufKey {
    GgufKey { key, families, meaning, absent, written, accepted }
}

const LLAMA_SPARSE: Families = &[Family::Llama, Family::Qwen3Moe, Family::Gemma4];
const SPARSE: Families = &[Family::Qwen3Moe, Family::Gemma4];

/// Keys that mean something.
#[rustfmt::skip]
pub const GGUF_KEYS: &[GgufKey] = &[
    row("general.architecture", ALL, "which graph", "refused", "the family", "llama, qwen2, qwen3, qwen3moe, gemma3, gemma4"),
    row("general.alignment", ALL, "offsets of tensors are its multiples, bytes; of a split the first file's counts for all", "32", "-", "powers of two"),
    row("general.type", ALL, "what the file holds", "a model", "model", "not read"),
    row("general.file_type", ALL, "type of most weights; for people", "not known", "that of most weights", "not read"),
    row("general.quantization_version", ALL, "version of the blocks' layout", "not known", "2", "not read"),
    row("general.sampling.*", ALL, "settings of generation", "the program's", "those of generation_config.json", "not read"),
    row("general.base_model.*", ALL, "what the model was made from", "-", "the card's", "carried on"),
    row("general.dataset.*", ALL, "what it was trained on", "-", "the card's", "carried on"),
    row("general.source.*", ALL, "where it comes from", "-", "the card's", "carried on"),
    row("general.license*", ALL, "its licence", "-", "the card's", "carried on"),
    row("general.gq.*", ALL, "provenance", "-", "what the file was made from", "not read"),
    row("general.*", ALL, "names, sizes and tags for people", "-", "the card's, the configuration's, the folder's", "carried on, others not read"),
    row("tokenizer.*", ALL, "the tokenizer and the chat template", "no text, numbers of tokens only", "see Out", "see In"),
    row("split.*", ALL, "number, count and tensors of a split's files", "one file", "-", "must agree"),
    row("block_count", ALL, "layers", "refused", "num_hidden_layers", "1 to 1024"),
    row("context_length", ALL, "longest sequence the model was made for, tokens", "refused", "max_position_embeddings", "any"),
    row("embedding_length", ALL, "width of the residual stream", "refused", "hidden_size", "any"),
    row("vocab_size", ALL, "rows of the embedding; the tokenizer's count decides", "the tokenizer's", "vocab_size (Llama)", "rows of token_embd.weight decide"),
    row("feed_forward_length", ALL, "width of the MLP; one number or one for each layer", "0", "intermediate_size", "all alike; Gemma 4: twice as much on layers that share caches"),
    row("attention.head_count", ALL, "query heads; one number or one for each layer", "0", "num_attention_heads", "all alike"),
    row("attention.head_count_kv", ALL, "key-value heads; one number or one for each layer", "as many as query heads", "num_key_value_heads", "all alike; Gemma 4: one for each type of layer"),
    row("attention.key_length", ALL, "width of a query's and a key's head (Gemma 4: of full layers)", "embedding_length / head_count", "head_dim", "any"),
    row("attention.value_length", ALL, "width of a value's head", "embedding_length / head_count, whatever key_length is", "head_dim", "that of keys"),
    row("attention.key_length_swa", GEMMA, "the same on sliding layers", "Gemma 3: that of full layers; Gemma 4: refused", "head_dim (Gemma 4)", "Gemma 3: that of full layers"),
    row("attention.value_length_swa", GEMMA, "the same on sliding layers", "Gemma 3: that of full layers; Gemma 4: refused", "head_dim (Gemma 4)", "that of keys"),
    row("attention.layer_norm_rms_epsilon", ALL, "added to the mean square in norms", "refused", "rms_norm_eps", "0 to 1"),
    row("attention.causal", ALL, "whether later tokens are hidden", "true", "-", "true"),
    row("rope.dimension_count", ALL, "dimensions of a head that turn", "key_length", "head_dim (Llama, Gemma 4)", "all"),
    row("rope.dimension_count_swa", GEMMA, "the same on sliding layers", "that of full layers", "head_dim (Gemma 4)", "all"),
    row("rope.freq_base", ALL, "base of the rotary frequencies (Gemma: of full layers)", "10000", "rope_theta", "any"),
    row("rope.freq_base_swa", GEMMA, "base of the frequencies of sliding layers", "10000", "rope_theta", "any"),
    row("rope.scaling.type", ALL, "how frequencies of layers without a window are scaled", "linear", "linear, yarn", "none, linear, yarn"),
    row("rope.scaling.factor", ALL, "divisor of frequencies; counts without a type, 0 is 1", "rope.scale_linear", "factor", "any; with yarn from 1 on"),
    row("rope.scale_linear", ALL, "older name of rope.scaling.factor", "1", "-", "as that"),
    row("rope.scaling.original_context_length", ALL, "yarn: context before the extension, tokens; 0 is absent", "context_length", "original_max_position_embeddings", "any"),
    row("rope.scaling.attn_factor", ALL, "factor on cosines and sines of all layers; with yarn on top of 1 + 0.1 ln(factor)", "1", "attention_factor / llama.cpp's own, unless that is 1", "any; Gemma with windows: 1"),
    row("attention.sliding_window", GEMMA, "tokens that sliding layers see; Gemma 3: 0 makes all layers full", "Gemma 3: 0; Gemma 4: refused", "sliding_window", "any; Gemma 4: not 0"),
    row("attention.sliding_window_pattern", GEMMA, "true for sliding layers, or n: every n-th is full", "Gemma 3: 6; Gemma 4: refused", "layer_types, unless every sixth is full (Gemma 3)", "any"),
    row("final_logit_softcapping", GEMMA, "logits become cap tanh(logits / cap); 0 is none", "Gemma 3: none; Gemma 4: 30", "final_logit_softcapping; Gemma 4 without: 0", "any"),
    row("expert_count", LLAMA_SPARSE, "experts of a layer", "0", "num_experts", "Llama: 0; Qwen3: not 0"),
    row("expert_used_count", LLAMA_SPARSE, "experts for each token", "0", "top_k_experts, num_experts_per_tok", "Llama: 0; Qwen3: not 0"),
    row("expert_feed_forward_length", SPARSE, "width of an expert; 0 is absent", "Qwen3: feed_forward_length / expert_used_count; Gemma 4: 0", "moe_intermediate_size", "any"),
    row("attention.shared_kv_layers", GEMMA4, "last layers that read the cache of an earlier one", "0", "num_kv_shared_layers", "any"),
    row("embedding_length_per_layer_input", GEMMA4, "width of the embeddings of each layer", "refused", "hidden_size_per_layer_input", "any"),
];

/// Keys that llama.cpp knows, but does not read for these architectures: ignored with a note.
pub const GGUF_UNREAD: &[(&str, Families)] = &[
    ("attention.clamp_kqv", ALL),
    ("attention.layer_norm_epsilon", ALL),
    ("attention.output_scale", ALL),
    ("attention.scale", ALL),
    ("attention.temperature_scale", ALL),
    ("attention.value_scale", ALL),
    ("attn_logit_softcapping", ALL),
    ("embedding_scale", ALL),
    ("expert_weights_scale", ALL),
    ("hidden_activation", ALL),
    ("logit_scale", ALL),
    ("pooling_type", ALL),
    ("residual_scale", ALL),
    ("rope.scaling.alpha", ALL),
    ("rope.scaling.finetuned", ALL),
    ("rope.scaling.yarn_attn_factor", ALL),
    ("rope.scaling.yarn_beta_fast", ALL),
    ("rope.scaling.yarn_beta_slow", ALL),
    ("rope.scaling.yarn_ext_factor", ALL),
    ("rope.scaling.yarn_log_multiplier", ALL),
    ("tensor_data_layout", ALL),
    ("use_parallel_residual", ALL),
    ("expert_gating_func", QWEN3_MOE),
    ("expert_shared_feed_forward_length", QWEN3_MOE),
    ("expert_weights_norm", QWEN3_MOE),
    ("attention.shared_kv_layers", GEMMA3),
    ("attention.key_length_swa", LLAMA_QWEN),
    ("attention.value_length_swa", LLAMA_QWEN),
    ("attention.sliding_window", LLAMA_QWEN),
    ("attention.sliding_window_pattern", LLAMA_QWEN),
    ("final_logit_softcapping", LLAMA_QWEN),
    ("rope.dimension_count_swa", LLAMA_QWEN),
    ("rope.freq_base_swa", LLAMA_QWEN),
];
