"""nanoGPT's model, chapter 13: the same function as the models of chapters 07, 09 and 11."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from kit import DOUBLE, Suite, close, draw, draw_ids, refusals, seeded, suite_tests
from torch import nn
from torch.nn import functional as F

from lecture_lib import nanogpt
from lecture_lib.checkpoint import load_checkpoint, save_checkpoint
from lecture_lib.course.sampling import write_on
from lecture_lib.gpt import GPT, GPTConfig
from lecture_lib.nanogpt import NanoGPT, NanoGPTConfig, from_gpt
from lecture_lib.residual import ProjectedAttention
from lecture_lib.tokenization import CharTokenizer
from lecture_lib.training import sample_text

SIZES = {"vocab_size": 11, "block_size": 8, "n_embd": 12, "n_head": 3, "n_layer": 2}
TINY = NanoGPTConfig(**SIZES)
nano = Suite(nanogpt, B=2, T=4, n_head=3, hs=2)


def opinionated(model):
    """In double precision, its matrices wide enough that everything matters; norms, too."""
    for seed, parameter in enumerate(model.double().parameters()):
        parameter.data = 0.5 * draw(*parameter.shape, seed=seed)
    return model


def make(library, **choices):
    return opinionated(library.NanoGPT(replace(TINY, **choices)))


# ---------------------------------------------------------------- attention


@nano.holds
def equals_chapter_09(library, B, T, n_head, hs):
    """With its weights: outputs, before the projection too, and all gradients."""
    C, results = n_head * hs, []
    loop = seeded(ProjectedAttention, C, n_head, T).double()
    batched = library.CausalSelfAttention(NanoGPTConfig(block_size=T, n_embd=C, n_head=n_head)).double()
    library.copy_attention(loop, batched)
    for module, heads in ((batched, batched.heads), (loop, super(ProjectedAttention, loop).forward)):
        x = draw(B, T, C).requires_grad_()
        out = module(x)
        (out * torch.linspace(-1, 1, x.numel(), dtype=DOUBLE).view_as(x)).sum().backward()
        results.append((heads(x), out, x.grad, module.proj.weight.grad, module.proj.bias.grad))
    for ours, theirs in zip(*results, strict=True):
        close(ours, theirs)
    close(batched.qkv.weight.grad, torch.cat([layer.weight.grad for layer in library.qkv_layers(loop)]))


@nano.holds
def uses_the_fast_kernel(library):
    """Without attention dropout, in single precision, torch takes its tiled kernel; with it, it can't."""
    x = draw(2, 8, 12).float()
    for p, tiled in ((0.0, True), (0.5, False)):
        attention, names = library.CausalSelfAttention(replace(TINY, attention_dropout=p)), []
        node = attention.heads(x).grad_fn
        while node is not None:
            names.append(node.name())
            node = node.next_functions[0][0] if node.next_functions else None
        assert any("FlashAttention" in name for name in names) is tiled


# ---------------------------------------------------------------- the model


@nano.holds
def is_chapter_11s_model(library):
    """Logits, loss, and the loss's gradients of the embeddings are those of the GPT that it was made from."""
    gpt = opinionated(GPT(GPTConfig(**SIZES)))
    idx, results = draw_ids(2, 8), []
    for model in (library.from_gpt(gpt), gpt):
        logits, loss = model(idx, idx.flip(0))
        results.append((logits, loss, *torch.autograd.grad(loss, model.token_embedding_table.weight)))
    for ours, theirs in zip(*results, strict=True):
        close(ours, theirs)


@nano.holds
def ties_embedding_and_logits(library):
    """One matrix, counted, trained and kept as one; without a bias."""
    model, free = make(library), make(library, tied=False)
    assert model.lm_head.weight is model.token_embedding_table.weight and model.lm_head.bias is None
    assert free.lm_head.weight is not free.token_embedding_table.weight and free.lm_head.bias is not None


@nano.holds
def starts_without_opinions(library):
    model = library.NanoGPT(NanoGPTConfig(vocab_size=65, block_size=32, n_embd=64, n_head=4, n_layer=4))
    idx = draw_ids(8, 32, vocab_size=65)
    assert abs(model(idx, idx.roll(-1, dims=1))[1] - math.log(65)) < 0.05
    assert 0.019 < model.token_embedding_table.weight.std() < 0.021


@nano.holds
def bias_is_everywhere_or_nowhere(library):
    for bias in (True, False):
        names = [name for name, _ in make(library, bias=bias).named_parameters() if name.endswith("bias")]
        assert len(names) == (2 * 6 + 1 if bias else 0)  # two norms and four layers a block, the last norm


@nano.holds
def bends_as_it_is_told(library):
    x = draw(1, 4, 12)
    functions = {"gelu": F.gelu, "gelu_tanh": partial(F.gelu, approximate="tanh"), "relu": F.relu}
    for activation, bend in functions.items():
        ffwd = make(library, activation=activation).body.blocks[0].ffwd
        up, _, down = ffwd.net
        close(ffwd(x), down(bend(up(x))))


@nano.holds
def drops_where_it_is_told(library):
    """Attention weights by attention_dropout alone, embeddings and parts by dropout; nothing in eval mode."""
    idx, x = draw_ids(2, 8), draw(2, 8, 12)
    for how in ({"dropout": 0.5}, {"attention_dropout": 0.5}):
        model = make(library, **how)
        assert not torch.equal(model(idx)[0], model(idx)[0])
        close(model.eval()(idx)[0], make(library)(idx)[0])
    block = make(library, attention_dropout=0.5).body.blocks[0]
    assert not torch.equal(block.sa(x), block.sa(x)) and torch.equal(block.ffwd(x), block.ffwd(x))
    model, entering = make(library, dropout=0.5), []
    model.body.blocks[0].register_forward_pre_hook(lambda _, inputs: entering.append(inputs[0]))
    model(idx)
    assert (entering[0] == 0).any()


test_at_any_size = nano.at_any_size(B=range(1, 4), T=range(1, 7), n_head=range(1, 5), hs=range(1, 5))


def test_a_copy_is_in_the_same_mode_and_shares_no_weights():
    gpt = GPT(GPTConfig(**SIZES))
    assert from_gpt(gpt).training and not from_gpt(gpt.eval()).training
    before = {name: tensor.clone() for name, tensor in gpt.state_dict().items()}
    for parameter in from_gpt(gpt).parameters():
        nn.init.zeros_(parameter)
    assert all(torch.equal(gpt.state_dict()[name], tensor) for name, tensor in before.items())


def test_one_block_is_enough_to_read_by_its_cache():
    model, idx = make(nanogpt, n_layer=1), draw_ids(2, 8)
    caches = model.new_caches(2)
    for piece in (idx[:, :5], idx[:, 5:]):
        logits = model.read(piece, caches)
    close(logits, model(idx)[0][:, -1])


@pytest.mark.parametrize("model", [NanoGPT(TINY), GPT(GPTConfig(**SIZES))], ids=["nanoGPT", "GPT"])
def test_a_checkpoint_of_either_kind_comes_back_and_writes(model, tmp_path):
    """By its cache, and the same that it wrote before it was saved, by chapter 06's way for a GPT."""
    letters = CharTokenizer("\nabcdefghij")
    save_checkpoint(tmp_path / "model", model, letters, {"val": 1.5})
    loaded, _, _ = load_checkpoint(tmp_path / "model")
    assert type(loaded) is type(model) and loaded.config == model.config
    text = write_on("abc", tmp_path / "model", length=20, exact=True)
    assert text == sample_text(model, letters, 20, "abc")


test_what_is_refused = refusals(
    *(
        (f"{name} is {value!r}; expected {expected}", partial(replace, TINY, **{name: value}))
        for name, value, expected in [
            ("attention_dropout", 1.0, "a share from 0 up to, not including, 1"),
            ("attention_dropout", math.nan, "a share from 0 up to, not including, 1"),
            ("activation", "sigmoid", "one of: gelu, gelu_tanh, relu"),
        ]
    )
)

VIEW = "qkv.view(B, T, 3, n_head, width // (3 * n_head))"
SDPA = "F.scaled_dot_product_attention(q, k, v, mask, dropout, causal)"
ORDER = 'for name in ("query", "key", "value") for head in heads.heads'
DROP = "self.dropout if self.training else 0.0"
TIE = "self.lm_head.weight = self.token_embedding_table.weight"
nano.faults = [
    ("cut without moving the heads", "by_head.permute(2, 0, 3, 1, 4).unbind(0)",
     "by_head.permute(2, 0, 1, 3, 4).reshape(3, B, n_head, T, -1).unbind(0)", equals_chapter_09),
    ("heads interleaved", VIEW, "qkv.view(B, T, 3, width // (3 * n_head), n_head).transpose(3, 4)",
     (equals_chapter_09, uses_the_fast_kernel)),
    ("each head its own q, k, v in a row", VIEW,
     "qkv.view(B, T, n_head, 3, width // (3 * n_head)).transpose(2, 3)", equals_chapter_09),
    ("put together without moving back", "out.transpose(1, 2).flatten(2)", "out.reshape(x.shape)",
     equals_chapter_09),
    ("keys first in carrying", ORDER, ORDER.replace('"query", "key"', '"key", "query"'), equals_chapter_09),
    ("values first in carrying", ORDER, ORDER.replace('"query", "key", "value"', '"value", "key", "query"'),
     equals_chapter_09),
    ("carried row by row of heads", ORDER, 'for head in heads.heads for name in ("query", "key", "value")',
     equals_chapter_09),
    ("projection not carried", "target.proj.load_state_dict(source.proj.state_dict())", "",
     equals_chapter_09),
    ("keys without gradient", SDPA, SDPA.replace("q, k", "q, k.detach()"), equals_chapter_09),
    ("sees the future", SDPA, SDPA.replace("causal", "False"), equals_chapter_09),
    ("sees the future of a prompt", "q.shape[2] > 1", "q.shape[2] == 1", equals_chapter_09),
    ("scaled by n_embd", SDPA, SDPA.replace("causal)", "causal, scale=x.shape[-1] ** -0.5)"),
     equals_chapter_09),
    ("attention dropout always", SDPA, SDPA.replace("dropout", "0.1"),
     (drops_where_it_is_told, uses_the_fast_kernel)),
    ("attention dropout in eval mode too", DROP, "self.dropout",
     drops_where_it_is_told),
    ("attention dropout never", DROP, "0.0", drops_where_it_is_told),
    ("attention dropout is dropout", "config.n_head, config.attention_dropout",
     "config.n_head, config.dropout", drops_where_it_is_told),
    ("untied", "if config.tied:", "if False:", ties_embedding_and_logits),
    ("always tied", "if config.tied:", "if True:", ties_embedding_and_logits),
    ("tied by a copy", TIE, "self.lm_head.weight = nn.Parameter(self.token_embedding_table.weight.clone())",
     ties_embedding_and_logits),
    ("tied, and a bias", "head_bias=not config.tied", "head_bias=True", ties_embedding_and_logits),
    ("untied, and no bias", "head_bias=not config.tied", "head_bias=False", ties_embedding_and_logits),
    ("starts as torch does", "        initialise(self)\n", "", starts_without_opinions),
    ("always ReLU", "ACTIVATIONS[config.activation], ", "nn.ReLU, ", bends_as_it_is_told),
    ("exact GELU for GPT-2's", 'partial(nn.GELU, approximate="tanh")', "nn.GELU", bends_as_it_is_told),
    ("biases in the norms always", "attend, think, config.bias)", "attend, think)",
     bias_is_everywhere_or_nowhere),
    ("biases in the feed-forward always", "ACTIVATIONS[config.activation], config.bias",
     "ACTIVATIONS[config.activation]", bias_is_everywhere_or_nowhere),
    ("no norm at the end", "return self.ln(x)", "return x", is_chapter_11s_model),
    ("norms in the wrong place", "self.sa(self.ln1(x), cache", "self.sa(self.ln2(x), cache",
     is_chapter_11s_model),
    ("no residual around the feed-forward", "return x + self.dropout", "return self.dropout",
     is_chapter_11s_model),
    ("embeddings not dropped", "        x = self.dropout(x)\n", "", drops_where_it_is_told),
]  # fmt: skip
test_a_property_holds, test_a_planted_fault_is_caught = suite_tests(nano)
