//! Everything a graph needs to know about a model, in plain values.

use crate::Family;
use serde::{Deserialize, Serialize};

/// A language model: sizes, constants and one entry per layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelSpec {
    /// Which graph.
    pub family: Family,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Layers in order.
    pub layers: Vec<LayerSpec>,
    /// Rotary embeddings in use; [`AttentionSpec::rope`] indexes them.
    pub ropes: Vec<RopeSpec>,
    /// Added to the mean square in every RMS norm.
    pub norm_eps: f32,
    /// Whether RMS norms multiply by `1 + weight` (Gemma 3) instead of `weight`.
    pub norm_plus_one: bool,
    /// Factor on looked-up embeddings: `sqrt(hidden_size)` rounded to f32 (Gemma).
    pub embed_scale: Option<f32>,
    /// Logits become `cap * tanh(logits / cap)`.
    pub final_softcap: Option<f32>,
    /// Whether the embedding is also the head.
    pub tied_head: bool,
    /// Longest sequence the model was made for, in tokens.
    pub max_positions: usize,
    /// Beginning of sequence. Whether text starts with it is the tokenizer's decision.
    pub bos: Option<u32>,
    /// Tokens that end generation.
    pub eos: Vec<u32>,
    /// Padding.
    pub pad: Option<u32>,
    /// Per-layer embeddings (Gemma 4 E models).
    pub per_layer_embedding: Option<PerLayerEmbedding>,
    /// How F8 weights or integer codes were made, when the configuration says so: the name of the method or form.
    pub quantization: Option<String>,
}

impl ModelSpec {
    /// Tokens of the longest context with the frequencies of short ones, where long ones have others (LongRoPE).
    pub fn short_context(&self) -> Option<usize> {
        self.ropes.iter().filter_map(|rope| Some(rope.long.as_ref()?.beyond)).min()
    }
}

/// One transformer block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerSpec {
    /// Attention.
    pub attention: AttentionSpec,
    /// Dense MLP; a layer has one, experts, or both.
    pub mlp: Option<MlpSpec>,
    /// Experts.
    pub moe: Option<MoeSpec>,
    /// Where norms stand.
    pub norms: NormPlacement,
    /// Whether the block's result is multiplied by its `layer_scalar`.
    pub layer_scalar: bool,
}

impl LayerSpec {
    /// Rows of the dense MLP's gate; 0 where there is none.
    pub fn mlp_width(&self) -> usize {
        self.mlp.map_or(0, |mlp| mlp.width)
    }

    /// Rows of all gates that every token passes: of the dense MLP and of the one next to experts.
    pub fn dense_width(&self) -> usize {
        self.mlp_width() + self.moe.and_then(|moe| moe.shared_width).unwrap_or(0)
    }
}

/// Attention of one layer.
///
/// Shapes per token: q `[heads, head_dim]`, k and v `[kv_heads, head_dim]`;
/// query head `h` meets key-value head `h / (heads / kv_heads)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttentionSpec {
    /// Query heads.
    pub heads: usize,
    /// Key-value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head, for queries, keys and values.
    pub head_dim: usize,
    /// A query at position p sees positions `p - window + 1 ..= p`; `None`: all up to p.
    pub window: Option<usize>,
    /// Index into [`ModelSpec::ropes`].
    pub rope: usize,
    /// Factor on `q . k`.
    pub scale: f32,
    /// Scores become `cap * tanh(scores / cap)` before the softmax.
    pub softcap: Option<f32>,
    /// Whether queries and keys pass an RMS norm with a weight `[head_dim]` before the rotary embedding.
    pub qk_norm: bool,
    /// Whether values pass an RMS norm without a weight.
    pub v_norm: bool,
    /// Whether values are the key projection's output (before its norm and rotary embedding); there is no `v_proj`.
    pub k_eq_v: bool,
    /// The earlier layer whose keys and values are read; this layer then has no key or value weights and no cache.
    pub kv_shared_with: Option<usize>,
    /// How scores grow with the query's position (Ministral 3); `None`: they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_growth: Option<QueryGrowth>,
    /// Whether the four projections have biases.
    pub bias: bool,
    /// Whether each head has a score of its own in the softmax that stands for no position: what it takes of the sum
    /// goes to no value (GPT-OSS).
    pub sinks: bool,
    /// Whether the heads' result is multiplied by the sigmoid of another projection of the layer's input.
    pub output_gate: bool,
}

impl AttentionSpec {
    /// All positions up to the query's, scores over the square root of a head's width, and nothing else.
    pub fn new(heads: usize, kv_heads: usize, head_dim: usize) -> AttentionSpec {
        AttentionSpec {
            heads,
            kv_heads,
            head_dim,
            window: None,
            rope: 0,
            scale: (1.0 / (head_dim as f64).sqrt()) as f32,
            softcap: None,
            qk_norm: false,
            v_norm: false,
            k_eq_v: false,
            kv_shared_with: None,
            query_growth: None,
            bias: false,
            sinks: false,
            output_gate: false,
        }
    }

    /// Factor on `q . k` of a query at a position.
    pub fn scale_at(&self, position: usize) -> f32 {
        match self.query_growth {
            None => self.scale,
            Some(growth) => self.scale * growth.at(position),
        }
    }

    /// Width of the queries of one token, all heads.
    pub const fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of the keys (or values) of one token, all heads.
    pub const fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

/// Queries at position p times `1 + beta ln(1 + floor(p / original_max_positions))`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryGrowth {
    /// Factor on the logarithm.
    pub beta: f64,
    /// Positions before the first step.
    pub original_max_positions: f64,
}

impl QueryGrowth {
    /// The factor at a position; the same bits everywhere.
    pub fn at(self, position: usize) -> f32 {
        let steps = (position as f64 / self.original_max_positions).floor();
        (1.0 + self.beta * libm::log(1.0 + steps)) as f32
    }
}

/// Gated MLP: `down(activation(gate(x), up(x)))`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MlpSpec {
    /// Rows of gate and up.
    pub width: usize,
    /// Joins gate and up.
    pub activation: Activation,
    /// Whether the three projections have biases.
    pub bias: bool,
}

/// What a gate and an up value become: `curve(min(gate, limit)) * (clamp(up, -limit, limit) + up_offset)`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Activation {
    /// Of the gate.
    pub curve: Curve,
    /// Gates are cut above it, up values on both sides; `None`: neither is.
    pub limit: Option<f32>,
    /// Added to up values.
    pub up_offset: f32,
}

impl Activation {
    /// `gate * sigmoid(gate) * up`.
    pub const SILU: Activation = Activation::of(Curve::Swish { alpha: 1.0 });
    /// `gelu_tanh(gate) * up`.
    pub const GELU_TANH: Activation = Activation::of(Curve::GeluTanh);
    /// `sigmoid(gate) * up`.
    pub const SIGMOID: Activation = Activation::of(Curve::Sigmoid);

    const fn of(curve: Curve) -> Activation {
        Activation { curve, limit: None, up_offset: 0.0 }
    }
}

/// Elementwise function of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Curve {
    /// `x * sigmoid(alpha x)`; SiLU where alpha is 1.
    Swish {
        /// Factor on the sigmoid's argument.
        alpha: f32,
    },
    /// `0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`.
    GeluTanh,
    /// `1 / (1 + e^-x)`.
    Sigmoid,
}

/// Experts: the sum of `factor * down(activation(gate(x), up(x)))` over the experts that the router chooses for a token.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MoeSpec {
    /// Experts in the layer.
    pub experts: usize,
    /// Rows of each expert's gate and of its up projection.
    pub width: usize,
    /// Joins gate and up.
    pub activation: Activation,
    /// Which experts a token takes, and their factors.
    pub router: RouterSpec,
    /// `hidden_size^-0.5` where the router's input is the residual after a weightless RMS norm, times `scale[hidden]`,
    /// times this (Gemma 4); `None`: it is what the experts take.
    pub input_scale: Option<f32>,
    /// Width of an MLP that every token takes in addition, unweighted.
    pub shared_width: Option<usize>,
}

/// How scores `[experts]` of a token choose experts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouterSpec {
    /// What scores become.
    pub scoring: Scoring,
    /// Experts of a token: those of the largest weights, of equals the first.
    pub top_k: usize,
    /// Groups of experts of which only some are open to a token.
    pub groups: Option<ExpertGroups>,
    /// Whether a vector `[experts]` is added to the weights for the choice alone (`e_score_correction_bias`).
    pub selection_bias: bool,
    /// Whether the chosen weights are divided by their sum.
    pub renormalize: bool,
    /// Factor on the chosen weights.
    pub scale: f32,
}

impl RouterSpec {
    /// The `top_k` largest of a softmax over all, renormalized.
    pub const fn softmax(top_k: usize) -> RouterSpec {
        let scoring = Scoring::Softmax;
        RouterSpec { scoring, top_k, groups: None, selection_bias: false, renormalize: true, scale: 1.0 }
    }
}

/// What a router's scores become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scoring {
    /// Softmax over all experts, before the choice (Qwen3-MoE).
    Softmax,
    /// Softmax over the chosen ones, which are those of the largest scores (GPT-OSS).
    SoftmaxOfChosen,
    /// Each one's sigmoid (DeepSeek-V3, GLM-4.5, Kimi K2).
    Sigmoid,
}

/// A token takes experts of its best groups alone. Groups have as many experts each, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ExpertGroups {
    /// Groups; divides the number of experts.
    pub count: usize,
    /// Groups open to a token.
    pub kept: usize,
    /// A group is as good as the sum of so many of its largest weights: 2 (DeepSeek-V3), or 1 (DeepSeek-V2).
    pub best: usize,
}

/// Norms around attention and MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormPlacement {
    /// `input_layernorm` before attention, `post_attention_layernorm` before the MLP (Llama).
    Pre,
    /// Before and after both: `post_attention_layernorm` follows attention, the MLP stands between
    /// `pre_feedforward_layernorm` and `post_feedforward_layernorm` (Gemma).
    PreAndPost,
}

/// Rotary embedding of one layer type: dimension i of a head turns with i + n, n being the number of pairs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RopeSpec {
    /// Width of the heads it is for. The first two dimensions of every pair turn, those behind them stay as they are.
    pub head_dim: usize,
    /// Base of the frequencies.
    pub theta: f64,
    /// Radians per position for each pair `(i, i + n)`, at most half as many as a head is wide; zero where a pair does not
    /// turn.
    pub inv_freq: Vec<f32>,
    /// Other frequencies of contexts longer than the model's first one (LongRoPE); `None`: the same for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub long: Option<LongFrequencies>,
    /// Factor on cosines and sines (1 but for YaRN and LongRoPE).
    pub attention_factor: f32,
    /// How the frequencies were made.
    pub kind: RopeKind,
}

impl RopeSpec {
    /// Dimensions of a head that turn, the first ones.
    pub fn turning(&self) -> usize {
        2 * self.inv_freq.len()
    }

    /// Frequencies of a context of so many tokens: what a cache is made for, or a whole sequence has.
    pub fn frequencies(&self, context: usize) -> &[f32] {
        match &self.long {
            Some(long) if context > long.beyond => &long.inv_freq,
            _ => &self.inv_freq,
        }
    }
}

/// Frequencies of long contexts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LongFrequencies {
    /// Tokens of the longest context that has the others.
    pub beyond: usize,
    /// Radians per position for each pair.
    pub inv_freq: Vec<f32>,
}

/// How frequencies are derived from theta.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum RopeKind {
    /// `theta^(-2i / head_dim)`.
    Default,
    /// Frequencies divided by `factor`.
    Linear {
        /// Divisor.
        factor: f64,
    },
    /// Low frequencies divided by `factor`, high ones kept, a ramp between (Llama 3.1).
    Llama3 {
        /// Divisor of low frequencies.
        factor: f64,
        /// Wavelengths above `original_max_positions / low_freq_factor` are low frequencies.
        low_freq_factor: f64,
        /// Wavelengths below `original_max_positions / high_freq_factor` are high frequencies.
        high_freq_factor: f64,
        /// Context length before the extension, in tokens.
        original_max_positions: f64,
    },
    /// Plain frequencies up to the longest sequence that the model was made for; a larger theta beyond (NTK).
    Dynamic {
        /// Divisor of the longest sequence.
        factor: f64,
    },
    /// Each frequency divided by a factor of its own (LongRoPE); the frequencies alone say which.
    Factors,
    /// Interpolation by parts with a factor on the scores (YaRN).
    Yarn {
        /// Divisor of low frequencies.
        factor: f64,
        /// Rotations over the original context above which a pair is kept.
        beta_fast: f64,
        /// Rotations over the original context below which a pair is divided.
        beta_slow: f64,
        /// Context length before the extension, in tokens.
        original_max_positions: f64,
        /// Whether the ramp between them begins and ends at whole pairs.
        truncate: bool,
    },
    /// The first `rotary_fraction * head_dim / 2` pairs turn with `theta^(-2i / head_dim) / factor`, the others do not.
    Proportional {
        /// Part of the pairs that turn.
        rotary_fraction: f64,
        /// Divisor.
        factor: f64,
    },
}

/// Per-layer embeddings: one `width`-vector per layer and token,
/// `(norm(projection(h) * projection_scale) + table[token] * table_scale) * sum_scale`, h the scaled embedding.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PerLayerEmbedding {
    /// Rows of the table.
    pub vocab_size: usize,
    /// Width per layer; the table is `[vocab_size, layers * width]`.
    pub width: usize,
    /// `sqrt(width)`.
    pub table_scale: f32,
    /// `hidden_size^-0.5`.
    pub projection_scale: f32,
    /// `2^-0.5`.
    pub sum_scale: f32,
    /// Joins a layer's gate and its vector.
    pub activation: Activation,
}
