//! A tensor as its family declares it: what it is to the graph, what it is called everywhere, its shape, when it is
//! there. The one place that names come from; the lists are in `family/`.

use crate::{LayerSpec, ModelSpec, Role};

/// What a tensor is to its family's graph; the runtime asks for tensors by part. Shapes are `[rows, cols]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Token embedding.
    Embedding,
    /// Table of the per-layer embeddings.
    PerLayerTable,
    /// Projection of the embedding to all per-layer vectors.
    PerLayerModelProjection,
    /// Norm of that projection.
    PerLayerModelNorm,
    /// Norm before the head.
    FinalNorm,
    /// Output head.
    Head,
    /// Norm before attention.
    AttentionNorm,
    /// Query projection.
    Query,
    /// Its bias.
    QueryBias,
    /// Key projection.
    Key,
    /// Its bias.
    KeyBias,
    /// Value projection.
    Value,
    /// Its bias.
    ValueBias,
    /// Norm of each head's queries.
    QueryNorm,
    /// Norm of each head's keys.
    KeyNorm,
    /// Norm of each head's values; no graph has a weight for it.
    ValueNorm,
    /// Output projection of attention.
    Output,
    /// Its bias.
    OutputBias,
    /// One score of each head that stands for no position.
    Sinks,
    /// Gate of attention's result.
    OutputGate,
    /// Norm after attention, before its result is added.
    PostAttentionNorm,
    /// Norm before the MLP.
    MlpNorm,
    /// Gate of the MLP.
    Gate,
    /// Its bias.
    GateBias,
    /// Up projection of the MLP.
    Up,
    /// Its bias.
    UpBias,
    /// Down projection of the MLP.
    Down,
    /// Its bias.
    DownBias,
    /// Norm after the MLP (and the experts), before the result is added.
    PostMlpNorm,
    /// Norm of the dense MLP's result where experts stand next to it.
    DenseNorm,
    /// Weight of the norm before the router.
    RouterScale,
    /// Router.
    Router,
    /// Its bias.
    RouterBias,
    /// Added to a router's weights for the choice alone.
    SelectionBias,
    /// One factor for each expert.
    ExpertScale,
    /// Norm before the experts.
    ExpertNorm,
    /// Gate and up projections of all experts.
    ExpertGateUp,
    /// Their biases.
    ExpertGateUpBias,
    /// Down projections of all experts.
    ExpertDown,
    /// Their biases.
    ExpertDownBias,
    /// Gate of the MLP that every token takes in addition to its experts.
    SharedGate,
    /// Up projection of it.
    SharedUp,
    /// Down projection of it.
    SharedDown,
    /// Norm of the experts' result.
    PostExpertNorm,
    /// Gate of a layer's per-layer vector.
    PerLayerGate,
    /// Projection of a layer's per-layer vector.
    PerLayerProjection,
    /// Norm of that projection.
    PerLayerNorm,
    /// Factor on a layer's result.
    LayerScalar,
    /// Rotary frequencies that old files carry; the configuration says them.
    RotaryFrequencies,
}

impl Part {
    /// The bias of a projection.
    pub const fn bias(self) -> Option<Part> {
        match self {
            Part::Query => Some(Part::QueryBias),
            Part::Key => Some(Part::KeyBias),
            Part::Value => Some(Part::ValueBias),
            Part::Output => Some(Part::OutputBias),
            Part::Gate => Some(Part::GateBias),
            Part::Up => Some(Part::UpBias),
            Part::Down => Some(Part::DownBias),
            Part::Router => Some(Part::RouterBias),
            Part::ExpertGateUp => Some(Part::ExpertGateUpBias),
            Part::ExpertDown => Some(Part::ExpertDownBias),
            _ => None,
        }
    }
}

/// A size that the specification says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dim {
    /// One.
    One,
    /// Two: gates and up projections.
    Two,
    /// Rows of the embedding.
    Vocab,
    /// Width of the residual stream.
    Hidden,
    /// Query heads.
    Heads,
    /// Key-value heads.
    KvHeads,
    /// Width of a head.
    Head,
    /// Width of all queries.
    Queries,
    /// Width of all keys, or values.
    Keys,
    /// Width of the MLP.
    Mlp,
    /// Experts.
    Experts,
    /// Width of an expert.
    Expert,
    /// Gate and up rows of an expert.
    ExpertGateUp,
    /// Rows of the per-layer table.
    PerLayerVocab,
    /// Width of a layer's per-layer vector.
    PerLayer,
    /// Width of all of them.
    PerLayerAll,
}

impl Dim {
    /// The size; `None` where the model, or the layer, has no such thing.
    pub fn of(self, spec: &ModelSpec, layer: Option<&LayerSpec>) -> Option<usize> {
        let attention = layer.map(|layer| &layer.attention);
        let moe = layer.and_then(|layer| layer.moe.as_ref());
        let per_layer = spec.per_layer_embedding.as_ref();
        match self {
            Dim::One => Some(1),
            Dim::Two => Some(2),
            Dim::Vocab => Some(spec.vocab_size),
            Dim::Hidden => Some(spec.hidden_size),
            Dim::Heads => attention.map(|attention| attention.heads),
            Dim::KvHeads => attention.map(|attention| attention.kv_heads),
            Dim::Head => attention.map(|attention| attention.head_dim),
            Dim::Queries => attention.map(|attention| attention.q_width()),
            Dim::Keys => attention.map(|attention| attention.kv_width()),
            Dim::Mlp => layer.and_then(|layer| layer.mlp).map(|mlp| mlp.width),
            Dim::Experts => moe.map(|moe| moe.experts),
            Dim::Expert => moe.map(|moe| moe.width),
            Dim::ExpertGateUp => moe.map(|moe| 2 * moe.width),
            Dim::PerLayerVocab => per_layer.map(|table| table.vocab_size),
            Dim::PerLayer => per_layer.map(|table| table.width),
            Dim::PerLayerAll => per_layer.map(|table| table.width * spec.layers.len()),
        }
    }
}

/// A condition for a tensor to be one of the graph's. All sizes of its shape must exist as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The head is not tied to the embedding. A file may have a tied one all the same.
    OwnHead,
    /// The layer makes its own keys and values. A file may have weights for them all the same.
    OwnCache,
    /// Values are not the key projection's output.
    OwnValues,
    /// The configuration gives the projections of attention biases.
    AttentionBias,
    /// The configuration gives the projections of the MLP biases.
    MlpBias,
    /// Queries and keys are normed.
    QkNorm,
    /// The layer has experts.
    Experts,
    /// The model has per-layer embeddings.
    PerLayer,
    /// The layer's result has a factor.
    LayerScalar,
    /// Never; but files carry it.
    Leftover,
    /// Never.
    Never,
}

impl When {
    fn holds(self, spec: &ModelSpec, layer: Option<&LayerSpec>) -> bool {
        let layer = |of: fn(&LayerSpec) -> bool| layer.is_some_and(of);
        match self {
            When::OwnHead => !spec.tied_head,
            When::OwnCache => layer(|layer| layer.attention.kv_shared_with.is_none()),
            When::OwnValues => layer(|layer| !layer.attention.k_eq_v),
            When::AttentionBias => layer(|layer| layer.attention.bias),
            When::MlpBias => layer(|layer| layer.mlp.is_some_and(|mlp| mlp.bias)),
            When::QkNorm => layer(|layer| layer.attention.qk_norm),
            When::Experts => layer(|layer| layer.moe.is_some()),
            When::PerLayer => spec.per_layer_embedding.is_some(),
            When::LayerScalar => layer(|layer| layer.layer_scalar),
            When::Leftover | When::Never => false,
        }
    }

    /// Whether files have the tensor where the condition does not hold, and nothing is wrong.
    const fn leaves(self) -> bool {
        matches!(self, When::OwnHead | When::OwnCache | When::Leftover)
    }
}

/// How a tensor stands in files, where that is not as the graph has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// As it is.
    Plain,
    /// In a GGUF the rows of each of so many heads are interleaved: pairs that rotate together are neighbors.
    Interleaved(Dim),
    /// In a GGUF the 1 of `1 + weight` is already added.
    PlusOne,
    /// Matrices of experts, those of each one above the other.
    Stacked {
        /// What each expert has on the Hub, in that order; `E` stands for its number.
        hub: &'static [&'static str],
        /// In a GGUF each of these has one of the matrices of every expert, in that order; none where the stack is one.
        gguf: &'static [&'static str],
    },
    /// Matrices of experts, each transposed on the Hub (GPT-OSS), or blocks of 4-bit floats in `NAME_blocks` with powers of
    /// two in `NAME_scales`, which are not.
    Transposed {
        /// Whether gate and up rows stand in turn on the Hub.
        alternating: bool,
        /// As of a stack.
        gguf: &'static [&'static str],
    },
    /// Rows of a tensor that has those of several parts, on the Hub and in a GGUF (Phi).
    Fused(&'static Fused),
}

/// A tensor of files that has the rows of several parts of the graph, one part below the other.
#[derive(Debug, PartialEq, Eq)]
pub struct Fused {
    /// Its name on the Hub, as canonical names are spelled.
    pub hub: &'static str,
    /// Its name in a GGUF.
    pub gguf: &'static str,
    /// The parts, from its first row on.
    pub parts: &'static [Part],
}

impl Layout {
    /// Names of the parts of a stack, on the Hub and in a GGUF.
    pub(crate) const fn parts(self) -> [&'static [&'static str]; 2] {
        match self {
            Layout::Stacked { hub, gguf } => [hub, gguf],
            Layout::Transposed { gguf, .. } => [&[], gguf],
            _ => [&[], &[]],
        }
    }
}

/// A tensor of a family.
#[derive(Clone, Copy, Debug)]
pub struct Declared {
    /// What it is to the graph.
    pub part: Part,
    /// Canonical name: that of the text model saved alone. `N` stands for the layer's number.
    pub name: &'static str,
    /// Other names of it on the Hub, behind the same wrappers.
    pub spellings: &'static [&'static str],
    /// Name in a GGUF; `None` where the format has no place for it.
    pub gguf: Option<&'static str>,
    /// Dimensions, outermost first.
    pub shape: &'static [Dim],
    /// Decides how it may be encoded.
    pub role: Role,
    /// How files have it.
    pub layout: Layout,
    /// When the graph has it: all must hold.
    pub when: &'static [When],
}

impl Declared {
    /// A plain tensor that every model of the family has.
    pub(crate) const fn new(
        part: Part,
        name: &'static str,
        gguf: &'static str,
        role: Role,
        shape: &'static [Dim],
    ) -> Declared {
        let (gguf, spellings, layout, when) = (Some(gguf), &[] as &[&str], Layout::Plain, &[] as &[When]);
        Declared { part, name, spellings, gguf, shape, role, layout, when }
    }

    /// A norm's weight.
    pub(crate) const fn norm(
        part: Part,
        name: &'static str,
        gguf: &'static str,
        width: &'static [Dim],
    ) -> Declared {
        Declared::new(part, name, gguf, Role::Norm, width)
    }

    /// A tensor that no graph computes with: files carry it, or may where another condition does not hold.
    pub(crate) const fn unused(part: Part, name: &'static str, when: &'static [When]) -> Declared {
        let (spellings, shape, layout) = (&[] as &[&str], &[] as &[Dim], Layout::Plain);
        Declared { part, name, spellings, gguf: None, shape, role: Role::Unused, layout, when }
    }

    pub(crate) const fn when(self, when: &'static [When]) -> Declared {
        Declared { when, ..self }
    }

    /// The tensor of files that it stands in with others.
    pub(crate) fn fused(&self) -> Option<&'static Fused> {
        match self.layout {
            Layout::Fused(fused) => Some(fused),
            _ => None,
        }
    }

    pub(crate) const fn spelled(self, spellings: &'static [&'static str]) -> Declared {
        Declared { spellings, ..self }
    }

    pub(crate) const fn stored(self, layout: Layout) -> Declared {
        Declared { layout, ..self }
    }

    /// Whether every layer has one.
    pub fn is_of_layers(&self) -> bool {
        self.name.contains(LAYER)
    }

    /// The canonical name, in a layer.
    pub fn name_in(&self, layer: Option<usize>) -> String {
        numbered(self.name, layer)
    }

    /// The module that has it, as adapters call it without the layer: `q_proj`.
    pub fn module(&self) -> &'static str {
        let stem = self.name.strip_suffix(".weight").or_else(|| self.name.strip_suffix(".bias"));
        let stem = stem.unwrap_or(self.name);
        stem.rsplit_once('.').map_or(stem, |(_, module)| module)
    }

    /// Dimensions in a model; `None` where it has no such tensor.
    pub fn shape_in(&self, spec: &ModelSpec, layer: Option<usize>) -> Option<Vec<usize>> {
        let layer = layer_of(spec, layer)?;
        let there = self.when.iter().all(|when| when.holds(spec, layer));
        let shape = || self.shape.iter().map(|dim| dim.of(spec, layer)).collect();
        if there { shape() } else { None }
    }

    /// Whether a file may have it although the graph does not compute with it.
    pub(crate) fn may_be_left(&self, spec: &ModelSpec, layer: Option<usize>) -> bool {
        let Some(layer) = layer_of(spec, layer) else { return false };
        self.when.iter().any(|when| when.leaves() && !when.holds(spec, layer))
    }
}

/// The layer of a number; `None` when there is no such layer.
fn layer_of(spec: &ModelSpec, layer: Option<usize>) -> Option<Option<&LayerSpec>> {
    layer.map_or(Some(None), |layer| spec.layers.get(layer).map(Some))
}

/// Name in a GGUF of the factors on rotary frequencies, which are a part of the configuration on the Hub.
pub(crate) const ROPE_FREQS: &str = "rope_freqs.weight";

/// Names in a GGUF of the divisors of frequencies of long and of short contexts, in the order of a file (Phi).
pub(crate) const ROPE_FACTORS: [&str; 2] = ["rope_factors_long.weight", "rope_factors_short.weight"];

/// Where a layer's number stands in declared names.
const LAYER: &str = ".N.";
/// Where an expert's stands.
const EXPERT: &str = ".E.";

/// A declared name with a layer's number in it.
pub(crate) fn numbered(declared: &str, layer: Option<usize>) -> String {
    match layer {
        Some(layer) => declared.replacen(LAYER, &format!(".{layer}."), 1),
        None => declared.to_owned(),
    }
}

/// Whether a name is the declared one, and of which layer.
pub(crate) fn matched(declared: &str, name: &str) -> Option<Option<usize>> {
    let Some((front, back)) = declared.split_once(LAYER) else { return (declared == name).then_some(None) };
    let (number, rest) = name.strip_prefix(front)?.strip_prefix('.')?.split_once('.')?;
    let number = number.parse().ok().filter(|_| is_number(number) && rest == back)?;
    Some(Some(number))
}

/// Whether a name is a declared one of an expert's matrix, of which layer and expert.
pub(crate) fn matched_expert(declared: &str, name: &str) -> Option<(Option<usize>, usize)> {
    let (front, back) = declared.split_once(EXPERT)?;
    let stem = name.strip_suffix(back)?.strip_suffix('.')?;
    let (rest, expert) = stem.rsplit_once('.')?;
    Some((matched(front, rest)?, expert.parse().ok().filter(|_| is_number(expert))?))
}

/// A declared name with an expert's number in it.
pub(crate) fn of_expert(declared: &str, expert: usize) -> String {
    declared.replacen(EXPERT, &format!(".{expert}."), 1)
}

/// The declared tensor with this canonical name, and its layer.
pub(crate) fn find(list: &'static [Declared], canonical: &str) -> Option<(&'static Declared, Option<usize>)> {
    list.iter().find_map(|declared| Some((declared, matched(declared.name, canonical)?)))
}

/// The canonical name of a tensor that a family calls otherwise as well; other names stay.
pub(crate) fn respelled(list: &[Declared], name: String) -> String {
    let of = |declared: &Declared| {
        let layer = declared.spellings.iter().find_map(|spelling| matched(spelling, &name))?;
        Some(declared.name_in(layer))
    };
    list.iter().find_map(of).unwrap_or(name)
}

/// Whether digits are a number in its one spelling, without leading zeros.
pub(crate) fn is_number(digits: &str) -> bool {
    let plain = digits == "0" || !digits.starts_with('0');
    plain && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_spellings_become_the_canonical_name() {
        const NORM: Declared =
            Declared::norm(Part::MlpNorm, "model.layers.N.ffn.norm", "blk.N.ffn_norm.weight", &[]);
        let list =
            [Declared { spellings: &["model.layers.N.ln_2.weight", "model.layers.N.ln2.weight"], ..NORM }];
        for (name, expected) in [
            ("model.layers.7.ln_2.weight", "model.layers.7.ffn.norm"),
            ("model.layers.10.ln2.weight", "model.layers.10.ffn.norm"),
            ("model.layers.7.ffn.norm", "model.layers.7.ffn.norm"),
            ("model.layers.07.ln2.weight", "model.layers.07.ln2.weight"),
        ] {
            assert_eq!(respelled(&list, name.to_owned()), expected);
        }
    }
}
