"""nanoGPT's model, chapter 13: the same function as the models of chapters 07, 09 and 11, and faults in it.

Each property is a function of an implementation: the module `nanogpt`, or a copy of it with one place of its
source changed. The module passes them all; a planted fault fails exactly those that the table names.
"""

import math
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from faults import fault_tests
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from lecture_lib import nanogpt
from lecture_lib.checkpoint import load_checkpoint, save_checkpoint
from lecture_lib.course.sampling import write_on
from lecture_lib.generation import AutoregressiveModel
from lecture_lib.gpt import GPT, GPTConfig
from lecture_lib.multi_head import MultiHeadAttention
from lecture_lib.nanogpt import NanoGPT, NanoGPTConfig, from_gpt, split_heads
from lecture_lib.residual import ProjectedAttention
from lecture_lib.tokenization import CharTokenizer
from lecture_lib.training import sample_text

DOUBLE = torch.float64
TINY = NanoGPTConfig(vocab_size=11, block_size=8, n_embd=12, n_head=3, n_layer=2)


def draw(*shape: int, seed: int = 1337) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def draw_ids(B: int, T: int, vocab_size: int = 11) -> torch.Tensor:
    return torch.randint(vocab_size, (B, T), generator=torch.Generator().manual_seed(7))


def close(actual: torch.Tensor, expected: torch.Tensor, atol: float = 1e-10) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


def attentions(library: ModuleType, T: int, n_head: int, hs: int) -> tuple[nn.Module, nn.Module]:
    """The library's batched attention and chapter 09's loop, with the same weights."""
    torch.manual_seed(1337)
    loop = ProjectedAttention(n_head * hs, n_head, T).double()
    sizes = NanoGPTConfig(block_size=T, n_embd=n_head * hs, n_head=n_head)
    batched = library.CausalSelfAttention(sizes).double()
    library.carry_heads(loop, batched)
    return batched, loop


def make(library: ModuleType, **changes) -> nn.Module:
    """A model with opinions: its matrices are wide enough that everything matters."""
    torch.manual_seed(1337)
    model = library.NanoGPT(replace(TINY, **changes)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model


# ---------------------------------------------------------------- attention, for B, T, n_head, hs


def equals_chapter_07(library, B, T, n_head, hs):
    """Before the projection, the concatenated outputs of the heads in their loop."""
    batched, loop = attentions(library, T, n_head, hs)
    x = draw(B, T, n_head * hs)
    close(batched.heads(x), MultiHeadAttention.forward(loop, x))


def equals_chapter_09(library, B, T, n_head, hs):
    batched, loop = attentions(library, T, n_head, hs)
    x = draw(B, T, n_head * hs)
    close(batched(x), loop(x))


def has_its_gradients(library, B, T, n_head, hs):
    """Of x, of the stacked matrices, of the projection."""
    batched, loop = attentions(library, T, n_head, hs)
    grads = []
    for module in (batched, loop):
        x = draw(B, T, n_head * hs).requires_grad_()
        (module(x) * torch.linspace(-1, 1, x.numel(), dtype=DOUBLE).view_as(x)).sum().backward()
        grads.append(x.grad)
    close(*grads)
    close(batched.qkv.weight.grad, library.stacked_heads(loop, of=lambda weight: weight.grad))
    close(batched.proj.weight.grad, loop.proj.weight.grad)
    close(batched.proj.bias.grad, loop.proj.bias.grad)


def heads_are_a_batch_dimension(library, B, T, n_head, hs):
    """Entry (b, h, t, i) of queries, keys and values is channel h * hs + i of its third of token t."""
    width = n_head * hs
    qkv = torch.arange(B * T * 3 * width).view(B, T, 3 * width)
    for part, name in enumerate(library.split_heads(qkv, n_head)):
        assert name.shape == (B, n_head, T, hs)
        for h in range(n_head):
            first = part * width + h * hs
            assert torch.equal(name[:, h], qkv[..., first : first + hs])


# ---------------------------------------------------------------- the model


def is_causal_end_to_end(library, **_):
    """Logits up to t stay the same whatever ids follow, in one reading and behind a cache."""
    model, idx = make(library), draw_ids(2, 8)
    before = model(idx)[0]
    for t in range(7):
        changed = idx.clone()
        changed[:, t + 1 :] = (changed[:, t + 1 :] + 3) % 11
        close(model(changed)[0][:, : t + 1], before[:, : t + 1])
        assert (model(changed)[0][:, t + 1 :] != before[:, t + 1 :]).any()


def is_chapter_11s_model(library, **_):
    """Logits, loss, and the loss's gradients of the embeddings are those of the GPT that it was made from."""
    torch.manual_seed(1337)
    gpt = GPT(GPTConfig(vocab_size=11, block_size=8, n_embd=12, n_head=3, n_layer=2)).double()
    for parameter in gpt.parameters():
        nn.init.normal_(parameter, std=0.5)  # norms, too
    model = library.from_gpt(gpt)
    idx, targets = draw_ids(2, 8), draw_ids(2, 8).flip(0)
    for ours, theirs in zip(model(idx, targets), gpt(idx, targets), strict=True):
        close(ours, theirs)
    tables = [m.token_embedding_table.weight for m in (model, gpt)]
    close(*(torch.autograd.grad(m(idx, targets)[1], w)[0] for m, w in zip((model, gpt), tables, strict=True)))


def ties_embedding_and_logits(library, **_):
    """One matrix, counted, trained and kept as one; without a bias."""
    model = make(library)
    assert model.lm_head.weight is model.token_embedding_table.weight and model.lm_head.bias is None
    close(model(draw_ids(1, 3))[0], model.body(model.embed(draw_ids(1, 3))) @ model.lm_head.weight.T)
    free = make(library, tied=False)
    assert free.lm_head.weight is not free.token_embedding_table.weight and free.lm_head.bias is not None


def starts_without_opinions(library, **_):
    torch.manual_seed(1337)
    model = library.NanoGPT(NanoGPTConfig(vocab_size=65, block_size=32, n_embd=64, n_head=4, n_layer=4))
    idx = draw_ids(8, 32, vocab_size=65)
    assert abs(model(idx, idx.roll(-1, dims=1))[1] - math.log(65)) < 0.05
    assert 0.019 < model.token_embedding_table.weight.std() < 0.021


def bias_is_everywhere_or_nowhere(library, **_):
    for bias in (True, False):
        names = [name for name, _ in make(library, bias=bias).named_parameters()]
        found = [name for name in names if name.endswith("bias")]
        assert len(found) == (2 * 6 + 1 if bias else 0)  # two norms and four layers a block, the last norm


def bends_as_it_is_told(library, **_):
    x = draw(1, 4, 12)
    functions = {"gelu": F.gelu, "gelu_tanh": lambda y: F.gelu(y, approximate="tanh"), "relu": F.relu}
    for activation, bend in functions.items():
        ffwd = make(library, activation=activation).body.blocks[0].ffwd
        up, _, down = ffwd.net
        close(ffwd(x), down(bend(up(x))))


def drops_where_it_is_told(library, **_):
    """Attention weights by attention_dropout alone, embeddings and parts by dropout; nothing in eval mode."""
    idx = draw_ids(2, 8)
    for how in ({"dropout": 0.5}, {"attention_dropout": 0.5}):
        model = make(library, **how)
        assert not torch.equal(model(idx)[0], model(idx)[0])
        model.eval()
        assert torch.equal(model(idx)[0], model(idx)[0])
        close(model(idx)[0], make(library)(idx)[0])
    block = make(library, attention_dropout=0.5).body.blocks[0]
    x = draw(2, 8, 12)
    assert not torch.equal(block.sa(x), block.sa(x)) and torch.equal(block.ffwd(x), block.ffwd(x))
    model, entering = make(library, dropout=0.5), []
    model.body.blocks[0].register_forward_pre_hook(lambda _, inputs: entering.append(inputs[0]))
    model(idx)
    assert (entering[0] == 0).any()


def uses_the_fast_kernel(library, **_):
    """Without attention dropout, in single precision, torch takes its tiled kernel; with it, it can't."""
    sizes = NanoGPTConfig(block_size=8, n_embd=12, n_head=3)
    x = draw(2, 8, 12).float()
    for p, tiled in ((0.0, True), (0.5, False)):
        node, names = library.CausalSelfAttention(replace(sizes, attention_dropout=p)).heads(x).grad_fn, []
        while node is not None:
            names.append(node.name())
            node = node.next_functions[0][0] if node.next_functions else None
        assert any("FlashAttention" in name for name in names) is tiled


OF_ANY_SIZE = [equals_chapter_07, equals_chapter_09, has_its_gradients, heads_are_a_batch_dimension]
PROPERTIES = [
    *OF_ANY_SIZE,
    is_causal_end_to_end,
    is_chapter_11s_model,
    ties_embedding_and_logits,
    starts_without_opinions,
    bias_is_everywhere_or_nowhere,
    bends_as_it_is_told,
    drops_where_it_is_told,
    uses_the_fast_kernel,
]

# ---------------------------------------------------------------- what is right passes


@settings(deadline=None, max_examples=15)
@given(B=st.integers(1, 3), T=st.integers(1, 6), n_head=st.integers(1, 4), hs=st.integers(1, 4))
def test_attention(B, T, n_head, hs):
    for holds in OF_ANY_SIZE:
        holds(nanogpt, B, T, n_head, hs)


@pytest.mark.parametrize("holds", PROPERTIES[len(OF_ANY_SIZE) :], ids=lambda holds: holds.__name__)
def test_the_model(holds):
    holds(nanogpt)


def test_the_shipped_model_writes_the_same_text():
    """A copy of chapter 11's model, in its mode, continues a text by its cache as chapter 06 does without."""
    torch.manual_seed(1337)
    gpt = GPT(GPTConfig(vocab_size=11, block_size=8, n_embd=12, n_head=3, n_layer=2, dropout=0.3)).eval()
    model = from_gpt(gpt)
    assert not model.training and from_gpt(gpt.train()).training
    texts = []
    for generate in (gpt.eval().generate, model.generate):
        torch.manual_seed(7)
        texts.append(generate(draw_ids(2, 3), 20))
    assert torch.equal(*texts)


def test_a_copy_shares_no_weights():
    gpt = GPT(GPTConfig(vocab_size=11, block_size=8, n_embd=12, n_head=3, n_layer=2))
    before = {name: tensor.clone() for name, tensor in gpt.state_dict().items()}
    with torch.no_grad():
        for parameter in from_gpt(gpt).parameters():
            parameter.zero_()
    assert all(torch.equal(gpt.state_dict()[name], tensor) for name, tensor in before.items())


def test_it_is_in_the_courses_frame():
    """Logits for all tokens, a loss with targets, None without; chapter 06's generate works."""
    model, idx = make(nanogpt), draw_ids(2, 5)
    logits, loss = model(idx)
    assert logits.shape == (2, 5, 11) and loss is None and model.block_size == 8
    assert isinstance(model, AutoregressiveModel) and model(idx, idx)[1].isfinite()
    assert AutoregressiveModel.generate(model, idx, 3).shape == (2, 8)


@pytest.mark.parametrize("model", [NanoGPT(TINY), GPT(GPTConfig(11, 8, 12, 3, 2))], ids=["nanoGPT", "GPT"])
def test_a_checkpoint_of_either_kind_comes_back_and_writes(model, tmp_path):
    letters = CharTokenizer("\nabcdefghij")
    save_checkpoint(tmp_path / "model", model, letters, {"val": 1.5})
    loaded, _, _ = load_checkpoint(tmp_path / "model")
    assert type(loaded) is type(model) and loaded.config == model.config
    assert torch.equal(loaded(draw_ids(2, 8))[0], model.eval()(draw_ids(2, 8))[0])
    written = write_on("abc", 20, checkpoint=tmp_path / "model")
    assert written == sample_text(model, letters, 20, "abc")


def test_the_same_state_after_saving_and_loading():
    model, other = make(nanogpt), NanoGPT(TINY).double()
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(draw_ids(2, 5))[0], other(draw_ids(2, 5))[0])
    assert other.lm_head.weight is other.token_embedding_table.weight


@settings(deadline=None, max_examples=15)
@given(
    n_head=st.integers(1, 3), hs=st.integers(1, 3), n_layer=st.integers(1, 2), bias=st.booleans(),
    tied=st.booleans(), activation=st.sampled_from(sorted(nanogpt.ACTIVATIONS)),
)  # fmt: skip
def test_any_valid_configuration_learns(n_head, hs, n_layer, bias, tied, activation):
    sizes = NanoGPTConfig(11, 6, n_head * hs, n_head, n_layer, bias=bias, tied=tied, activation=activation)
    model, idx = NanoGPT(sizes), draw_ids(2, 6)
    logits, loss = model(idx, idx)
    loss.backward()
    assert logits.shape == (2, 6, 11) and loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


# ---------------------------------------------------------------- what is wrong is refused


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_embd": 10, "n_head": 4}, "n_embd is 10, n_head is 4; expected n_head to divide n_embd"),
        ({"block_size": 0}, "block_size is 0; expected a whole number of at least 1"),
        ({"attention_dropout": 1.0}, "attention_dropout is 1.0; expected a share from 0"),
        ({"attention_dropout": math.nan}, "attention_dropout is nan; expected a share from 0"),
        ({"activation": "sigmoid"}, "activation is 'sigmoid'; expected one of: gelu, gelu_tanh, relu"),
    ],
)
def test_a_model_that_cannot_be_built(wrong, message):
    with pytest.raises(ValueError, match=message):
        NanoGPTConfig(**wrong)


def test_ids_that_do_not_fit():
    model = make(nanogpt)
    with pytest.raises(ValueError, match="idx has rows of 9 tokens; expected at most block_size = 8"):
        model(draw_ids(1, 9))
    with pytest.raises(TypeError, match=r"idx has dtype torch\.float32; expected token ids"):
        model(torch.zeros(1, 3))


def test_channels_that_cannot_be_cut():
    with pytest.raises(RuntimeError):
        split_heads(torch.zeros(1, 2, 3 * 8), n_head=3)


# ---------------------------------------------------------------- planted faults are caught

SEVEN, NINE, GRADS, DIMS, CAUSAL, ELEVEN, TIED, START, BIAS, BEND, DROP, FAST = PROPERTIES
CUT = "by_head.permute(2, 0, 3, 1, 4).unbind(0)"
SDPA = "F.scaled_dot_product_attention(q, k, v, mask, dropout, causal)"
SAME = {SEVEN, NINE, GRADS, ELEVEN}

# the fault, its place in the source, what it becomes, and all properties that must notice
FAULTS = [
    ("cut without moving the heads", CUT,
     "by_head.permute(2, 0, 1, 3, 4).reshape(3, B, n_head, T, -1).unbind(0)", {*SAME, DIMS, CAUSAL}),
    ("heads interleaved", "qkv.view(B, T, 3, n_head, width // (3 * n_head))",
     "qkv.view(B, T, 3, width // (3 * n_head), n_head).transpose(3, 4)", {*SAME, DIMS, FAST}),
    ("each head its own q, k, v in a row", "qkv.view(B, T, 3, n_head, width // (3 * n_head))",
     "qkv.view(B, T, n_head, 3, width // (3 * n_head)).transpose(2, 3)", {*SAME, DIMS}),
    ("put together without moving back", "out.transpose(1, 2).flatten(2)", "out.reshape(x.shape)",
     {*SAME, CAUSAL}),
    ("keys first in carrying", '("query", "key", "value")', '("key", "query", "value")', SAME),
    ("values first in carrying", '("query", "key", "value")', '("value", "key", "query")', SAME),
    ("carried row by row of heads", "for name in (\"query\", \"key\", \"value\") for head in heads.heads",
     "for head in heads.heads for name in (\"query\", \"key\", \"value\")", SAME),
    ("projection not carried", "    into.proj.load_state_dict(heads.proj.state_dict())\n", "",
     {NINE, GRADS, ELEVEN}),
    ("sees the future", SDPA, SDPA.replace("causal", "False"), {*SAME, CAUSAL}),
    ("sees the future of a prompt", "q.shape[2] > 1", "q.shape[2] == 1", {*SAME, CAUSAL}),
    ("scaled by n_embd", SDPA, SDPA.replace("causal)", "causal, scale=x.shape[-1] ** -0.5)"), SAME),
    ("attention dropout always", SDPA, SDPA.replace("dropout", "0.1"), {*SAME, CAUSAL, TIED, DROP, FAST}),
    ("attention dropout in eval mode too", "self.dropout if self.training else 0.0", "self.dropout", {DROP}),
    ("attention dropout never", "self.dropout if self.training else 0.0", "0.0", {DROP, FAST}),
    ("attention dropout is dropout", "config.n_head, config.attention_dropout",
     "config.n_head, config.dropout",
     {DROP, FAST}),
    ("untied", "if config.tied:", "if False:", {TIED, BIAS}),
    ("always tied", "if config.tied:", "if True:", {TIED, ELEVEN}),
    ("tied by a copy", "self.lm_head.weight, self.lm_head.bias = self.token_embedding_table.weight, None",
     "self.lm_head.weight, self.lm_head.bias = nn.Parameter(self.token_embedding_table.weight.clone()), None",
     {TIED}),
    ("tied, and a bias", "self.token_embedding_table.weight, None",
     "self.token_embedding_table.weight, self.lm_head.bias", {TIED, BIAS}),
    ("starts as torch does", "        initialise(self)\n", "", {START}),
    ("always ReLU", "ACTIVATIONS[config.activation]()", "nn.ReLU()", {BEND}),
    ("exact GELU for GPT-2's", 'partial(nn.GELU, approximate="tanh")', "nn.GELU", {BEND}),
    ("biases in the norms always", "nn.LayerNorm(config.n_embd, bias=config.bias) for",
     "nn.LayerNorm(config.n_embd) for",
     {BIAS}),
    ("no norm at the end", "return self.ln(x)", "return x", {ELEVEN}),
    ("norms in the wrong place", "self.sa(self.ln1(x), past, mask)",
     "self.sa(self.ln2(x), past, mask)", {ELEVEN}),
    ("no residual around the feed-forward", "return x + self.dropout(self.ffwd(self.ln2(x)))",
     "return self.dropout(self.ffwd(self.ln2(x)))", {ELEVEN}),
    ("embeddings not dropped", "        x = self.dropout(x)\n", "", {DROP}),
]  # fmt: skip


test_a_planted_fault_is_caught, test_every_property_catches_a_fault = fault_tests(
    {nanogpt: (PROPERTIES, FAULTS)}, B=2, T=4, n_head=3, hs=2
)
