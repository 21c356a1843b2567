"""A GPT on your own text.

From notebooks/17_your_own_data.ipynb, section "5. How large a model?".
Video 1:56:20.
Written by `lecture promote`: edit the notebook, not this file.
"""

import copy
import itertools
import math
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from lecture_lib.base.device import choose_device
from lecture_lib.base.files import alone_in
from lecture_lib.base.pieces import PieceTokenizer, Tokenizer, chunks, learn_pieces
from lecture_lib.base.reading import read_text
from lecture_lib.base.records import stamp
from lecture_lib.base.threads import fit_threads
from lecture_lib.checkpoint import save_checkpoint
from lecture_lib.evaluation import split_loss
from lecture_lib.long_run import seconds_per_step
from lecture_lib.nanogpt import NanoGPT, NanoGPTConfig
from lecture_lib.recipe import warmup_cosine, weight_decay_groups
from lecture_lib.sizing import parameter_counts
from lecture_lib.tokenization import CharTokenizer
from lecture_lib.training import History, TrainConfig, training_steps

__all__ = [
    "COUNTED",
    "FAMILY",
    "MOST_PASSES",
    "SCORED",
    "SEEN",
    "STEP_TOKENS",
    "UNKNOWN",
    "CompactText",
    "baseline_losses",
    "bits",
    "compact",
    "describe_plan",
    "describe_result",
    "describe_text",
    "family_config",
    "fits",
    "largest_fit",
    "own_facts",
    "own_optimizer",
    "own_splits",
    "own_tokenizer",
    "own_training",
    "parameters_of",
    "piece_splits",
    "plan_run",
    "planned_steps",
    "stale",
    "train_best",
    "train_own_text",
]

UNKNOWN = "\ufffd"  # stands for all characters that the vocabulary lacks
SEEN = 3  # times that a character must occur in the training split to get into the vocabulary


def own_tokenizer(train_text: str) -> tuple[CharTokenizer, dict[str, int]]:
    """The tokenizer of a training split, and the characters too rare for it: how often each occurs."""
    counts = Counter(train_text)
    rare = {c: times for c, times in counts.items() if times < SEEN and c not in ("\n", UNKNOWN)}
    return CharTokenizer("".join(counts.keys() - rare.keys()) + "\n" + UNKNOWN), rare


class CompactText:
    """Token ids in as few bytes as hold them, (N,); what is taken out of it is int64."""

    def __init__(self, ids: torch.Tensor):
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, places: slice | torch.Tensor) -> torch.Tensor:
        return self.ids[places].long()


def compact(text: str, tokenizer: CharTokenizer) -> CompactText:
    """The ids of a text, where a character that `tokenizer` lacks is UNKNOWN."""
    dtype = np.min_scalar_type(tokenizer.vocab_size - 1)  # uint8, or uint16, or uint32
    table = np.full(sys.maxunicode + 1, tokenizer.stoi[UNKNOWN], dtype)
    table[[ord(c) for c in tokenizer.chars]] = range(tokenizer.vocab_size)
    parts = (chunk.encode("utf-32-le") for chunk in chunks(text))
    return CompactText(torch.from_numpy(np.concatenate([table[np.frombuffer(p, np.uint32)] for p in parts])))


def own_splits(text: str) -> tuple[CharTokenizer, dict[str, CompactText], dict[str, int]]:
    """The tokenizer of a text, its first nine tenths and the rest as ids, and the characters too rare."""
    cut = int(0.9 * len(text))
    tokenizer, rare = own_tokenizer(text[:cut])
    return tokenizer, {"train": compact(text[:cut], tokenizer), "val": compact(text[cut:], tokenizer)}, rare


COUNTED = 1_000_000  # ids of a split that the baselines look at, at most


def baseline_losses(splits: dict[str, CompactText], vocab_size: int) -> dict[str, float]:
    """Nats per token on `val` of models that know nothing, how frequent tokens are, or pairs of them."""
    train, val = splits["train"][:COUNTED].tolist(), splits["val"][:COUNTED].tolist()
    singles, pairs, before = Counter(train), Counter(itertools.pairwise(train)), Counter(train[:-1])
    alone = [(singles[b] + 1) / (len(train) + vocab_size) for b in val[1:]]
    paired = [(pairs[a, b] + 1) / (before[a] + vocab_size) for a, b in itertools.pairwise(val)]
    probabilities = {"frequencies": alone, "pairs": paired}
    losses = {name: -sum(map(math.log, probs)) / len(probs) for name, probs in probabilities.items()}
    return {"nothing": math.log(vocab_size), **losses}


def bits(nats: float) -> float:
    """The same loss in bits."""
    return nats / math.log(2)


def stale(losses: list[float]) -> int:
    """How many losses have come since the lowest."""
    return len(losses) - 1 - losses.index(min(losses))


def own_optimizer(model: NanoGPT, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW as in chapter 13c, with weight decay for matrices alone."""
    return torch.optim.AdamW(weight_decay_groups(model, 0.1), config.learning_rate, (0.9, 0.99), fused=True)


def train_best(
    model: NanoGPT,
    splits: dict[str, CompactText],
    config: TrainConfig,
    patience: int = 5,
    deadline: float = math.inf,
    keep: Callable[[History], None] = lambda history: None,
) -> History:
    """Train `model`, and leave it with the weights of its lowest estimated val loss; return the estimates.

    Ends after `patience` estimates without a lower one, at `deadline` on the clock of `time.monotonic`, or
    when it's interrupted, once there is an estimate. `keep` is called at each lowest loss.
    """
    history, best, optimizer = History(), None, own_optimizer(model, config)
    lr, warmup = config.learning_rate, max(1, config.max_iters // 20)
    try:
        for step in training_steps(model, splits, config, optimizer, history):
            if history.steps[-1] == step and stale(history.val) == 0:
                best = copy.deepcopy(model.state_dict())
                keep(history)
            if stale(history.val) >= patience or time.monotonic() > deadline:
                break
            for group in optimizer.param_groups:
                group["lr"] = warmup_cosine(step, lr, lr / 10, warmup, config.max_iters)
    except KeyboardInterrupt:
        if best is None:
            raise
        print("interrupted; the best model so far is kept")
    model.load_state_dict(best)
    return history


FAMILY = {
    "tiny": {"block_size": 32, "n_embd": 32, "n_head": 4, "n_layer": 2},
    "small": {"block_size": 64, "n_embd": 64, "n_head": 4, "n_layer": 4},
    "medium": {"block_size": 128, "n_embd": 128, "n_head": 4, "n_layer": 4},
    "large": {"block_size": 256, "n_embd": 256, "n_head": 8, "n_layer": 6},
    "lecture": {"block_size": 256, "n_embd": 384, "n_head": 6, "n_layer": 6},
}


def family_config(size: str, vocab_size: int) -> NanoGPTConfig:
    """The configuration of a member of the family for a vocabulary."""
    return NanoGPTConfig(vocab_size, bias=False, tied=False, **FAMILY[size])


def parameters_of(config: NanoGPTConfig) -> int:
    """How many parameters a model of this configuration has."""
    return sum(parameter_counts(config).values())


STEP_TOKENS = 1024  # in an optimizer step; a token is a character here, and a piece in section 7


def own_training(config: NanoGPTConfig, steps: int) -> TrainConfig:
    """How a member of the family is trained in so many steps: with about 20 estimates on the way."""
    rows = STEP_TOKENS // config.block_size
    estimates = {"eval_interval": max(1, steps // 20), "eval_iters": min(100, max(10, steps // 200))}
    return TrainConfig(rows, config.block_size, steps, learning_rate=0.2 / config.n_embd, **estimates)


def fits(parameters: int, tokens: int, read: int) -> bool:
    """Whether a model suits a training split of so many tokens and a run that reads `read` of them."""
    return parameters <= tokens and 10 * parameters <= read


def largest_fit(vocab_size: int, tokens: int, read: int) -> str:
    """The largest size of the family that suits a text and a run, or else the smallest of all."""
    smallest, *larger = FAMILY
    suits = [s for s in larger if fits(parameters_of(family_config(s, vocab_size)), tokens, read)]
    return [smallest, *suits][-1]


MOST_PASSES = 50  # times that a run reads the text, at most


def planned_steps(tokens: int, seconds: float, pace: float) -> int:
    """Steps for a training split of so many tokens: what the time has room for at `pace` s, or fewer."""
    room = 0.85 * seconds / pace  # in steps
    return max(20, min(int(room / 1.07), int(room) - 140, MOST_PASSES * tokens // STEP_TOKENS))


def plan_run(
    splits: dict[str, CompactText], vocab_size: int, seconds: float
) -> tuple[NanoGPTConfig, TrainConfig]:
    """Model and training for a text and a time, by how fast this machine trains each size."""
    tokens, plan, began = len(splits["train"]), None, time.monotonic()
    for size in FAMILY:
        config = family_config(size, vocab_size)
        if plan and parameters_of(config) > tokens:
            break
        fit_threads(parameters_of(config))
        model = NanoGPT(config).to(choose_device())
        pace = seconds_per_step(model, splits, own_training(config, 20))
        steps = planned_steps(tokens, seconds - (time.monotonic() - began), pace)
        if plan and not fits(parameters_of(config), tokens, steps * STEP_TOKENS):
            break
        plan = config, own_training(config, steps)
    return plan


def describe_plan(config: NanoGPTConfig, training: TrainConfig, tokens: int) -> str:
    """A line on a model and its training."""
    passes = training.max_iters * STEP_TOKENS / tokens
    size = next(name for name, sizes in FAMILY.items() if sizes["n_embd"] == config.n_embd)
    shape = f"{config.n_layer} layers of {config.n_embd} channels, context {config.block_size}"
    run = f"{training.max_iters:,} steps, which read the training split {passes:.1f} times"
    return f"{size}: {parameters_of(config):,} parameters, {shape}; {run}"


def describe_text(path: Path, text: str, tokenizer: Tokenizer, rare: dict[str, int]) -> str:
    """A line on a text: its size, its vocabulary, and the characters that are too rare for it."""
    unit = "pieces of words" if isinstance(tokenizer, PieceTokenizer) else "characters"
    line = f"{path.name}: {len(text):,} characters, a vocabulary of {tokenizer.vocab_size:,} {unit}"
    if not rare:
        return line
    shown = ", ".join(f"{c!r} ({times})" for c, times in sorted(rare.items())[:10])
    more = f" and {len(rare) - 10:,} more" if len(rare) > 10 else ""
    return f"{line}\ntoo rare, read as {UNKNOWN}: {shown}{more}"


def own_facts(path: Path, tokenizer: Tokenizer, seed: int, training: TrainConfig, history: History) -> dict:
    """What a checkpoint's card tells of a run on a text of one's own, and the pieces of its tokenizer."""
    command, facts = f"lecture train --text {path}", {"text": path.name, "seed": seed}
    if isinstance(tokenizer, PieceTokenizer):
        command, facts["pieces"] = f"{command} --pieces {tokenizer.vocab_size}", tokenizer.stored
    facts |= {"training": asdict(training), "val": min(history.val)}
    return facts | stamp(command) | {"history": vars(history)}


SCORED = 100_000  # tokens of each split that the final score is taken from, at most


def describe_result(
    model: NanoGPT, tokenizer: Tokenizer, splits: dict[str, CompactText], history: History
) -> str:
    """How good a model is, beside models that know little, and at which step it was the best."""
    scores = {name: split_loss(model, ids[:SCORED]) for name, ids in splits.items()}
    best, last = history.steps[history.val.index(min(history.val))], history.steps[-1]
    scored = splits["val"][:SCORED]
    per_token = len(tokenizer.decode(scored)) / len(scored)  # characters
    known = baseline_losses(splits, model.config.vocab_size)
    beside = ", ".join(f"{name} {bits(loss / per_token):.2f}" for name, loss in known.items())
    return (
        f"lowest val loss at step {best:,}, the last estimate at {last:,}\n"
        f"val loss {scores['val']:.3f}, which is {bits(scores['val'] / per_token):.2f} bits per character; "
        f"train loss {scores['train']:.3f}\nfor comparison, in bits per character, models that know: {beside}"
    )


def train_own_text(
    path: Path, folder: Path, minutes: float = 10.0, seed: int = 1337, pieces: int | None = None
) -> Path:
    """Train a GPT on a text within so many minutes, telling what is done; returns the checkpoint's path.

    Its tokens are characters, or else so many `pieces` of words.
    The best model so far is in `folder` as `unfinished.*`, the final one as `model.*`. Raises CourseError for
    a text that can't be learned from, or if another run is writing to `folder`.
    """
    deadline = time.monotonic() + 0.95 * 60 * minutes
    text = read_text(path)
    tokenizer, splits, rare = own_splits(text) if pieces is None else piece_splits(text, pieces)
    print(describe_text(path, text, tokenizer, rare))
    config, training = plan_run(splits, tokenizer.vocab_size, 60 * minutes)
    print(describe_plan(config, training, len(splits["train"])))
    torch.manual_seed(seed)
    model = NanoGPT(config).to(choose_device())

    def keep(history: History, name: str = "unfinished") -> None:
        save_checkpoint(folder / name, model, tokenizer, own_facts(path, tokenizer, seed, training, history))

    with alone_in(folder):
        history = train_best(model, splits, training, deadline=deadline, keep=keep)
        keep(history, "model")
        for leftover in folder.glob("unfinished.*"):
            leftover.unlink()
    print(describe_result(model, tokenizer, splits, history))
    return folder / "model"


def piece_splits(text: str, size: int) -> tuple[PieceTokenizer, dict[str, CompactText], dict[str, int]]:
    """As `own_splits`, with `size` pieces of words as tokens, learned from the first nine tenths."""
    cut = int(0.9 * len(text))
    characters, rare = own_tokenizer(text[:cut])
    known = text.translate({ord(c): UNKNOWN for c in set(text) - set(characters.chars)})
    halves = {"train": known[:cut], "val": known[cut:]}
    tokenizer = learn_pieces(halves["train"], characters.chars, size)
    splits = {name: CompactText(torch.from_numpy(tokenizer.ids(half))) for name, half in halves.items()}
    return tokenizer, splits, rare
