"""The batches, the bigram model and the training loop that every chapter shares."""

import math
import subprocess
import sys
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kit import Elsewhere, close, draw_ids, refusals, seeded
from torch import nn

from lecture_lib import bigram
from lecture_lib.base.errors import CourseError
from lecture_lib.batches import get_batch
from lecture_lib.bigram import BigramLanguageModel
from lecture_lib.tokenization import CharTokenizer
from lecture_lib.training import (
    EVAL_TOKENS,
    History,
    TrainConfig,
    adamw,
    config_parser,
    estimate_loss,
    progress_bar,
    sample_text,
    train,
    training_steps,
)

ALTERNATING = {"train": torch.tensor([0, 1] * 200), "val": torch.tensor([0, 1] * 50)}
QUICK = TrainConfig(
    batch_size=8, block_size=4, max_iters=60, eval_interval=20, eval_iters=4, learning_rate=0.1
)


# ---------------------------------------------------------------- batches


@given(n=st.integers(2, 300), batch_size=st.integers(1, 9), data=st.data())
def test_every_row_is_a_chunk_and_its_successors(n, batch_size, data):
    block_size = data.draw(st.integers(1, n - 1))
    ids = torch.randperm(n)
    xb, yb = get_batch({"train": ids}, "train", batch_size, block_size)
    assert xb.shape == yb.shape == (batch_size, block_size)
    position = ids.argsort()  # where each id stands
    starts = position[xb[:, 0]]
    for x, y, start in zip(xb, yb, starts, strict=True):
        assert torch.equal(x, ids[start : start + block_size])
        assert torch.equal(y, ids[start + 1 : start + block_size + 1])


def test_every_offset_can_be_drawn_and_none_beyond():
    xb, yb = get_batch({"train": torch.arange(10)}, "train", 2000, 4)
    assert xb[:, 0].unique().tolist() == list(range(6))
    assert yb.max() == 9


def test_same_seed_same_batch_and_the_lectures_offsets():
    ids = torch.arange(1_003_854)
    xb, _ = seeded(get_batch, {"train": ids}, "train", 4, 8)
    assert xb[:, 0].tolist() == [76049, 234249, 934904, 560986]


test_batches_that_cannot_be = refusals(
    ("no split 'test'; expected one of: train, val", get_batch, ALTERNATING, "test", 1, 1),
    ("block_size is 100; expected 1 to 99 for 100 ids", get_batch, ALTERNATING, "val", 1, 100),
    ("block_size is 0; expected 1 to 99", get_batch, ALTERNATING, "val", 1, 0),
    ("batch_size is 0; expected at least 1", get_batch, ALTERNATING, "val", 0, 1),
)


# ---------------------------------------------------------------- the model


def test_logits_depend_on_the_present_token_alone():
    model = BigramLanguageModel(11)
    one, other = torch.tensor([[1, 2, 3]]), torch.tensor([[9, 8, 3]])
    assert torch.equal(model(one)[0][:, -1], model(other)[0][:, -1])
    assert not torch.equal(model(one)[0][:, 0], model(other)[0][:, 0])


def test_loss_is_the_mean_surprise_of_the_targets():
    model = BigramLanguageModel(5)
    idx, targets = torch.tensor([[0, 1], [2, 3]]), torch.tensor([[1, 2], [3, 4]])
    log_probs = model.token_embedding_table.weight.log_softmax(dim=1)
    _, loss = model(idx, targets)
    close(loss, -log_probs[idx, targets].mean(), atol=1e-6)
    assert model(idx)[1] is None


def test_generate_keeps_the_prompt_and_follows_the_table():
    model = BigramLanguageModel(4)
    nn.init.zeros_(model.token_embedding_table.weight)
    with torch.no_grad():  # each token is followed by the next one, surely
        model.token_embedding_table.weight += 1000 * torch.roll(torch.eye(4), 1, dims=1)
    text = model.generate(torch.tensor([[0], [2]]), max_new_tokens=5)
    assert text.tolist() == [[0, 1, 2, 3, 0, 1], [2, 3, 0, 1, 2, 3]]


def test_generate_builds_no_graph():
    learning = []
    model = BigramLanguageModel(4)
    model.register_forward_hook(lambda *_: learning.append(torch.is_grad_enabled()))
    model.generate(torch.tensor([[0]]), max_new_tokens=3)
    assert learning == [False] * 3


# ---------------------------------------------------------------- training


def test_training_learns_what_can_be_learned_and_prints_both_losses(capsys):
    torch.manual_seed(0)
    history = train(BigramLanguageModel(2), ALTERNATING, QUICK)
    assert history.steps == [0, 20, 40, 59]
    assert history.val[-1] < 0.05 < history.val[0]
    line = f"step     0: train loss {history.train[0]:.4f}, val loss {history.val[0]:.4f}"
    assert line in capsys.readouterr().out


def test_a_step_is_taken_once_the_next_one_is_asked_for():
    """What is yielded is its number, after its estimate and before the model changes."""
    model, history = BigramLanguageModel(2), History()
    table, before = model.token_embedding_table.weight, None
    for step in training_steps(model, ALTERNATING, QUICK, adamw(model, QUICK), history, first_step=37):
        assert history.steps == [due for due in (40, 59) if due <= step]
        assert before is None or not torch.equal(table, before)
        before = table.detach().clone()
    assert step == 59 and not torch.equal(table, before)


def test_the_bar_counts_the_tokens_of_a_run_or_of_what_is_left_of_it(capsys):
    """Of 60 steps with 32 tokens each."""
    assert list(progress_bar(QUICK)) == list(range(60))
    for first_step, tokens in ((0, 0), (57, 1824)):
        capsys.readouterr()
        assert list(progress_bar(QUICK, first_step)) == list(range(first_step, 60))
        assert f" {tokens}/1920 [00:00<?, ?token/s]" in capsys.readouterr().out


def test_a_run_that_goes_on_does_not_repeat_its_estimate():
    model, history = BigramLanguageModel(2), History([40], [0.5], [0.6])
    assert list(training_steps(model, ALTERNATING, QUICK, adamw(model, QUICK), history, first_step=40))
    assert history.steps == [40, 59] and history.train[0] == 0.5


def test_another_optimizer_can_be_given():
    model = BigramLanguageModel(2)
    before = model.token_embedding_table.weight.detach().clone()
    train(model, ALTERNATING, QUICK, torch.optim.SGD(model.parameters(), lr=0.0))
    assert torch.equal(model.token_embedding_table.weight, before)


def test_every_parameter_is_trained():
    torch.manual_seed(0)
    model = BigramLanguageModel(2)
    before = [parameter.clone() for parameter in model.parameters()]
    train(model, ALTERNATING, QUICK)
    assert all((old != new).all() for old, new in zip(before, model.parameters(), strict=True))


def test_estimate_covers_each_split_alone():
    model = BigramLanguageModel(2)
    nn.init.zeros_(model.token_embedding_table.weight)
    with torch.no_grad():
        model.token_embedding_table.weight[0, 0] = 2.0
    splits = {"train": torch.zeros(50, dtype=torch.long), "val": torch.ones(50, dtype=torch.long)}
    losses = estimate_loss(model, splits, QUICK)
    assert losses["train"] == pytest.approx(math.log(1 + math.exp(-2)), abs=1e-6)
    assert losses["val"] == pytest.approx(math.log(2), abs=1e-6)


def test_estimate_is_the_mean_over_the_lectures_loop():
    """Batch after batch, as the video draws them (38:00), though more than one pass through the model."""
    model, splits = seeded(BigramLanguageModel, 11), {"train": draw_ids(400), "val": draw_ids(90, seed=8)}
    config = TrainConfig(batch_size=8, block_size=4, eval_iters=200)
    torch.manual_seed(1)
    expected = {
        split: sum(model(*get_batch(splits, split, 8, 4))[1].item() for _ in range(200)) / 200
        for split in splits
    }
    assert seeded(estimate_loss, model, splits, config, seed=1) == pytest.approx(expected, abs=1e-5)


def test_a_batch_larger_than_what_passes_at_a_time_passes_alone():
    config = TrainConfig(batch_size=2**10, block_size=8, eval_iters=2)
    assert config.batch_size * config.block_size > EVAL_TOKENS
    assert estimate_loss(seeded(BigramLanguageModel, 2), ALTERNATING, config)["val"] > 0


class Moody(nn.Module):
    """Its loss says in which mode it was asked."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, idx, targets):
        assert not torch.is_grad_enabled()
        return None, self.weight + float(self.training)

    def generate(self, idx, max_new_tokens):
        assert not self.training and not torch.is_grad_enabled()
        return torch.cat([idx, idx.new_zeros(1, max_new_tokens)], dim=1)


@pytest.mark.parametrize("training", [True, False])
def test_measuring_and_sampling_happen_in_eval_mode_and_restore_the_mode(training):
    model = Moody().train(training)
    assert estimate_loss(model, ALTERNATING, QUICK) == {"train": 0.0, "val": 0.0}
    assert sample_text(model, CharTokenizer("\nab"), max_new_tokens=2, prompt="a") == "a\n\n"
    assert model.training is training


def test_ids_go_where_the_model_is():
    model, history = Elsewhere(), History([0], [0.0], [0.0])  # the first step's estimate is there
    optimizer = adamw(BigramLanguageModel(2), QUICK)
    for use in (
        lambda: estimate_loss(model, ALTERNATING, QUICK),
        lambda: list(training_steps(model, ALTERNATING, QUICK, optimizer, history)),
        lambda: sample_text(model, CharTokenizer("ab"), 1, "a"),
    ):
        with pytest.raises(Elsewhere.Arrived):
            use()


def test_same_seed_same_text():
    torch.manual_seed(0)
    model, tokenizer = BigramLanguageModel(26), CharTokenizer("abcdefghijklmnopqrstuvwxyz")
    texts = [sample_text(model, tokenizer, 40, prompt="a", seed=seed) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert sample_text(model, tokenizer, 40, prompt="a") == sample_text(model, tokenizer, 40, "a", 1337)
    assert len(texts[0]) == 41 and texts[0].startswith("a")


test_settings_must_be_positive = refusals(
    *(
        (f"{name} is {value}; expected a positive number", partial(TrainConfig, **{name: value}))
        for name in vars(TrainConfig())
        for value in (0, -1, math.nan)
    )
)


def test_the_settings_are_the_lectures_unless_told():
    """For the bigram model, video 38:00."""
    assert TrainConfig() == TrainConfig(32, 8, 3000, 300, 200, 0.01)


def test_what_is_chosen_for_sampling_reaches_the_model():
    asked = {}

    class Listening(Moody):
        def generate(self, idx, max_new_tokens, **choices):
            asked.update(choices)
            return idx

    sample_text(Listening(), CharTokenizer("ab"), 0, "a", temperature=0.5, top_k=3, top_p=0.9)
    assert asked == {"temperature": 0.5, "top_k": 3, "top_p": 0.9}


def test_history_keeps_what_was_added():
    history = History()
    history.add(0, {"train": 1.0, "val": 2.0})
    history.add(9, {"train": 0.5, "val": 1.5})
    assert (history.steps, history.train, history.val) == ([0, 9], [1.0, 0.5], [2.0, 1.5])


# ---------------------------------------------------------------- the script


def bigram_script(*words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "lecture_lib.bigram", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_script_trains_and_samples():
    done = bigram_script("--max-iters", "20", "--eval-iters", "2", "--eval-interval", "10")
    assert done.returncode == 0
    assert "step    19: train loss" in done.stdout
    assert len(done.stdout) > 500


def test_the_options_are_the_settings_and_the_seed():
    parser, defaults = config_parser("", TrainConfig()), vars(TrainConfig())
    assert vars(parser.parse_args([])) == {**defaults, "seed": 1337}
    chosen = vars(parser.parse_args(["--max-iters", "7", "--learning-rate", "1e-3", "--seed", "2"]))
    assert chosen == {**defaults, "max_iters": 7, "learning_rate": 1e-3, "seed": 2}


def sample_of_the_script(capsys, seed: int) -> str:
    bigram.main(["--max-iters=1", "--eval-iters=1", "--learning-rate=1e-9", f"--seed={seed}"])
    out = capsys.readouterr().out
    assert out.startswith("device: ") and out.count("train loss") == 1  # of the only step
    return out.rpartition("\r")[2]  # what stands after the progress bar


def test_the_scripts_sample_has_500_characters_and_follows_the_seed(capsys):
    one, again, other = (sample_of_the_script(capsys, seed) for seed in (1, 1, 2))
    assert one == again != other
    assert one.startswith("\n") and len(one) == len("\n") + 500 + len("\n")


def test_the_scripts_seed_is_for_the_draws_too(capsys, monkeypatch):
    """Models that know nothing, and are all alike, write different texts."""

    class Blank(BigramLanguageModel):
        def __init__(self, vocab_size):
            super().__init__(vocab_size)
            nn.init.zeros_(self.token_embedding_table.weight)

    monkeypatch.setattr(bigram, "BigramLanguageModel", Blank)
    assert sample_of_the_script(capsys, 1) != sample_of_the_script(capsys, 2)


def test_script_help_and_mistakes():
    assert "--learning-rate" in bigram_script("--help").stdout
    refused = bigram_script("--batch-size", "0")
    assert refused.returncode == 2
    assert "batch_size is 0; expected a positive number" in refused.stderr


def test_the_script_refuses_a_window_that_no_split_holds(capsys):
    with pytest.raises(SystemExit) as stop:
        bigram.main(["--block-size=9999999", "--max-iters=1"])
    assert stop.value.code == 2
    assert "block_size is 9999999; expected 1 to" in capsys.readouterr().err


def test_a_loss_that_is_no_number_stops_training_at_once():
    class Diverging(BigramLanguageModel):
        def forward(self, idx, targets=None):
            logits, loss = super().forward(idx, targets)
            return logits, loss * self.factor

    for factor in (math.inf, math.nan):
        model, history, steps = Diverging(2), History(), []
        model.factor = 1.0
        with pytest.raises(CourseError, match=r"loss is (inf|nan) at step 7, .* learning_rate is 0.1: try"):
            for step in training_steps(model, ALTERNATING, QUICK, adamw(model, QUICK), history):
                steps.append(step)
                model.factor = factor if step == 7 else 1.0
        assert steps == list(range(8)) and all(math.isfinite(loss) for loss in history.val)
        assert all(torch.isfinite(p).all() for p in model.parameters())
