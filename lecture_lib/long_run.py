"""Run long trainings that can be interrupted.

From notebooks/10b_long_runs.ipynb, section "3. `LongRun`".
Video 1:37:49.
Written by `lecture promote`: edit the notebook, not this file.
"""

import contextlib
import copy
import hashlib
import io
import pickle
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import safetensors.torch
import torch

from lecture_lib.base.device import describe_device
from lecture_lib.base.errors import CourseError
from lecture_lib.base.files import alone_in, replacing
from lecture_lib.base.records import stamp
from lecture_lib.base.threads import fit_threads
from lecture_lib.checkpoint import save_checkpoint
from lecture_lib.generation import AutoregressiveModel
from lecture_lib.tokenization import CharTokenizer
from lecture_lib.training import History, TrainConfig, adamw, sample_text, training_steps

__all__ = ["LongRun", "fingerprint", "random_states", "restore_random_states", "seconds_per_step"]


def random_states(device: torch.device) -> dict[str, torch.Tensor]:
    """The states of torch's generators that a run on `device` draws from, by type of device."""
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device).get_rng_state()
    return states


def restore_random_states(states: dict[str, torch.Tensor]) -> None:
    """Set torch's generators to what `random_states` returned."""
    for kind, state in states.items():
        generator = torch if kind == "cpu" else torch.get_device_module(kind)
        generator.set_rng_state(state.cpu())


def fingerprint(splits: dict[str, torch.Tensor], tokenizer: CharTokenizer) -> str:
    """Twelve hexadecimal digits that tell one text, cut and tokenized in one way, from another."""
    digest = hashlib.sha256("".join(tokenizer.chars).encode())
    for name in sorted(splits):
        digest.update(splits[name].cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


@dataclass
class LongRun:
    """A training run that can be interrupted, and that keeps its best model (lowest estimated val loss).

    In `folder`, it writes `state.pt` every `save_seconds` and removes it at the end; `unfinished.*`, the best
    checkpoint so far; and at the end `model.*`, that checkpoint with the whole history and a sample.
    `facts` tells how the run was started, its command and seed at least, and goes into each checkpoint.
    """

    model: AutoregressiveModel
    tokenizer: CharTokenizer
    config: TrainConfig
    folder: Path
    facts: dict
    history: History = field(default_factory=History)
    save_seconds: float = 300.0  # between two savings: an interruption loses no more
    seconds: float = 0.0  # spent before it was resumed
    first_step: int = 0  # later than 0 if it was resumed
    text: str = ""  # what tells one text from another, once the run knows what it trains on

    def __post_init__(self):
        fit_threads(sum(p.numel() for p in self.model.parameters()))
        self.optimizer = self.make_optimizer()
        self.device = next(self.model.parameters()).device
        self.state_file = self.folder / "state.pt"
        self.began = self.saved = time.monotonic()

    def make_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer of the run's model."""
        return adamw(self.model, self.config)

    @property
    def settings(self) -> dict:
        """The settings that a saved state must share with this run, or else it can't be resumed."""
        sizes = {"model": asdict(self.model.config), "training": asdict(self.config)}
        return {**sizes, "text": self.text, **self.facts}

    def train(self, splits: dict[str, torch.Tensor]) -> History:
        """Train from the start, or from where an interrupted run with the same settings was last saved.

        Resumed or not, the result is the same, to the bit on a CPU. Raises CourseError if the folder holds
        the state of a run with other settings or on another text, or if another run is writing to it.
        """
        self.text = fingerprint(splits, self.tokenizer)
        with self.folder_of_its_own():
            if self.state_file.exists():
                self.restore()
            for step in self.steps(splits):
                self.between_steps(step)
            self.finish()
        return self.history

    def folder_of_its_own(self) -> contextlib.AbstractContextManager:
        """Within it, no other run writes to the folder."""
        return alone_in(self.folder)

    def steps(self, splits: dict[str, torch.Tensor]) -> Iterator[int]:
        """Train and estimate, from `first_step` on; yields the number of each step before it is taken."""
        return training_steps(self.model, splits, self.config, self.optimizer, self.history, self.first_step)

    def between_steps(self, step: int) -> None:
        """Keep the best model, and now and then the state, before `step` is taken."""
        history = self.history
        if history.steps[-1] == step and history.val[-1] == min(history.val):
            self.keep("unfinished", self.model)
        if time.monotonic() - self.saved > self.save_seconds:
            self.save(step)

    def keep(self, name: str, model: AutoregressiveModel, **more) -> None:
        """Write a checkpoint of `model` that tells where it comes from."""
        facts = {
            **self.facts,
            **stamp(self.facts["command"]),
            "training": asdict(self.config),
            "val": min(self.history.val),
            "device": describe_device(self.device),
            "seconds": round(self.seconds + time.monotonic() - self.began),
            "history": vars(self.history),
        }
        save_checkpoint(self.folder / name, model, self.tokenizer, facts | more)

    def save(self, step: int) -> None:
        """Write all that the run needs to resume before `step`."""
        self.saved = time.monotonic()
        state = {
            "settings": self.settings,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": random_states(self.device),
            "history": vars(self.history),
            "seconds": self.seconds + self.saved - self.began,
            "step": step,
        }
        with replacing(self.state_file) as temporary:
            torch.save(state, temporary)

    def restore(self) -> None:
        """Take up the saved state; CourseError if it is damaged, or of a run with other settings."""
        try:
            state = torch.load(self.state_file, map_location=self.device, weights_only=True)
            settings = state["settings"]
        except (RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
            raise CourseError(
                f"{self.state_file} is damaged, or no state of a run ({error!r}); delete it to start again"
            ) from None
        if settings != self.settings:
            raise CourseError(
                f"{self.state_file} was left by a run with other settings: {settings}, here "
                f"{self.settings}; finish that run, give this one another folder, or delete the file"
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        restore_random_states(state["random"])
        self.history = History(**state["history"])
        self.seconds, self.first_step = state["seconds"], state["step"]
        print(f"going on from step {self.first_step:,}, after {self.seconds:,.0f} s")

    def finish(self) -> None:
        """Make the best checkpoint the run's result, and remove what only an unfinished run needs."""
        best = copy.deepcopy(self.model)
        best.load_state_dict(safetensors.torch.load_file(self.folder / "unfinished.safetensors"))
        sample = sample_text(best, self.tokenizer, max_new_tokens=500, seed=self.facts["seed"])
        self.keep("model", best, sample=sample)
        for leftover in (self.state_file, *self.folder.glob("unfinished.*")):
            leftover.unlink(missing_ok=True)


def seconds_per_step(
    model: AutoregressiveModel, splits: dict[str, torch.Tensor], config: TrainConfig
) -> float:
    """Time two optimizer steps on a copy of `model`, on a CPU. Leaves torch's generator as it was."""
    twin, few = copy.deepcopy(model), replace(config, max_iters=5, eval_iters=1)
    with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(io.StringIO()):
        steps = training_steps(twin, splits, few, adamw(twin, few), History())
        ticks = [time.perf_counter() for _ in steps]  # before each step
    return (ticks[3] - ticks[1]) / 2  # the first step warms up, the last one waits for an estimate
