"""Save and load checkpoints.

From notebooks/10b_long_runs.ipynb, section "2. Checkpoints: the model for somebody else".
Video 1:37:49.
Written by `lecture promote`: edit the notebook, not this file.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path

import safetensors.torch
import torch

from lecture_lib.base.errors import CourseError
from lecture_lib.base.files import replacing
from lecture_lib.base.pieces import PieceTokenizer, Tokenizer
from lecture_lib.base.records import write_json
from lecture_lib.generation import AutoregressiveModel
from lecture_lib.tokenization import CharTokenizer

__all__ = [
    "CHECKPOINT_KINDS",
    "checkpoint_kind",
    "load_checkpoint",
    "model_of",
    "save_checkpoint",
    "tokenizer_of",
]


def save_checkpoint(
    path: Path,
    model: AutoregressiveModel,
    tokenizer: Tokenizer,
    facts: dict,
    dtype: torch.dtype | None = None,
) -> None:
    """Write the weights to `path`.safetensors and, beside them, what they belong to, to `path`.json.

    The JSON, the checkpoint's card, holds the kind of model (its class), its configuration, the tokenizer's
    characters, the SHA-256 of the weights, and `facts`. Each file is moved into place as a whole. With
    `dtype` torch.float16 the weights are rounded to half the bytes.
    """
    # Copies: chapter 13 lets two layers share a matrix, which has two names then; the format shares nothing.
    copies = {
        name: tensor.detach().to("cpu", dtype, copy=True) for name, tensor in model.state_dict().items()
    }
    weights = safetensors.torch.save(copies)
    card = {"kind": type(model).__name__, "model": asdict(model.config)}
    card |= {"characters": "".join(tokenizer.chars), "sha256": hashlib.sha256(weights).hexdigest()}
    with replacing(path.with_suffix(".safetensors")) as temporary:
        temporary.write_bytes(weights)
    write_json(path.with_suffix(".json"), card | facts)


CHECKPOINT_KINDS: dict[str, tuple[type, Callable]] = {}  # kind -> class of its configuration, builder


def checkpoint_kind(kind: str, config_class: type) -> Callable:
    """Decorator of a class, or function, that builds a model of the class `kind` from its configuration.

    Checkpoints of that kind can then be loaded. The first builder of a kind stays.
    """

    def register(build: Callable) -> Callable:
        CHECKPOINT_KINDS.setdefault(kind, (config_class, build))
        return build

    return register


def model_of(card: dict, file: Path) -> AutoregressiveModel:
    """The model that the card in `file` describes, untrained; CourseError for an unknown kind."""
    kind, sizes = card.get("kind"), card["model"]
    for name, (config_class, _) in CHECKPOINT_KINDS.items():
        if kind is None and set(sizes) == {size.name for size in fields(config_class)}:
            kind = name  # a card from before cards named their kind: one kind has these sizes
    if kind not in CHECKPOINT_KINDS:
        known = ", ".join(CHECKPOINT_KINDS) or "none yet"
        raise CourseError(
            f"{file}: the kind of model is {kind}; expected one of: {known}; "
            "import the module that defines it first (lecture_lib.gpt, .nanogpt, .speedrun)"
        )
    config_class, build = CHECKPOINT_KINDS[kind]
    return build(config_class(**sizes))


def tokenizer_of(card: dict) -> Tokenizer:
    """The tokenizer that a card holds."""
    return PieceTokenizer(card["pieces"]) if "pieces" in card else CharTokenizer(card["characters"])


def load_checkpoint(path: Path) -> tuple[AutoregressiveModel, Tokenizer, dict]:
    """Read what `save_checkpoint` wrote: the model, on the CPU and in eval mode, its tokenizer, the card.

    Raises CourseError if a file is missing, truncated, foreign or does not fit the configuration, or if the
    kind of model is unknown.
    """
    card_file, file = path.with_suffix(".json"), path.with_suffix(".safetensors")
    try:
        card, weights = json.loads(card_file.read_text(encoding="utf-8")), file.read_bytes()
        tokenizer, digest = tokenizer_of(card), card["sha256"]
        model = model_of(card, card_file)
    except OSError as error:
        raise CourseError(f"cannot read {error.filename}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise CourseError(f"{card_file} is not the JSON of a checkpoint of this course: {error!r}") from None
    found = hashlib.sha256(weights).hexdigest()
    if found != digest:
        raise CourseError(
            f"{file} ({len(weights):,} bytes) has SHA-256 {found[:12]}..., expected {digest[:12]}...: "
            f"truncated, or not the file that {card_file.name} was written with; fetch or train both again"
        )
    try:
        model.load_state_dict(safetensors.torch.load(weights))
    except (RuntimeError, safetensors.SafetensorError) as error:
        message = f"{file} does not fit the configuration in {card_file.name}: {error}"
        raise CourseError(message) from None
    return model.eval(), tokenizer, card
