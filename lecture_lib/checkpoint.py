"""Save and load checkpoints.

From notebooks/11_gpt.ipynb, section "5. Runs that last".
Video 1:37:49.
Written by `lecture promote`: edit the notebook, not this file.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import safetensors.torch

from lecture_lib.base.errors import CourseError
from lecture_lib.base.files import replacing, write_text
from lecture_lib.gpt import GPT, GPTConfig
from lecture_lib.tokenization import CharTokenizer

__all__ = ["build_gpt", "load_checkpoint", "save_checkpoint"]


def save_checkpoint(path: Path, model: GPT, tokenizer: CharTokenizer, facts: dict) -> None:
    """Write the weights to `path`.safetensors and, beside them, what they belong to, to `path`.json.

    The JSON holds the model's configuration, the tokenizer's characters, the SHA-256 of the weights, and
    `facts`. Each file is moved into place as a whole.
    """
    # Copies, since a matrix that two layers share has two names, and the format holds no shared memory.
    copies = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
    weights = safetensors.torch.save(copies)
    digest = hashlib.sha256(weights).hexdigest()
    known = {"model": asdict(model.config), "characters": "".join(tokenizer.chars), "sha256": digest}
    with replacing(path.with_suffix(".safetensors")) as temporary:
        temporary.write_bytes(weights)
    write_text(path.with_suffix(".json"), json.dumps(known | facts, indent=1) + "\n")


def build_gpt(sizes: dict) -> GPT:
    """A GPT of the sizes that a checkpoint's JSON tells."""
    return GPT(GPTConfig(**sizes))


def load_checkpoint(path: Path, build: Callable = build_gpt) -> tuple[GPT, CharTokenizer, dict]:
    """Read what `save_checkpoint` wrote: the model, on the CPU and in eval mode, its tokenizer, the JSON.

    `build` makes the model from the sizes in the JSON; a later kind of model has one of its own.
    Raises CourseError if a file is missing, truncated, foreign or does not fit the configuration.
    """
    card, file = path.with_suffix(".json"), path.with_suffix(".safetensors")
    try:
        known, weights = json.loads(card.read_text(encoding="utf-8")), file.read_bytes()
        tokenizer, model = CharTokenizer(known["characters"]), build(known["model"])
        digest = known["sha256"]
    except OSError as error:
        raise CourseError(f"cannot read {error.filename}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise CourseError(f"{card} is not the JSON of a checkpoint of this course: {error!r}") from None
    found = hashlib.sha256(weights).hexdigest()
    if found != digest:
        raise CourseError(
            f"{file} ({len(weights):,} bytes) has SHA-256 {found[:12]}..., expected {digest[:12]}...: "
            f"truncated, or not the file that {card.name} was written with; fetch or train both again"
        )
    try:
        model.load_state_dict(safetensors.torch.load(weights))
    except (RuntimeError, safetensors.SafetensorError) as error:
        raise CourseError(f"{file} does not fit the configuration in {card.name}: {error}") from None
    return model.eval(), tokenizer, known
