"""Real models.

Video 1:46:22.
Promoted from notebooks/13_nanogpt.ipynb by `lecture promote`: edit the notebook, not this file.
"""

from pathlib import Path

import safetensors.torch
import torch

from lecture_lib.course.errors import CourseError
from lecture_lib.nanogpt import NanoGPT, NanoGPTConfig

__all__ = [
    "GPT2_NAMES",
    "NANOGPT_SIZES",
    "filled",
    "from_gpt2",
    "from_nanogpt",
    "gpt2_name",
    "is_conv1d",
    "load_gpt2",
    "plain",
    "to_gpt2",
    "to_nanogpt",
]

GPT2_NAMES = {  # ours, and those of GPT-2 and nanoGPT
    "token_embedding_table": "wte",
    "position_embedding_table": "wpe",
    "ln1": "ln_1",
    "sa.qkv": "attn.c_attn",
    "sa.proj": "attn.c_proj",
    "ln2": "ln_2",
    "ffwd.net.0": "mlp.c_fc",
    "ffwd.net.2": "mlp.c_proj",
    "body.ln": "ln_f",
    "lm_head": "lm_head",
}


def gpt2_name(name: str) -> str:
    """GPT-2's name of a tensor of `NanoGPT`: `body.blocks.3.sa.qkv.bias` is `h.3.attn.c_attn.bias`."""
    layer, kind = name.rsplit(".", 1)
    if not layer.startswith("body.blocks."):
        return f"{GPT2_NAMES[layer]}.{kind}"
    _, _, i, part = layer.split(".", 3)
    return f"h.{i}.{GPT2_NAMES[part]}.{kind}"


def is_conv1d(name: str, parameter: torch.Tensor) -> bool:
    """Whether GPT-2 keeps the tensor of that name, as it has it, on its side: the matrices of blocks."""
    return name.startswith("h.") and parameter.dim() == 2


def plain(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state by bare names: without `torch.compile`'s prefix and `transformer.`, and without masks."""
    bare = {name.removeprefix("_orig_mod.").removeprefix("transformer."): t for name, t in state.items()}
    return {name: t for name, t in bare.items() if not name.endswith((".attn.bias", ".attn.masked_bias"))}


@torch.no_grad()
def filled(model: NanoGPT, state: dict[str, torch.Tensor], conv1d: bool) -> NanoGPT:
    """`model` with the weights of `state`, which has bare names; ValueError for all that doesn't fit."""
    wanted = {gpt2_name(name): parameter for name, parameter in model.named_parameters()}
    logits = state.get("lm_head.weight", state.get("wte.weight"))
    problems = [
        f"{name} {tuple(state[name].shape)} is unknown" for name in state.keys() - wanted - {"lm_head.weight"}
    ]
    for name, parameter in wanted.items():
        expected = tuple(
            reversed(parameter.shape) if conv1d and is_conv1d(name, parameter) else parameter.shape
        )
        if name not in state:
            problems.append(f"{name} is missing, expected {expected}")
        elif state[name].shape != expected:
            problems.append(f"{name} has shape {tuple(state[name].shape)}, expected {expected}")
    if not problems and not torch.equal(logits, state["wte.weight"]):
        problems.append("lm_head.weight is not wte.weight, expected one matrix for both")
    if problems:
        raise ValueError("the weights don't fit " + f"{model.config}: " + "; ".join(sorted(problems)))
    for name, parameter in wanted.items():
        tensor = state[name]
        parameter.copy_(tensor.T if conv1d and is_conv1d(name, parameter) else tensor)
    return model.eval()


def from_gpt2(state: dict[str, torch.Tensor], n_head: int | None = None) -> NanoGPT:
    """GPT-2 from its state dict, as Hugging Face's `GPT2LMHeadModel` has it, with or without `transformer.`.

    By default n_head = n_embd / 64, as in all published sizes. In eval mode. Raises ValueError, which names
    each tensor that is missing, unknown, or of another shape than expected.
    """
    state = plain(state)
    for name in ("wte.weight", "wpe.weight"):
        if name not in state or state[name].dim() != 2:
            raise ValueError(f"{name} is missing or no matrix; expected the state dict of a GPT-2")
    (vocab_size, n_embd), block_size = state["wte.weight"].shape, len(state["wpe.weight"])
    n_layer = len({name.split(".")[1] for name in state if name.startswith("h.")})
    n_head = n_head or max(1, n_embd // 64)
    config = NanoGPTConfig(vocab_size, block_size, n_embd, n_head, n_layer, activation="gelu_tanh")
    return filled(NanoGPT(config), state, conv1d=True)


def to_gpt2(model: NanoGPT) -> dict[str, torch.Tensor]:
    """The state dict for Hugging Face's `GPT2LMHeadModel`, as copies; ValueError if it's no GPT-2."""
    needed = {"bias": True, "tied": True, "activation": "gelu_tanh"}
    found = {name: getattr(model.config, name) for name in needed}
    if found != needed:
        raise ValueError(f"the model has {found}; expected GPT-2's {needed}")
    state = {gpt2_name(name): tensor for name, tensor in model.state_dict().items()}
    state = {name: (t.T if is_conv1d(name, t) else t).clone() for name, t in state.items()}
    return {name if name == "lm_head.weight" else f"transformer.{name}": t for name, t in state.items()}


NANOGPT_SIZES = ("vocab_size", "block_size", "n_embd", "n_head", "n_layer", "dropout", "bias")


def from_nanogpt(checkpoint: dict) -> NanoGPT:
    """The model in a checkpoint of nanoGPT, `torch.load("ckpt.pt", map_location="cpu", weights_only=True)`.

    In eval mode. Raises ValueError, which names what is missing, unknown, or of another shape than expected.
    """
    for key in ("model", "model_args"):
        if key not in checkpoint:
            raise ValueError(f"the checkpoint has no {key!r}; expected nanoGPT's model and model_args")
    sizes = checkpoint["model_args"]
    if missing := [name for name in NANOGPT_SIZES if name not in sizes]:
        raise ValueError(f"model_args has no {', '.join(missing)}; expected {', '.join(NANOGPT_SIZES)}")
    config = NanoGPTConfig(
        **{name: sizes[name] for name in NANOGPT_SIZES}, attention_dropout=sizes["dropout"]
    )
    return filled(NanoGPT(config), plain(checkpoint["model"]), conv1d=False)


def to_nanogpt(model: NanoGPT) -> dict:
    """A checkpoint as nanoGPT's `sample.py` reads it, as copies; ValueError for a model of another kind."""
    needed = {"tied": True, "activation": "gelu"}
    found = {name: getattr(model.config, name) for name in needed}
    if found != needed:
        raise ValueError(f"the model has {found}; expected nanoGPT's {needed}")
    names = {name: gpt2_name(name) for name in model.state_dict()}
    names = {
        name: theirs if theirs == "lm_head.weight" else f"transformer.{theirs}"
        for name, theirs in names.items()
    }
    state = {names[name]: tensor.clone() for name, tensor in model.state_dict().items()}
    return {"model": state, "model_args": {name: getattr(model.config, name) for name in NANOGPT_SIZES}}


def load_gpt2(path: Path) -> NanoGPT:
    """GPT-2 from its published `model.safetensors`; CourseError if that's not what the file is."""
    try:
        return from_gpt2(safetensors.torch.load_file(path))
    except OSError as error:
        raise CourseError(f"cannot read {path}: {error.strerror or error}") from None
    except (safetensors.SafetensorError, ValueError) as error:
        raise CourseError(f"{path} is not GPT-2's model.safetensors: {error}") from None
