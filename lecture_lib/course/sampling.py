"""Text from a trained model, token by token, for a reader who hasn't trained one yet."""

from collections.abc import Iterator
from pathlib import Path

import torch

from lecture_lib import pretraining, speedrun  # noqa: F401  so that their checkpoints can be loaded
from lecture_lib.base.errors import CourseError
from lecture_lib.base.paths import SHIPPED
from lecture_lib.base.pieces import Tokenizer
from lecture_lib.base.threads import fit_threads, quickest_threads
from lecture_lib.checkpoint import load_checkpoint
from lecture_lib.decoding import for_writing
from lecture_lib.generation import AutoregressiveModel, check_prompt
from lecture_lib.gpt import GPT
from lecture_lib.nanogpt import NanoGPT, from_gpt


def load_writer(checkpoint: Path, bfloat16: bool = False) -> tuple[AutoregressiveModel, Tokenizer]:
    """The model in `checkpoint` (with or without suffix), laid out for writing, and its tokenizer.

    With `bfloat16` its weights are rounded to half the bytes. A large model gets one thread or all cores,
    whichever writes faster on this machine at this moment. Raises CourseError for a checkpoint that can't
    be read, or one whose model has no such choice.
    """
    model, tokenizer = load_named(checkpoint)
    fit_threads(sum(p.numel() for p in model.parameters()))
    if isinstance(model, GPT):
        model = from_gpt(model)  # the same text, sooner
    if isinstance(model, NanoGPT):
        writer = for_writing(model, torch.bfloat16 if bfloat16 else None)
        if torch.get_num_threads() > 1:
            quickest_threads(lambda: writer.generate(torch.zeros(1, 1, dtype=torch.long), 4))
        return writer, tokenizer
    if bfloat16:
        raise CourseError(f"{checkpoint}: bfloat16 is for a GPT or NanoGPT; this is a {type(model).__name__}")
    return model, tokenizer


def load_named(checkpoint: Path) -> tuple[AutoregressiveModel, Tokenizer]:
    """Model and tokenizer of a checkpoint that a user named; what is wrong with it is told in one line."""
    try:
        if checkpoint.is_dir():
            raise CourseError(
                f"{checkpoint} is a folder; expected a checkpoint in it: {checkpoint / 'model'}"
            )
        model, tokenizer, _ = load_checkpoint(checkpoint)
    except CourseError as error:
        raise CourseError(" ".join(line.strip() for line in str(error).splitlines()[:2])) from None
    except (RuntimeError, MemoryError, ValueError, OSError) as error:  # too large a model, an odd path
        raise CourseError(f"{checkpoint}: {str(error).splitlines()[0]}") from None
    tokens, outputs = tokenizer.vocab_size, model.lm_head.out_features
    if tokens != outputs:
        raise CourseError(f"{checkpoint} has a vocabulary of {tokens}, its model {outputs}: a damaged card?")
    return model, tokenizer


def stream_text(
    model: AutoregressiveModel,
    tokenizer: Tokenizer,
    prompt: str,
    length: int = 500,
    seed: int = 1337,
    temperature: float = 1.0,
    top_k: int | None = None,
    exact: bool = False,
) -> Iterator[str]:
    """`length` characters that continue the prompt, each token of them as soon as it is drawn.

    When the text outgrows the context, half of the context is forgotten at once, so that a token costs
    the same in a long text as in a short one. With `exact`, one token is forgotten at a time, as in
    chapter 06, and all others are read again for each.
    Raises CourseError for characters that the model doesn't know, an empty prompt, or a temperature, top_k
    or length out of range.
    """
    torch.manual_seed(seed)
    dials = {"temperature": temperature, "top_k": top_k}
    try:
        idx = torch.tensor([tokenizer.encode(prompt)])  # (1, T)
        if isinstance(model, NanoGPT):
            keep = model.block_size if exact else max(1, model.block_size // 2)
            tokens = model.stream(idx, length, **dials, keep=keep)
        else:
            tokens = one_by_one(model, idx, length, dials)
        for idx_next in tokens:  # (1, 1)
            piece = tokenizer.decode(idx_next[0])[:length]
            yield piece
            length -= len(piece)
            if length == 0:
                return
    except ValueError as error:
        raise CourseError(str(error)) from None


def one_by_one(
    model: AutoregressiveModel, idx: torch.Tensor, length: int, dials: dict
) -> Iterator[torch.Tensor]:
    """The tokens that a model without a cache appends to idx (1, T): (1, 1) each."""
    check_prompt(idx, length)
    for _ in range(length):
        idx = model.generate(idx, 1, **dials)  # (1, T) -> (1, T + 1)
        yield idx[:, -1:]


def write_on(prompt: str, checkpoint: Path = SHIPPED["full"], **choices) -> str:
    """The prompt and what `stream_text`, given its choices, appends to it by the model in `checkpoint`."""
    return prompt + "".join(stream_text(*load_writer(checkpoint), prompt, **choices))
