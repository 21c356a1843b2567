"""Parameters, FLOPs and memory by formula.

From notebooks/13d_sizing.ipynb.
Video 1:46:22.
Written by `lecture promote`: edit the notebook, not this file.

Radford et al. 2019: https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf
Brown et al. 2020: https://arxiv.org/abs/2005.14165
"""

from lecture_lib.nanogpt import NanoGPTConfig

__all__ = ["PUBLISHED", "cache_bytes", "forward_flops", "parameter_counts", "training_bytes"]


def parameter_counts(config: NanoGPTConfig) -> dict[str, int]:
    """Parameters of a `NanoGPT` by part."""
    V, C, L, bias = config.vocab_size, config.n_embd, config.n_layer, int(config.bias)
    return {
        "embeddings": V * C + config.block_size * C,
        "attention": L * (4 * C**2 + bias * 4 * C),
        "feed-forward": L * (8 * C**2 + bias * 5 * C),
        "norms": (2 * L + 1) * (1 + bias) * C,
        "logits": 0 if config.tied else V * C + V,
    }


PUBLISHED = {  # Radford et al. 2019, 2.3 and the released models; Brown et al. 2020, 2.1
    "GPT-2 124M": NanoGPTConfig(50257, 1024, n_embd=768, n_head=12, n_layer=12, activation="gelu_tanh"),
    "GPT-2 1.5B": NanoGPTConfig(50257, 1024, n_embd=1600, n_head=25, n_layer=48, activation="gelu_tanh"),
    "GPT-3 175B": NanoGPTConfig(50257, 2048, n_embd=12288, n_head=96, n_layer=96, activation="gelu_tanh"),
}


def forward_flops(config: NanoGPTConfig, T: int | None = None) -> dict[str, int]:
    """Operations of a forward pass for each of T tokens (default: block_size): the matrix products.

    Training costs three times as much. With a cache, a new token with T - 1 before it costs this once.
    """
    V, C, L = config.vocab_size, config.n_embd, config.n_layer
    return {
        "attention": L * 2 * 4 * C**2,
        "scores": L * 4 * (config.block_size if T is None else T) * C,  # and mixing the values
        "feed-forward": L * 2 * 8 * C**2,
        "logits": 2 * V * C,
    }


def training_bytes(config: NanoGPTConfig, B: int, T: int | None = None) -> dict[str, int]:
    """Bytes that training takes on B texts of T tokens (default: block_size), in 32 bits, without dropout.

    Activations are what the forward pass keeps for the backward pass, with torch's tiled attention. At its
    peak the backward pass needs more: the gradients of the logits and of their log-softmax, V numbers each
    for every token.
    """
    T = config.block_size if T is None else T
    V, C, L = config.vocab_size, config.n_embd, config.n_layer
    parameters = sum(parameter_counts(config).values())
    inputs = (12 if config.activation == "relu" else 16) * C  # of norms, matrices, attention, activation
    sums = config.n_head + 4  # a sum for each row of attention weights; mean and width for each norm
    return {
        "weights": 4 * parameters,
        "gradients": 4 * parameters,
        "AdamW": 8 * parameters,
        "activations": 4 * B * T * (L * (inputs + sums) + 2 * C + 2 + V),
    }


def cache_bytes(config: NanoGPTConfig, B: int = 1, T: int | None = None, width: int = 4) -> int:
    """Bytes of the KV caches of B texts of T tokens (default: block_size) in numbers of `width` bytes."""
    return 2 * config.n_layer * B * (config.block_size if T is None else T) * config.n_embd * width
