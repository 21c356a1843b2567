"""Read and write the weights of GPT-2 and nanoGPT.

From notebooks/13_nanogpt.ipynb, section "5. GPT-2's weights".
Video 1:46:22.
Written by `lecture promote`: edit the notebook, not this file.
"""

from pathlib import Path

import safetensors.torch
import torch
from tokenizers import Tokenizer

from lecture_lib.base.errors import CourseError
from lecture_lib.nanogpt import NanoGPT, NanoGPTConfig

__all__ = [
    "GPT2_NAMES",
    "NANOGPT_SIZES",
    "bare_names",
    "conv1d_layout",
    "from_gpt2",
    "from_nanogpt",
    "gpt2_name",
    "load_gpt2",
    "load_gpt2_tokenizer",
    "load_named",
    "readable",
    "state_problems",
    "to_gpt2",
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


def conv1d_layout(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """A tensor by its name in GPT-2, the matrices of blocks transposed: to `Conv1D`'s layout, or back."""
    return tensor.T if name.startswith("h.") and tensor.dim() == 2 else tensor


def bare_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state without `torch.compile`'s prefix and `transformer.` in its names, and without masks."""
    bare = {name.removeprefix("_orig_mod.").removeprefix("transformer."): t for name, t in state.items()}
    return {name: t for name, t in bare.items() if not name.endswith((".attn.bias", ".attn.masked_bias"))}


def state_problems(state: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> list[str]:
    """What is unknown, missing or of another shape in a state with bare names, compared with `wanted`."""
    shapes = {name: tuple(t.shape) for name, t in state.items() if name != "lm_head.weight"}
    expected = {name: tuple(t.shape) for name, t in wanted.items()}
    problems = [f"{name} {shapes[name]} is unknown" for name in shapes.keys() - expected]
    problems += [f"{name} is missing, expected {expected[name]}" for name in expected.keys() - shapes]
    for name in shapes.keys() & expected:
        if shapes[name] != expected[name]:
            problems.append(f"{name} has shape {shapes[name]}, expected {expected[name]}")
    lm_head = state.get("lm_head.weight")
    if not problems and lm_head is not None and not torch.equal(lm_head, state["wte.weight"]):
        problems.append("lm_head.weight is not wte.weight, expected one matrix for both")
    return sorted(problems)


@torch.no_grad()
def load_named(model: NanoGPT, state: dict[str, torch.Tensor], conv1d: bool) -> NanoGPT:
    """Load a state with bare names into `model` and return it in eval mode; ValueError if they don't fit.

    `conv1d` says which layout the matrices of blocks have in the state: `Conv1D`'s, or `nn.Linear`'s.
    """
    wanted = {gpt2_name(name): parameter for name, parameter in model.named_parameters()}
    if conv1d:
        wanted = {name: conv1d_layout(name, parameter) for name, parameter in wanted.items()}  # views
    if problems := state_problems(state, wanted):
        raise ValueError(f"the weights don't fit {model.config}: {'; '.join(problems)}")
    for name, parameter in wanted.items():
        parameter.copy_(state[name])
    return model.eval()


def from_gpt2(state: dict[str, torch.Tensor], n_head: int | None = None) -> NanoGPT:
    """GPT-2 from its state dict, as Hugging Face's `GPT2LMHeadModel` has it, with or without `transformer.`.

    By default n_head = n_embd / 64, as in all published sizes. In eval mode. Raises ValueError, which names
    each tensor that is missing, unknown, or of another shape than expected.
    """
    state = bare_names(state)
    for name in ("wte.weight", "wpe.weight"):
        if name not in state or state[name].dim() != 2:
            raise ValueError(f"{name} is missing or not a matrix; expected the state dict of a GPT-2")
    (vocab_size, n_embd), block_size = state["wte.weight"].shape, len(state["wpe.weight"])
    n_layer = len({name.split(".")[1] for name in state if name.startswith("h.")})
    n_head = n_head or max(1, n_embd // 64)
    config = NanoGPTConfig(vocab_size, block_size, n_embd, n_head, n_layer, activation="gelu_tanh")
    return load_named(NanoGPT(config), state, conv1d=True)


def to_gpt2(model: NanoGPT) -> dict[str, torch.Tensor]:
    """The state dict for Hugging Face's `GPT2LMHeadModel`, as copies; ValueError if it isn't a GPT-2."""
    needed = {"bias": True, "tied": True, "activation": "gelu_tanh"}
    found = {name: getattr(model.config, name) for name in needed}
    if found != needed:
        raise ValueError(f"the model has {found}; expected GPT-2's {needed}")
    state = {gpt2_name(name): tensor for name, tensor in model.state_dict().items()}
    copies = {name: conv1d_layout(name, t).contiguous().clone() for name, t in state.items()}
    return {name if name == "lm_head.weight" else f"transformer.{name}": t for name, t in copies.items()}


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
    known = {name: sizes[name] for name in NANOGPT_SIZES}
    config = NanoGPTConfig(**known, attention_dropout=sizes["dropout"])
    return load_named(NanoGPT(config), bare_names(checkpoint["model"]), conv1d=False)


def readable(path: Path, what: str) -> Path:
    """The absolute path; CourseError, which says `what` it should be, unless it's a file that can be read."""
    path = path.expanduser().absolute()
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise CourseError(f"cannot read {what}, {path}: {error.strerror or error}") from None


def load_gpt2(path: Path) -> NanoGPT:
    """GPT-2 from its published `model.safetensors`; CourseError if that's not what the file is."""
    path = readable(path, "GPT-2's weights")
    try:
        return from_gpt2(safetensors.torch.load_file(path))
    except (OSError, safetensors.SafetensorError, ValueError) as error:
        raise CourseError(f"{path} is not GPT-2's model.safetensors: {error}") from None


def load_gpt2_tokenizer(path: Path) -> Tokenizer:
    """GPT-2's byte pairs from its published `tokenizer.json`; CourseError if that's not what the file is."""
    path = readable(path, "GPT-2's tokenizer")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers has no kind of its own
        raise CourseError(f"{path} is not GPT-2's tokenizer.json: {error}") from None
