"""Wrong readings of Phi, applied to the reference: see tiny_mutations.py."""
import torch
from transformers.activations import ACT2FN
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS


def of_phi(change):
    def mutate(model) -> bool:
        return model.config.model_type == "phi3" and change(model) is not False
    return mutate


def lists(model) -> tuple[torch.Tensor, torch.Tensor]:
    """Frequencies of short and of long contexts."""
    original = model.config.rope_parameters["original_max_position_embeddings"]
    make = ROPE_INIT_FUNCTIONS["longrope"]
    return make(model.config)[0], make(model.config, seq_len=original + 1)[0]


def set_lists(model, short: torch.Tensor, long: torch.Tensor) -> None:
    rotary = model.model.rotary_emb
    rotary.inv_freq = torch.nn.Buffer(short.clone(), persistent=False)
    rotary.original_inv_freq = torch.nn.Buffer(short.clone(), persistent=False)
    rotary.long_inv_freq = long.clone()


def plain(model, dim: int) -> torch.Tensor:
    theta = model.config.rope_parameters["rope_theta"]
    return 1.0 / theta ** (torch.arange(0, dim, 2).float() / dim)


def head_dim(model) -> int:
    return model.config.hidden_size // model.config.num_attention_heads


@of_phi
def other_list(model):
    set_lists(model, *reversed(lists(model)))


@of_phi
def no_factors(model):
    dim = 2 * len(lists(model)[0])
    set_lists(model, plain(model, dim), plain(model, dim))


@of_phi
def denominator_of_heads(model):
    """The denominator of the frequencies taken as the whole head."""
    pairs, dim = len(lists(model)[0]), head_dim(model)
    if 2 * pairs == dim:
        return False
    ratio = plain(model, dim)[:pairs] / plain(model, 2 * pairs)
    set_lists(model, *(part * ratio for part in lists(model)))


@of_phi
def all_pairs(model):
    """partial_rotary_factor ignored."""
    pairs, dim = len(lists(model)[0]), head_dim(model)
    if 2 * pairs == dim:
        return False
    rest = plain(model, dim)[pairs:]
    set_lists(model, *(torch.cat([part, rest]) for part in lists(model)))


def theta_doubled(model) -> bool:
    """For tiny_mutations.py: frequencies that a forward pass chooses among."""
    exponent = torch.linspace(0, 1, len(lists(model)[0]))
    set_lists(model, *(part * 2.0 ** -exponent for part in lists(model)))
    return True


def attention_factor(change):
    @of_phi
    def mutate(model):
        rotary = model.model.rotary_emb
        rotary.attention_scaling = change(rotary.attention_scaling)
    return mutate


def heads_reordered(order):
    """Dimensions of each head of queries and keys in another order, as if others turned together."""
    @of_phi
    def mutate(model):
        config, dim = model.config, head_dim(model)
        places = order(dim, 2 * len(lists(model)[0]))
        if places is None:
            return False
        heads = config.num_attention_heads + config.num_key_value_heads
        rows = torch.cat([head * dim + torch.tensor(places) for head in range(heads)])
        for layer in model.model.layers:
            weight = layer.self_attn.qkv_proj.weight
            weight.data[:len(rows)] = weight.data[rows]
    return mutate


def halves_of_heads(dim: int, turning: int):
    """Pairs i and i + dim / 2 of a head of which a part turns."""
    half, pairs = dim // 2, turning // 2
    if turning == dim:
        return None
    first = [*range(pairs), *range(half, half + pairs)]
    return first + [i for i in range(dim) if i not in first]


def last_dimensions(dim: int, turning: int):
    return None if turning == dim else [*range(dim - turning, dim), *range(dim - turning)]


def neighbors(dim: int, turning: int):
    return [*range(0, turning, 2), *range(1, turning, 2), *range(turning, dim)]


def rows_reordered(order):
    """Rows of the fused projection of attention read in another order."""
    @of_phi
    def mutate(model):
        config, dim = model.config, head_dim(model)
        if order is by_heads and config.num_key_value_heads == 1:
            return False
        q, k = config.num_attention_heads * dim, config.num_key_value_heads * dim
        rows = order(torch.arange(q), torch.arange(q, q + k), torch.arange(q + k, q + 2 * k), dim)
        for layer in model.model.layers:
            weight = layer.self_attn.qkv_proj.weight
            weight.data = weight.data[rows]
    return mutate


def by_heads(q, k, v, dim):
    """Each key-value head behind its queries, as GPT-NeoX and Falcon have them."""
    heads = len(k) // dim
    parts = [part.reshape(heads, -1) for part in (q, k, v)]
    inverse = torch.cat(parts, dim=1).reshape(-1)
    return inverse.argsort()


@of_phi
def up_first(model):
    for layer in model.model.layers:
        weight = layer.mlp.gate_up_proj.weight
        weight.data = weight.data.roll(weight.shape[0] // 2, dims=0)


@of_phi
def gates_in_turn(model):
    for layer in model.model.layers:
        weight = layer.mlp.gate_up_proj.weight
        weight.data = torch.cat([weight.data[::2], weight.data[1::2]])


@of_phi
def gelu(model):
    for layer in model.model.layers:
        layer.mlp.activation_fn = ACT2FN["gelu_pytorch_tanh"]


@of_phi
def no_scale(model):
    for layer in model.model.layers:
        layer.self_attn.scaling = 1.0


PHI3 = {
    "LongRoPE: the list of the other contexts": other_list,
    "LongRoPE: no factors": no_factors,
    "LongRoPE: no attention factor": attention_factor(lambda factor: 1.0),
    "LongRoPE: attention factor twice": attention_factor(lambda factor: factor ** 2),
    "partial RoPE: denominator of whole heads": denominator_of_heads,
    "partial RoPE: all pairs turn": all_pairs,
    "partial RoPE: halves of whole heads": heads_reordered(halves_of_heads),
    "partial RoPE: the last dimensions turn": heads_reordered(last_dimensions),
    "RoPE turns neighbors": heads_reordered(neighbors),
    "fused: values before keys": rows_reordered(lambda q, k, v, dim: torch.cat([q, v, k])),
    "fused: keys before queries": rows_reordered(lambda q, k, v, dim: torch.cat([k, q, v])),
    "fused: head by head": rows_reordered(by_heads),
    "fused: up before gate": up_first,
    "fused: gate and up in turn": gates_in_turn,
    "GELU for SiLU": gelu,
    "scores not scaled": no_scale,
}
