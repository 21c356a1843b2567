"""Whole models, from one head to the GPT: what every rung of the ladder must do, and faults that break it.

A property is a function of a rung and of the module that trains it. Every rung passes them all; a planted
fault, in a model or in the training, fails exactly those that the table names.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import ModuleType

import pytest
import torch
from faults import failed, planted
from torch import nn

from lecture_lib import batches, single_head, training
from lecture_lib.feed_forward import FeedForwardModel
from lecture_lib.gpt import GPT, GPTConfig
from lecture_lib.layer_norm import Block, LayerNormModel
from lecture_lib.multi_head import MultiHeadModel
from lecture_lib.residual import ProjectedAttention, ResidualModel, WideFeedForward
from lecture_lib.self_attention import Head
from lecture_lib.single_head import SingleHeadModel


@dataclass(frozen=True)
class Rung:
    """A model of the ladder, made from vocab_size, block_size, n_embd, n_head and n_layer."""

    make: Callable[[int, int, int, int, int], nn.Module]
    parameters: int  # at the lecture's sizes
    overfits_to: float = 0.05  # the loss on four rows learned by heart, in nats per token


# A new rung is one more line here. A single head has one pattern of attention, and nothing but its values to
# tell the logits: over seeds it ends at 0.17 to 0.33, where a model without memory has ln(4) / 2 = 0.69.
RUNGS = {
    "single head": Rung(lambda V, T, C, H, L: SingleHeadModel(V, T, C), 7_553, overfits_to=0.45),
    "four heads": Rung(lambda V, T, C, H, L: MultiHeadModel(V, T, C, H), 7_553),
    "feed-forward": Rung(lambda V, T, C, H, L: FeedForwardModel(V, T, C, H), 8_609),
    "residual": Rung(ResidualModel, 41_921),
    "layer norm": Rung(LayerNormModel, 42_369),
    "GPT": Rung(lambda *sizes: GPT(GPTConfig(*sizes, dropout=0.2)), 42_369),
}

VOCAB, T = 11, 6
TINY = (VOCAB, T, 8, 2, 2)
LEARNING = (VOCAB, T, 32, 4, 1)  # large enough to learn something
LECTURE = (65, 8, 32, 4, 3)


def make(rung: Rung, seed: int = 1337, sizes: tuple[int, ...] = TINY) -> nn.Module:
    torch.manual_seed(seed)
    return rung.make(*sizes)


def some_ids(*shape: int, seed: int = 7) -> torch.Tensor:
    return torch.randint(VOCAB, shape, generator=torch.Generator().manual_seed(seed))


def logits(model: nn.Module, idx: torch.Tensor) -> torch.Tensor:
    """With the same draws each time, for models that forget at random while they train."""
    torch.manual_seed(3)
    return model(idx)[0]


# ---------------------------------------------------------------- forward


def is_causal(rung, trainer):
    """Logits before t stay the same, bit for bit, whatever comes from t on; in train and in eval mode."""
    idx = some_ids(3, T)
    for mode in (True, False):
        model = make(rung).train(mode)
        for t in range(T):
            changed = idx.clone()
            changed[:, t:] = (changed[:, t:] + 1) % VOCAB
            assert torch.equal(logits(model, changed)[:, :t], logits(model, idx)[:, :t])


def hears_its_past(rung, trainer):
    """The first token has a say in the last one's logits."""
    model, idx = make(rung).eval(), some_ids(3, T)
    changed = idx.clone()
    changed[:, 0] = (changed[:, 0] + 1) % VOCAB
    assert (logits(model, changed) - logits(model, idx))[:, -1].abs().max() > 1e-4


def rows_are_independent(rung, trainer):
    """A row's logits stay the same, bit for bit, whatever the other rows are; in both modes."""
    idx = some_ids(3, T)
    for mode in (True, False):
        model = make(rung).train(mode)
        for b in range(3):
            changed = some_ids(3, T, seed=8)
            changed[b] = idx[b]
            assert torch.equal(logits(model, changed)[b], logits(model, idx)[b])


def is_deterministic_in_eval_mode(rung, trainer):
    model, idx = make(rung).eval(), some_ids(3, T)
    assert torch.equal(model(idx)[0], model(idx)[0])


def refuses_positions_beyond_block_size(rung, trainer):
    model = make(rung).eval()
    try:
        model(some_ids(1, T + 1))
    except ValueError as error:
        assert f"rows of {T + 1} tokens; expected at most block_size = {T}" in str(error)
    else:
        raise AssertionError("took a position that it has no embedding for")


def has_the_lectures_parameters(rung, trainer):
    """Distinct ones, each counted once, at the sizes of the lecture."""
    assert sum(p.numel() for p in rung.make(*LECTURE).parameters()) == rung.parameters


# ---------------------------------------------------------------- training


def train_on(trainer: ModuleType, model: nn.Module, ids: torch.Tensor, max_iters: int) -> None:
    config = trainer.TrainConfig(8, T, max_iters, eval_interval=max_iters, eval_iters=2)
    trainer.train(model, {"train": ids, "val": ids}, config)


def every_parameter_gets_a_gradient(rung, trainer):
    model = make(rung)
    model(*some_ids(2, 64, T))[1].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def every_parameter_is_trained(rung, trainer):
    """After some steps of `train` no parameter is what it was: the optimizer has them all."""
    model = make(rung)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train_on(trainer, model, some_ids(500), max_iters=3)
    for name, parameter in model.named_parameters():
        assert not torch.equal(parameter, before[name]), name


def learns_what_comes_next(rung, trainer):
    """Trained on 0 1 0 1 ..., it expects the other token (a coin would lose ln 2 = 0.69 nats a token)."""
    model, ids = make(rung, sizes=LEARNING), torch.tensor([0, 1] * 50)
    train_on(trainer, model, ids, max_iters=30)
    seen = torch.stack([ids[:T], ids[1 : T + 1]])  # (2, T)
    assert model.eval()(seen, 1 - seen)[1].item() < 0.6


def overfits_one_batch(rung, trainer):
    """Four rows k 10 k 10 ...: after each 10 it has to remember the k before."""
    model = make(rung, sizes=LEARNING)
    rows = torch.tensor([[k, 10] * (T // 2) + [k] for k in range(4)])  # (4, T + 1)
    optimizer = trainer.adamw(model, trainer.TrainConfig())
    for _ in range(30):
        loss = model(rows[:, :-1], rows[:, 1:])[1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert model.eval()(rows[:, :-1], rows[:, 1:])[1].item() < rung.overfits_to


# ---------------------------------------------------------------- writing


def written(model: nn.Module, prompt: torch.Tensor, max_new_tokens: int) -> torch.Tensor:
    try:
        return model.generate(prompt, max_new_tokens)
    except ValueError as error:
        raise AssertionError("generate showed the model what it refuses") from error


def is_shown_the_last_tokens(rung, trainer):
    """From a short prompt and from one beyond block_size: each time the last block_size tokens, no more."""
    for length in (1, T, 2 * T):
        model, prompt, shown = make(rung).eval(), some_ids(2, length), []
        model.register_forward_pre_hook(lambda _, inputs, shown=shown: shown.append(inputs[0]))
        text = written(model, prompt, max_new_tokens=T + 2)
        assert text.shape == (2, length + T + 2) and torch.equal(text[:, :length], prompt)
        assert len(shown) == T + 2
        for end, idx in enumerate(shown, start=length):
            assert torch.equal(idx, text[:, max(0, end - T) : end])


def writes_the_same_under_the_same_seed(rung, trainer):
    texts = []
    for seed in (1, 1, 2):
        model = make(rung).eval()
        torch.manual_seed(seed)
        texts.append(written(model, some_ids(1, 3), max_new_tokens=10).tolist())
    assert texts[0] == texts[1] != texts[2]


def is_the_same_after_save_and_load(rung, trainer):
    """Through a file, into a model that started from another seed: equal logits, bit for bit."""
    model, other, file = make(rung).eval(), make(rung, seed=1).eval(), io.BytesIO()
    idx = some_ids(3, T)
    assert not torch.equal(logits(model, idx), logits(other, idx))
    torch.save(model.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(logits(model, idx), logits(other, idx))


PROPERTIES = [
    is_causal,
    hears_its_past,
    rows_are_independent,
    is_deterministic_in_eval_mode,
    refuses_positions_beyond_block_size,
    has_the_lectures_parameters,
    every_parameter_gets_a_gradient,
    every_parameter_is_trained,
    learns_what_comes_next,
    overfits_one_batch,
    is_shown_the_last_tokens,
    writes_the_same_under_the_same_seed,
    is_the_same_after_save_and_load,
]


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("holds", PROPERTIES, ids=lambda holds: holds.__name__)
def test_every_rung(holds, rung):
    holds(RUNGS[rung], training)


# ---------------------------------------------------------------- planted faults are caught

(CAUSAL, PAST, ROWS, EVAL, BEYOND, COUNT, GRADIENT, TRAINED, NEXT, OVERFIT, SHOWN, WRITES,
 SAVED) = PROPERTIES  # fmt: skip


class Restless(LayerNormModel):
    """Random in eval mode as well, as with dropout that is never turned off."""

    def forward(self, idx, targets=None):
        logits, loss = super().forward(idx, targets)
        return logits + 1e-3 * torch.randn_like(logits), loss


class WrappedPositions(LayerNormModel):
    """Reads as many tokens as come: position block_size is position 0 again."""

    def __init__(self, vocab_size, block_size, n_embd, n_head, n_layer):
        super().__init__(vocab_size, 4 * block_size, n_embd, n_head, n_layer)
        self.block_size = block_size
        self.position_embedding_table = nn.Embedding(block_size, n_embd)

    def embed(self, idx):
        places = torch.arange(idx.shape[1]) % self.block_size
        return self.token_embedding_table(idx) + self.position_embedding_table(places)


class UnsavedPositions(LayerNormModel):
    """Its positions are random numbers, which a file of its parameters doesn't hold."""

    def __init__(self, vocab_size, block_size, n_embd, n_head, n_layer):
        super().__init__(vocab_size, block_size, n_embd, n_head, n_layer)
        places = torch.randn(block_size, n_embd)
        del self.position_embedding_table
        self.register_buffer("places", places, persistent=False)

    def position_embedding_table(self, positions):
        return self.places[positions]


class BatchNormed(LayerNormModel):
    """BatchNorm over all tokens where the final layer norm should be."""

    def __init__(self, vocab_size, block_size, n_embd, n_head, n_layer):
        super().__init__(vocab_size, block_size, n_embd, n_head, n_layer)
        norm = nn.BatchNorm1d(n_embd)  # (N, C, T) -> (N, C, T)
        self.body[-1] = norm
        norm.forward = lambda x: nn.BatchNorm1d.forward(norm, x.mT).mT


def changed_body(change: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """The layer-norm model with its blocks replaced by what `change` makes of T, C, n_head, n_layer."""

    def make(vocab_size, block_size, n_embd, n_head, n_layer):
        model = LayerNormModel(vocab_size, block_size, n_embd, n_head, n_layer)
        model.body = nn.Sequential(change(block_size, n_embd, n_head, n_layer), model.body[-1])
        return model

    return make


def block(T: int, C: int, n_head: int, **how) -> Block:
    return Block(C, ProjectedAttention(C, n_head, T, **how), WideFeedForward(C))


def tied(T, C, n_head, n_layer):
    return nn.Sequential(*[block(T, C, n_head)] * n_layer)


def looking_ahead(T, C, n_head, n_layer):
    make_head = partial(Head, causal=False)
    return nn.Sequential(*(block(T, C, n_head, make_head=make_head) for _ in range(n_layer)))


def deaf(T, C, n_head, n_layer):
    """Blocks in which each token only thinks."""
    return nn.Sequential(*(Block(C, WideFeedForward(C), WideFeedForward(C)) for _ in range(n_layer)))


class Idle(LayerNormModel):
    """One of its layers is never used."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.forgotten = nn.Linear(1, 1)


def with_layer_norm(make: Callable[..., nn.Module]) -> Rung:
    return Rung(make, RUNGS["layer norm"].parameters)


def with_generate(old: str, new: str) -> Rung:
    """The first rung, with one place of `generate` changed."""
    changed = planted(single_head, old, new)
    return Rung(lambda V, T, C, H, L: changed.SingleHeadModel(V, T, C), 7_553, overfits_to=0.45)


def with_targets(new: str) -> ModuleType:
    """The training, on batches whose targets are others."""
    trainer = planted(training, "from lecture_lib.batches import get_batch", "")
    trainer.get_batch = planted(batches, "data[positions + 1]", new).get_batch
    return trainer


def with_optimizer_of(parameters: str) -> ModuleType:
    return planted(training, "AdamW(model.parameters(),", f"AdamW({parameters},")


RIGHT = RUNGS["layer norm"]
LAST_TOKENS = "idx[:, -self.block_size :]"
# The fault, the model, the training, and all properties that must notice.
FAULTS = [
    ("random in eval mode", with_layer_norm(Restless), training, {EVAL}),
    ("positions wrapped around", with_layer_norm(WrappedPositions), training, {BEYOND}),
    ("positions not saved", with_layer_norm(UnsavedPositions), training, {COUNT, SAVED}),
    ("batch norm", with_layer_norm(BatchNormed), training, {CAUSAL, ROWS}),
    ("blocks tied", with_layer_norm(changed_body(tied)), training, {COUNT}),
    ("no mask", with_layer_norm(changed_body(looking_ahead)), training, {CAUSAL}),
    ("no attention", with_layer_norm(changed_body(deaf)), training, {PAST, COUNT, OVERFIT}),
    ("a layer forgotten", with_layer_norm(Idle), training, {COUNT, GRADIENT, TRAINED}),
    ("targets not shifted", RIGHT, with_targets("data[positions]"), {NEXT}),
    ("targets before the inputs", RIGHT, with_targets("data[positions - 2]"), {NEXT}),
    ("positions left out of the optimizer", RIGHT,
     with_optimizer_of("[p for n, p in model.named_parameters() if 'position' not in n]"), {TRAINED}),
    ("only vectors in the optimizer", RIGHT,
     with_optimizer_of("[p for p in model.parameters() if p.dim() < 2]"), {TRAINED, NEXT, OVERFIT}),
    ("all shown", with_generate(LAST_TOKENS, "idx"), training, {SHOWN, WRITES}),
    ("the beginning shown", with_generate(LAST_TOKENS, "idx[:, : self.block_size]"), training, {SHOWN}),
    ("nothing drawn", with_generate("torch.multinomial(F.softmax(logits, dim=-1), num_samples=1)",
     "logits.argmax(dim=-1, keepdim=True)"), training, {WRITES}),
]  # fmt: skip


@pytest.mark.parametrize(("rung", "trainer", "noticed_by"), [pytest.param(*f[1:], id=f[0]) for f in FAULTS])
def test_a_planted_fault_is_caught(rung, trainer, noticed_by):
    assert failed(rung, PROPERTIES, trainer=trainer) == noticed_by


def test_every_property_catches_a_fault():
    assert set().union(*(noticed_by for *_, noticed_by in FAULTS)) == set(PROPERTIES)
