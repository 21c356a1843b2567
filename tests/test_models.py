"""Whole models, from one head to the speedrun's: what each of them must do, and faults that break it."""

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType

import pytest
import torch
from kit import (
    Suite,
    assert_all_learn,
    assert_causal,
    assert_rows_apart,
    constructed_and_kept,
    count,
    draw_ids,
    loss_by_heart,
    planted,
    raises,
    seeded,
    suite_tests,
)
from torch import nn

from lecture_lib import batches, generation, training
from lecture_lib.feed_forward import FeedForwardModel
from lecture_lib.gpt import GPT, GPTConfig
from lecture_lib.layer_norm import Block, LayerNormModel
from lecture_lib.multi_head import MultiHeadModel
from lecture_lib.nanogpt import NanoGPT, NanoGPTConfig
from lecture_lib.residual import ResidualModel, WideFeedForward
from lecture_lib.self_attention import Head
from lecture_lib.single_head import SingleHeadModel
from lecture_lib.speedrun import SpeedrunConfig, SpeedrunGPT


@dataclass(frozen=True)
class Rung:
    """A model of the ladder, made from vocab_size, block_size, n_embd, n_head and n_layer."""

    name: str
    make: Callable[[int, int, int, int, int], nn.Module]
    parameters: int  # at the lecture's sizes
    overfits_to: float = 0.05  # the loss on four rows learned by heart, in nats per token
    dropped: int = 0  # parts that are built, then dropped: a seed still gives the weights of recorded races
    cached: bool = False  # it writes by a cache: what that is shown, test_kv_cache.py asks
    trainer: ModuleType = training

    def __str__(self) -> str:
        return self.name


def nano(*sizes, tied):
    return NanoGPT(NanoGPTConfig(*sizes, dropout=0.2, tied=tied))


def racer(V, T, C, H, L):
    return SpeedrunGPT(SpeedrunConfig(V, T, C, H, L), draw_ids(500, vocab_size=V, seed=1))


# A new rung is one more line here. A single head has one pattern of attention, and nothing but its values to
# tell the logits: over seeds it ends at 0.17 to 0.33, where a model without memory has ln(4) / 2 = 0.69.
RIGHT = Rung("layer norm", LayerNormModel, 42_369)
models = Suite(
    Rung("single head", lambda V, T, C, H, L: SingleHeadModel(V, T, C), 7_553, overfits_to=0.45),
    Rung("four heads", lambda V, T, C, H, L: MultiHeadModel(V, T, C, H), 7_553),
    Rung("feed-forward", lambda V, T, C, H, L: FeedForwardModel(V, T, C, H), 8_609),
    Rung("residual", ResidualModel, 41_921),
    RIGHT,
    Rung("GPT", lambda *sizes: GPT(GPTConfig(*sizes, dropout=0.2)), 42_369),
    Rung("nanoGPT", partial(nano, tied=True), 40_512, cached=True),
    Rung("nanoGPT, not tied", partial(nano, tied=False), 42_657, cached=True),
    Rung("speedrun", racer, 43_172, dropped=2),
    plant=lambda faulty: faulty,
)

VOCAB, T = 11, 6
TINY = (VOCAB, T, 8, 2, 2)
LEARNING = (VOCAB, T, 32, 4, 1)  # large enough to learn something
LECTURE = (65, 8, 32, 4, 3)
IDX = draw_ids(3, T)


def make(rung: Rung, seed: int = 1337, sizes: tuple[int, ...] = TINY) -> nn.Module:
    """A model a little off its start, where some have zeros that let nothing through."""
    model = seeded(rung.make, *sizes, seed=seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def logits(model: nn.Module, idx: torch.Tensor) -> torch.Tensor:
    """With the same draws each time, for models that forget at random while they train."""
    return seeded(model, idx)[0]


# ---------------------------------------------------------------- forward


@models.holds
def is_causal(rung):
    for mode in (True, False):
        assert_causal(partial(logits, make(rung).train(mode)), IDX)


@models.holds
def hears_its_past(rung):
    """The first token has a say in the last one's logits."""
    model, changed = make(rung).eval(), IDX.clone()
    changed[:, 0] = (changed[:, 0] + 1) % VOCAB
    assert (logits(model, changed) - logits(model, IDX))[:, -1].abs().max() > 1e-4


@models.holds
def rows_are_independent(rung):
    for mode in (True, False):
        assert_rows_apart(partial(logits, make(rung).train(mode)), IDX)


@models.holds
def is_deterministic_in_eval_mode(rung):
    model = make(rung).eval()
    assert torch.equal(model(IDX)[0], model(IDX)[0])


@models.holds
def refuses_positions_beyond_block_size(rung):
    with pytest.raises(ValueError, match=f"rows of {T + 1} tokens; expected at most block_size = {T}"):
        make(rung).eval()(draw_ids(1, T + 1))


@models.holds
def has_its_parameters(rung):
    """Distinct ones, each counted once, at the sizes of the lecture."""
    assert count(rung.make(*LECTURE)) == rung.parameters


@models.holds
def builds_each_part_once(rung):
    constructed, kept = constructed_and_kept(lambda: rung.make(*TINY))
    assert (constructed - kept).total() == rung.dropped and not kept - constructed


# ---------------------------------------------------------------- training


def train_on(rung: Rung, model: nn.Module, ids: torch.Tensor, max_iters: int) -> None:
    config = rung.trainer.TrainConfig(8, T, max_iters, eval_interval=max_iters, eval_iters=2)
    rung.trainer.train(model, {"train": ids, "val": ids}, config)


@models.holds
def every_parameter_gets_a_gradient(rung):
    model = make(rung)
    assert_all_learn(model, model(*draw_ids(2, 64, T))[1])


@models.holds
def every_parameter_is_trained(rung):
    """After some steps of `train` no parameter is what it was: the optimizer has them all."""
    model = make(rung)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train_on(rung, model, draw_ids(500), max_iters=4)
    for name, parameter in model.named_parameters():
        assert not torch.equal(parameter, before[name]), name


@models.holds
def learns_what_comes_next(rung):
    """Trained on 0 1 0 1 ..., it expects the other token (a coin would lose ln 2 = 0.69 nats a token)."""
    model, ids = make(rung, sizes=LEARNING), torch.tensor([0, 1] * 50)
    train_on(rung, model, ids, max_iters=60)
    seen = torch.stack([ids[:T], ids[1 : T + 1]])  # (2, T)
    assert model.eval()(seen, 1 - seen)[1].item() < 0.6


@models.holds
def overfits_one_batch(rung):
    """Four rows k 10 k 10 ...: after each 10 it has to remember the k before."""
    model = make(rung, sizes=LEARNING)
    rows = torch.tensor([[k, 10] * (T // 2) + [k] for k in range(4)])  # (4, T + 1)
    optimizer = rung.trainer.adamw(model, rung.trainer.TrainConfig())
    loss_by_heart(optimizer, lambda: model(rows[:, :-1], rows[:, 1:])[1], steps=60)
    assert model.eval()(rows[:, :-1], rows[:, 1:])[1].item() < rung.overfits_to


# ---------------------------------------------------------------- writing


@models.holds
def is_shown_the_last_tokens(rung):
    """From a short prompt and from one beyond block_size: each time the last block_size tokens, no more."""
    for length in (1, T, 2 * T):
        model, prompt, shown = make(rung).eval(), draw_ids(2, length), []
        model.register_forward_pre_hook(lambda _, inputs, shown=shown: shown.append(inputs[0]))
        text = model.generate(prompt, T + 2)
        assert text.shape == (2, length + T + 2) and torch.equal(text[:, :length], prompt)
        if not rung.cached:
            expected = [text[:, max(0, end - T) : end] for end in range(length, length + T + 2)]
            assert len(shown) == len(expected) and all(map(torch.equal, shown, expected))


@models.holds
def writes_the_same_under_the_same_seed(rung):
    model = make(rung).eval()
    one, again, other = (seeded(model.generate, IDX, 10, seed=seed).tolist() for seed in (1, 1, 2))
    assert one == again != other


@models.holds
def is_the_same_after_save_and_load(rung):
    """Through a file, into a model that started from another seed: equal logits, bit for bit."""
    model, other, file = make(rung).eval(), make(rung, seed=1).eval(), io.BytesIO()
    assert not torch.equal(logits(model, IDX), logits(other, IDX))
    torch.save(model.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(logits(model, IDX), logits(other, IDX))


# ---------------------------------------------------------------- planted faults are caught


class Restless(LayerNormModel):
    """Random in eval mode as well, as with dropout that is never turned off."""

    def forward(self, idx, targets=None):
        logits, loss = super().forward(idx, targets)
        return logits + 1e-3 * torch.randn_like(logits), loss


class WrappedPositions(LayerNormModel):
    """Reads as many tokens as come: position block_size is position 0 again."""

    def embed(self, idx):
        places = torch.arange(idx.shape[1]) % self.block_size
        return self.token_embedding_table(idx) + self.position_embedding_table(places)


def changed(change: Callable[[nn.Module], None]) -> Rung:
    """The layer-norm model, with something done to it when it's made."""

    def make(*sizes):
        model = LayerNormModel(*sizes)
        change(model)
        return model

    return replace(RIGHT, make=make)


def unsaved_positions(model):
    """Positions are random numbers, which a file of the parameters doesn't hold."""
    places = torch.randn_like(model.position_embedding_table.weight)
    model.position_embedding_table = None
    model.register_buffer("places", places, persistent=False)
    model.embed = lambda idx: model.token_embedding_table(idx) + model.places[: idx.shape[1]]


def batch_norm(model):
    """BatchNorm over all tokens where the final layer norm should be."""
    model.body[-1] = norm = nn.BatchNorm1d(model.lm_head.in_features)
    norm.forward = lambda x: nn.BatchNorm1d.forward(norm, x.mT).mT  # (N, C, T) -> (N, C, T)


def every_block(change: Callable[[Block], None]) -> Rung:
    return changed(lambda model: [change(part) for part in model.body if isinstance(part, Block)])


def deaf(block):
    """It only thinks, twice."""
    block.sa = WideFeedForward(block.ln1.normalized_shape[0])


def looking_ahead(block):
    for head in block.sa.heads:
        head.causal = False


def tied(model):
    for block in model.body[1:-1]:
        block.sa, block.ffwd = model.body[0].sa, model.body[0].ffwd


def with_generate(old: str, new: str) -> Rung:
    """A single head, with one place of `generate` changed."""
    library = planted(generation, old, new)
    return Rung(old, lambda V, T, C, H, L: library.AutoregressiveModel(V, T, C, lambda: Head(C, C, T)), 7_553)


def with_targets(new: str) -> Rung:
    """The training, on batches whose targets are others."""
    trainer = planted(training, "from lecture_lib.batches import get_batch", "")
    trainer.get_batch = planted(batches, "data[positions + 1]", new).get_batch
    return replace(RIGHT, trainer=trainer)


def with_optimizer_of(parameters: str) -> Rung:
    return replace(RIGHT, trainer=planted(training, "AdamW(model.parameters(),", f"AdamW({parameters},"))


def forgotten(model):
    model.forgotten = nn.Linear(1, 1)


def built_twice(model):
    model.lm_head = nn.Linear(model.lm_head.in_features, model.lm_head.out_features)


SHOWN = "idx[:, -self.block_size :]"
models.faults = [
    ("random in eval mode", replace(RIGHT, make=Restless), is_deterministic_in_eval_mode),
    ("positions wrapped around", replace(RIGHT, make=WrappedPositions), refuses_positions_beyond_block_size),
    ("positions not saved", changed(unsaved_positions), is_the_same_after_save_and_load),
    ("batch norm", changed(batch_norm), (is_causal, rows_are_independent)),
    ("blocks tied", changed(tied), has_its_parameters),
    ("a part built twice", changed(built_twice), builds_each_part_once),
    ("no mask", every_block(looking_ahead), is_causal),
    ("no attention", every_block(deaf), (hears_its_past, overfits_one_batch)),
    ("a layer forgotten", changed(forgotten), (every_parameter_gets_a_gradient, every_parameter_is_trained)),
    ("targets not shifted", with_targets("data[positions]"), learns_what_comes_next),
    ("targets before the inputs", with_targets("data[positions - 2]"), learns_what_comes_next),
    ("positions left out of the optimizer",
     with_optimizer_of("[p for n, p in model.named_parameters() if 'position' not in n]"),
     every_parameter_is_trained),
    ("only vectors in the optimizer", with_optimizer_of("[p for p in model.parameters() if p.dim() < 2]"),
     (every_parameter_is_trained, overfits_one_batch)),
    ("all shown", with_generate(SHOWN, "idx"), raises(ValueError, is_shown_the_last_tokens)),
    ("the beginning shown", with_generate(SHOWN, "idx[:, : self.block_size]"), is_shown_the_last_tokens),
    ("nothing drawn", with_generate("torch.multinomial(F.softmax(logits, dim=-1), num_samples=1)",
     "logits.argmax(dim=-1, keepdim=True)"), writes_the_same_under_the_same_seed),
]  # fmt: skip
test_a_property_holds, test_a_planted_fault_is_caught = suite_tests(models)
