"""Wrong readings of Mistral and Ministral 3, applied to the reference: see tiny_mutations.py."""
from transformers.activations import ACT2FN
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS


def of(*families: str):
    """A mutation of these families alone."""
    def wrap(change):
        def mutate(model) -> bool:
            if model.config.model_type not in families:
                return False
            return change(model) is not False
        return mutate
    return wrap


def growth(**changes):
    """Other constants of the queries' growth."""
    @of("ministral3")
    def change(model):
        for layer in model.model.layers:
            attention = layer.self_attn
            attention.config = type(model.config)(**model.config.to_dict())
            attention.config.rope_parameters = {**model.config.rope_parameters, **changes}
            attention.config._attn_implementation = model.config._attn_implementation
    return change


def frequencies(**changes):
    @of("ministral3")
    def change(model):
        rotary, config = model.model.rotary_emb, type(model.config)(**model.config.to_dict())
        config.rope_parameters = {**config.rope_parameters, **changes}
        if config.rope_parameters["rope_type"] == "default":
            new, _ = rotary.compute_default_rope_parameters(config)
        else:
            new, _ = ROPE_INIT_FUNCTIONS["yarn"](config)
        rotary.inv_freq.copy_(new)
    return change


@of("ministral3")
def own_factor(model):
    """The usual factor of YaRN on cosines and sines, which this family's two scales cancel."""
    model.model.rotary_emb.attention_scaling = 1 + 0.1 * 2.772588722239781


@of("mistral", "ministral3")
def no_scale(model):
    for layer in model.model.layers:
        layer.self_attn.scaling = 1.0


@of("mistral", "ministral3")
def scale_by_share(model):
    """By the hidden size's share, where heads have another width."""
    for layer in model.model.layers:
        layer.self_attn.scaling = (model.config.hidden_size / model.config.num_attention_heads) ** -0.5


@of("mistral", "ministral3")
def gelu(model):
    for layer in model.model.layers:
        layer.mlp.act_fn = ACT2FN["gelu_pytorch_tanh"]


MISTRAL = {
    "queries do not grow": growth(llama_4_scaling_beta=0.0),
    "queries grow twice as fast": growth(llama_4_scaling_beta=0.2),
    "queries grow from another length on": growth(original_max_position_embeddings=8),
    "frequencies not stretched": frequencies(rope_type="default"),
    "frequencies of another factor": frequencies(factor=8.0),
    "factor of YaRN on angles": own_factor,
    "no scale of scores": no_scale,
    "scores scaled by the hidden size's share": scale_by_share,
    "GELU in place of SiLU": gelu,
}
