"""Text from a trained model, for those who want to read before they have trained one."""

from pathlib import Path

from lecture_lib import speedrun  # noqa: F401  so that its checkpoints can be loaded, as chapter 13's can
from lecture_lib.base.errors import CourseError
from lecture_lib.base.paths import DATA
from lecture_lib.checkpoint import load_checkpoint
from lecture_lib.gpt import GPT
from lecture_lib.nanogpt import from_gpt
from lecture_lib.training import sample_text

SHIPPED = DATA / "checkpoint" / "small"  # .safetensors and .json


def write_on(
    prompt: str,
    length: int = 500,
    seed: int = 1337,
    temperature: float = 1.0,
    top_k: int | None = None,
    checkpoint: Path = SHIPPED,
) -> str:
    """The prompt and `length` characters more, drawn from the model in `checkpoint` (with or without suffix).

    Raises CourseError for a checkpoint that can't be read, characters that the model doesn't know, an empty
    prompt, or a temperature, top_k or length out of range.
    """
    model, tokenizer, _ = load_checkpoint(checkpoint)
    if isinstance(model, GPT):
        model = from_gpt(model)  # the same text, faster
    try:
        return sample_text(model, tokenizer, length, prompt, seed, temperature, top_k)
    except ValueError as error:
        raise CourseError(str(error)) from None
