"""From a finished run to what the course ships: a checkpoint at half precision, and the run's record."""

from pathlib import Path

import torch

from lecture_lib import speedrun  # noqa: F401  so that its checkpoints can be loaded, as chapter 13's can
from lecture_lib.base.errors import CourseError
from lecture_lib.base.paths import DATA
from lecture_lib.base.records import write_json
from lecture_lib.checkpoint import load_checkpoint, save_checkpoint
from lecture_lib.evaluation import split_loss
from lecture_lib.generation import AutoregressiveModel
from lecture_lib.tokenization import CharTokenizer, load_splits
from lecture_lib.training import TrainConfig, estimate_loss, sample_text

SAMPLE_SEEDS = (1337, 1, 2)
NOT_ON_CARD = ("history", "sample")  # of a run's card: the record has them


def ship(run: Path, name: str, commit: str, data: Path = DATA) -> Path:
    """Ship the model that the finished run in folder `run` left; returns the record.

    Writes `checkpoint/NAME.*`, its weights as 16-bit floats, and `recorded/NAME.json`: settings, history,
    losses on the validation split, samples. `commit` is the one that the run was started from.
    Raises CourseError if there is no finished run, or if the rounding changes the loss by more than 1e-3.
    """
    model, tokenizer, card = load_checkpoint(run / "model")
    own = {"kind", "model", "characters", "sha256"}  # what `save_checkpoint` adds itself
    facts = {key: value for key, value in card.items() if key not in own} | {"commit": commit}
    checkpoint = data / "checkpoint" / name
    brief = {key: value for key, value in facts.items() if key not in NOT_ON_CARD}
    save_checkpoint(checkpoint, model, tokenizer, brief, dtype=torch.float16)
    scores, parameters = losses(model), sum(p.numel() for p in model.parameters())
    check_rounding(checkpoint, scores["blocks"])
    record = facts | {"model": card["model"], "parameters": parameters, "losses": scores}
    record["samples"] = samples(model, tokenizer)
    path = data / "recorded" / f"{name}.json"
    write_json(path, record)
    return path


def losses(model: AutoregressiveModel) -> dict[str, float]:
    """The loss on the validation split, measured in two ways: `blocks` that cover it, and random `crops`.

    The crops are 200 batches of 64, as nanoGPT's script estimates for this text.
    """
    val = load_splits()[1]["val"]
    torch.manual_seed(1337)
    crops = TrainConfig(batch_size=64, block_size=model.block_size, eval_iters=200)
    return {"blocks": split_loss(model, val), "crops": estimate_loss(model, {"val": val}, crops)["val"]}


def check_rounding(checkpoint: Path, loss: float) -> None:
    """Raise CourseError unless the model in `checkpoint` has that loss in blocks, to 1e-3."""
    found = split_loss(load_checkpoint(checkpoint)[0], load_splits()[1]["val"])
    if abs(found - loss) > 1e-3:
        raise CourseError(f"{checkpoint}: loss {found:.4f} with rounded weights; expected {loss:.4f}")


def samples(model: AutoregressiveModel, tokenizer: CharTokenizer) -> dict[str, str]:
    """A text of 500 characters for each seed, at temperature 0.8."""
    return {str(seed): sample_text(model, tokenizer, 500, "\n", seed, 0.8) for seed in SAMPLE_SEEDS}
