"""Encoder, decoder and both, chapter 12: what must hold for any sizes, and faults that would break it.

Each property is a function of an implementation: the module `encoder_decoder`, or a copy of it with one place
of its source changed. The module passes them all; a planted fault fails exactly those that the table names.
"""

import math
from types import ModuleType

import pytest
import torch
from faults import fault_tests
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from lecture_lib import encoder_decoder
from lecture_lib.encoder_decoder import CrossAttention, Embeddings, EncoderDecoder, TranslatorConfig
from lecture_lib.residual import ProjectedAttention
from lecture_lib.self_attention import causal_mask
from lecture_lib.sequences import PAD

DOUBLE = torch.float64
SRC_VOCAB, TGT_VOCAB = 9, 11


def close(actual: torch.Tensor, expected: torch.Tensor, atol: float = 1e-9) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


def draw(*shape: int, seed: int = 1337) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def ids(B: int, T: int, vocab: int, seed: int = 1) -> torch.Tensor:
    """Characters (B, T), the first row whole, each further one a token shorter, but never shorter than 1."""
    rows = torch.randint(3, vocab, (B, T), generator=torch.Generator().manual_seed(seed))
    for b in range(B):
        rows[b, max(1, T - b) :] = PAD
    return rows


def shaken(module: nn.Module) -> nn.Module:
    """In double precision, with random numbers in every parameter: no gain is 1, no bias 0, no two alike."""
    generator = torch.Generator().manual_seed(1337)
    for parameter in module.double().parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=DOUBLE) * 0.5
    for name, buffer in module.named_buffers():
        assert name.endswith("positions")
        buffer.data = buffer.double()
    return module


def make(library: ModuleType, T: int, S: int, n_head: int, hs: int, n_layer: int) -> nn.Module:
    block_size = max(S, T) + 3
    return shaken(
        library.EncoderDecoder(
            library.TranslatorConfig(SRC_VOCAB, TGT_VOCAB, block_size, n_head * hs, n_head, n_layer)
        )
    )


def changed_at(rows: torch.Tensor, t: int) -> torch.Tensor:
    """Another character at place t of each row."""
    changed = rows.clone()
    changed[:, t] = torch.where(rows[:, t] == 3, 4, 3)
    return changed


# ---------------------------------------------------------------- equal to others


def give_attention(theirs: nn.MultiheadAttention, ours: nn.Module) -> None:
    theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
    theirs.in_proj_bias.zero_()
    theirs.out_proj.load_state_dict(ours.proj.state_dict())


def give_layer(theirs: nn.Module, ours: nn.Module, cross: bool) -> None:
    pairs = [(theirs.norm1, ours.ln1), (theirs.linear1, ours.ffwd.net[0]), (theirs.linear2, ours.ffwd.net[2])]
    if cross:
        pairs += [(theirs.norm2, ours.ln3), (theirs.norm3, ours.ln2)]
        give_attention(theirs.multihead_attn, ours.ca)
    else:
        pairs += [(theirs.norm2, ours.ln2)]
    give_attention(theirs.self_attn, ours.sa)
    for their_part, our_part in pairs:
        their_part.load_state_dict(our_part.state_dict())


def torchs_transformer(model: nn.Module, n_embd: int, n_head: int, n_layer: int) -> nn.Transformer:
    """torch's machine with our weights."""
    how = {"dropout": 0.0, "norm_first": True, "batch_first": True}
    layer = nn.TransformerEncoderLayer(n_embd, n_head, 4 * n_embd, **how)
    encoder = nn.TransformerEncoder(layer, n_layer, nn.LayerNorm(n_embd), enable_nested_tensor=False)
    theirs = nn.Transformer(n_embd, n_head, n_layer, n_layer, 4 * n_embd, custom_encoder=encoder, **how)
    theirs.double()
    with torch.no_grad():
        for part in ("encoder", "decoder"):
            their_half, our_half = getattr(theirs, part), getattr(model, part)
            for layer, block in zip(their_half.layers, our_half.blocks, strict=True):
                give_layer(layer, block, cross=part == "decoder")
            their_half.norm.load_state_dict(our_half.norm.state_dict())
    return theirs


def table(embeddings: nn.Module, idx: torch.Tensor) -> torch.Tensor:
    """Token embeddings plus the paper's positions, computed here, number by number."""
    C = embeddings.tokens.embedding_dim
    turns = [[t / 10_000 ** ((c - c % 2) / C) for c in range(C)] for t in range(idx.shape[1])]
    rows = [[(math.cos if c % 2 else math.sin)(turn) for c, turn in enumerate(row)] for row in turns]
    return embeddings.tokens(idx) + torch.tensor(rows, dtype=DOUBLE)


def equals_torch(library, B, T, S, n_head, hs, n_layer):
    """nn.Transformer with our weights, on rows with padding at both sides."""
    model, src, idx = make(library, T, S, n_head, hs, n_layer), ids(B, S, SRC_VOCAB), ids(B, T, TGT_VOCAB)
    theirs = torchs_transformer(model, n_head * hs, n_head, n_layer)
    hidden = theirs(
        table(model.encoder.embed, src),
        table(model.decoder.embed, idx),
        tgt_mask=~causal_mask(T),
        src_key_padding_mask=src == PAD,
        memory_key_padding_mask=src == PAD,
    )
    close(model(src, idx), model.decoder.lm_head(hidden), atol=1e-6)  # the positions are float32's


def on_one_text_equals_projected_attention(library, B, T, S, n_head, hs, n_layer):
    """Chapter 09's causal attention, heads cut from the same matrices."""
    C = n_head * hs
    ours, theirs = shaken(library.CrossAttention(C, n_head)), ProjectedAttention(C, n_head, T)
    theirs.double().proj.load_state_dict(ours.proj.state_dict())
    for name in ("key", "query", "value"):
        for head, piece in zip(theirs.heads, getattr(ours, name).weight.chunk(n_head), strict=True):
            getattr(head, name).weight.data = piece
    x = draw(B, T, C)
    close(ours(x, x, causal_mask(T)), theirs(x))


def asks_in_one_text_and_listens_to_the_other(library, B, T, S, n_head, hs, n_layer):
    """A memory of one repeated vector is answered with that vector's value, whatever is asked."""
    ours, x = shaken(library.CrossAttention(n_head * hs, n_head)), draw(B, T, n_head * hs)
    vector = draw(B, 1, n_head * hs, seed=2)
    out, wei = ours.attend(x, vector.expand(-1, S, -1))
    assert wei.shape == (B, n_head, T, S)
    close(out, ours.proj(ours.value(vector)).expand(-1, T, -1))
    close(wei, torch.full_like(wei, 1 / S))


# ---------------------------------------------------------------- who hears whom


def decoder_is_causal(library, B, T, S, n_head, hs, n_layer):
    """Logits up to t stay, bit for bit, when later tokens change: with a memory and without."""
    model, src, idx = make(library, T, S, n_head, hs, n_layer), ids(B, S, SRC_VOCAB), ids(B, T, TGT_VOCAB)
    for logits in (lambda rows: model(src, rows), model.decoder):
        before = logits(idx)
        for t in range(1, T):
            assert torch.equal(logits(changed_at(idx, t))[:, :t], before[:, :t])


def encoder_hears_both_ways(library, B, T, S, n_head, hs, n_layer):
    """Each token of a source without padding moves every place of the memory."""
    model, src = make(library, T, S, n_head, hs, n_layer), ids(1, S, SRC_VOCAB)
    before = model.encoder(src)
    for s in range(S):
        assert (model.encoder(changed_at(src, s)) != before).any(dim=-1).all(), s


def every_target_hears_the_whole_source(library, B, T, S, n_head, hs, n_layer):
    """One block asks all of the memory at each place: cross-attention has no mask over time."""
    model = make(library, T, S, n_head, hs, n_layer)
    idx, memory = ids(1, T, TGT_VOCAB), draw(1, S, n_head * hs)
    mask = torch.ones(1, 1, 1, S, dtype=torch.bool)
    before = model.decoder(idx, memory, mask)
    for s in range(S):
        other = memory.clone()
        other[:, s] += draw(n_head * hs, seed=3)
        assert (model.decoder(idx, other, mask) != before).any(dim=-1).all(), s


def without_a_memory_it_is_a_language_model(library, B, T, S, n_head, hs, n_layer):
    """The blocks' other two parts, and nothing else."""
    model, idx = make(library, T, S, n_head, hs, n_layer), ids(B, T, TGT_VOCAB)
    decoder = model.decoder
    x = decoder.embed(idx)
    for block in decoder.blocks:
        normed = block.ln1(x)
        x = x + block.sa(normed, normed, causal_mask(T))
        x = x + block.ffwd(block.ln2(x))
    close(decoder(idx), decoder.lm_head(decoder.norm(x)))


def never_talks_across_the_batch(library, B, T, S, n_head, hs, n_layer):
    model, src, idx = make(library, T, S, n_head, hs, n_layer), ids(B, S, SRC_VOCAB), ids(B, T, TGT_VOCAB)
    for b in range(B):
        close(model(src[b : b + 1], idx[b : b + 1]), model(src, idx)[b : b + 1])


# ---------------------------------------------------------------- padding


def padding_of_the_source_changes_nothing(library, B, T, S, n_head, hs, n_layer):
    """More padding for all rows; and each row as it is without any."""
    model, src, idx = make(library, T, S, n_head, hs, n_layer), ids(B, S, SRC_VOCAB), ids(B, T, TGT_VOCAB)
    before = model(src, idx)
    close(model(F.pad(src, (0, 3), value=PAD), idx), before)
    close(model.encoder(F.pad(src, (0, 3), value=PAD))[:, :S], model.encoder(src))
    for b, row in enumerate(src):
        close(model(row[row != PAD][None], idx[b : b + 1]), before[b : b + 1])


def padding_of_the_target_changes_nothing(library, B, T, S, n_head, hs, n_layer):
    model, src, idx = make(library, T, S, n_head, hs, n_layer), ids(B, S, SRC_VOCAB), ids(B, T, TGT_VOCAB)
    before = model(src, idx)
    close(model(src, F.pad(idx, (0, 3), value=PAD))[:, :T], before)
    for b, row in enumerate(idx):
        real = row[row != PAD][None]
        close(model(src[b : b + 1], real), before[b : b + 1, : real.shape[1]])


def nothing_but_padding_gives_numbers(library, B, T, S, n_head, hs, n_layer):
    """In value and gradient; and the other rows of the batch don't notice."""
    model, src, idx = make(library, T, S, n_head, hs, n_layer), ids(B, S, SRC_VOCAB), ids(B, T, TGT_VOCAB)
    logits = model(torch.cat([src, torch.full((1, S), PAD)]), torch.cat([idx, torch.full((1, T), PAD)]))
    close(logits[:B], model(src, idx))
    assert logits.isfinite().all()
    for gradient in torch.autograd.grad(logits.square().sum(), list(model.parameters())):
        assert gradient.isfinite().all()


def loss_counts_real_targets_alone(library, B, T, S, n_head, hs, n_layer):
    logits, targets = draw(B, T, TGT_VOCAB), ids(B, T, TGT_VOCAB)
    each = [F.cross_entropy(logits[b, t], targets[b, t]) for b, t in (targets != PAD).nonzero().tolist()]
    close(library.translation_loss(logits, targets), torch.stack(each).mean())
    close(library.translation_loss(logits, torch.full_like(targets, PAD)), torch.zeros((), dtype=DOUBLE))


# ---------------------------------------------------------------- parameters


def has_parts_of_its_own(library, B, T, S, n_head, hs, n_layer):
    """No matrix and no norm is shared or left out."""
    C = n_head * hs
    attention, think, norm = 4 * C**2 + C, 8 * C**2 + 5 * C, 2 * C
    blocks = n_layer * (3 * attention + 2 * think + 5 * norm)
    rest = SRC_VOCAB * C + TGT_VOCAB * C + 2 * norm + C * TGT_VOCAB + TGT_VOCAB
    model = make(library, T, S, n_head, hs, n_layer)
    assert sum(p.numel() for p in model.parameters()) == blocks + rest


def every_parameter_gets_a_gradient(library, B, T, S, n_head, hs, n_layer):
    model = make(library, T, S, n_head, hs, n_layer)
    src, idx = ids(4, S + 2, SRC_VOCAB), ids(4, T + 2, TGT_VOCAB)
    (draw(4, T + 2, TGT_VOCAB) * model(src, idx)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


PROPERTIES = [
    equals_torch,
    on_one_text_equals_projected_attention,
    asks_in_one_text_and_listens_to_the_other,
    decoder_is_causal,
    encoder_hears_both_ways,
    every_target_hears_the_whole_source,
    without_a_memory_it_is_a_language_model,
    never_talks_across_the_batch,
    padding_of_the_source_changes_nothing,
    padding_of_the_target_changes_nothing,
    nothing_but_padding_gives_numbers,
    loss_counts_real_targets_alone,
    has_parts_of_its_own,
    every_parameter_gets_a_gradient,
]
SIZES = {"B": 3, "T": 4, "S": 3, "n_head": 2, "hs": 2, "n_layer": 2}

# ---------------------------------------------------------------- what is right passes


@pytest.mark.parametrize("holds", PROPERTIES, ids=lambda holds: holds.__name__)
def test_properties(holds):
    holds(encoder_decoder, **SIZES)


@settings(deadline=None, max_examples=8)
@given(
    B=st.integers(1, 3),
    T=st.integers(1, 5),
    S=st.integers(1, 5),
    n_head=st.integers(1, 3),
    hs=st.sampled_from([2, 4]),
    n_layer=st.integers(1, 2),
)
def test_properties_at_any_size(B, T, S, n_head, hs, n_layer):
    for holds in PROPERTIES:
        holds(encoder_decoder, B, T, S, n_head, hs, n_layer)


def test_positions_worked_out_by_hand():
    """Four channels: a hand that turns by 1 each step, and one that turns by 1/100."""
    expected = [[0, 1, 0, 1], [math.sin(1), math.cos(1), math.sin(0.01), math.cos(0.01)]]
    close(encoder_decoder.sinusoids(2, 4), torch.tensor(expected), atol=1e-6)


# ---------------------------------------------------------------- what is wrong is refused


@pytest.mark.parametrize(("n_embd", "n_head"), [(30, 4), (32, 0), (4, 8)])
def test_heads_that_cannot_be_cut(n_embd, n_head):
    message = f"n_embd is {n_embd}, n_head is {n_head}; expected n_head to divide n_embd"
    with pytest.raises(ValueError, match=message):
        CrossAttention(n_embd, n_head)


@pytest.mark.parametrize("shape", [(2, 9), (2, 0), (5,), (1, 2, 3)])
def test_ids_that_do_not_fit(shape):
    message = r"ids of shape \(.*\); expected \(B, T\) with T from 1 to block_size = 8"
    with pytest.raises(ValueError, match=message):
        Embeddings(5, 8, 4)(torch.zeros(shape, dtype=torch.long))


def test_a_target_for_each_source():
    model = EncoderDecoder(TranslatorConfig(SRC_VOCAB, TGT_VOCAB, 8, 4, 2, 1))
    with pytest.raises(ValueError, match="3 sources, 1 targets; expected a target for each source"):
        model(ids(3, 4, SRC_VOCAB), ids(1, 4, TGT_VOCAB))


# ---------------------------------------------------------------- planted faults are caught

(
    TORCH,
    PROJECTED,
    LISTENS,
    CAUSAL,
    BOTH_WAYS,
    WHOLE,
    ALONE,
    BATCH,
    SRC_PAD,
    TGT_PAD,
    NUMBERS,
    LOSS,
    OWN,
    LEARN,
) = PROPERTIES
ACROSS = "self.ca(self.ln3(x), memory, memory_mask)"
BACK = "self.sa(normed, normed, causal_mask(x.shape[1]).to(x.device))"
AROUND = "self.sa(normed, normed, mask)"
HEADS = "y.unflatten(-1, (self.n_head, -1)).transpose(1, 2)"
ALL = "torch.ones(1, 1, 1, src.shape[1], dtype=torch.bool)"

# the fault, its place in the source, what it becomes, and all properties that must notice
FAULTS = [
    ("source padding heard in the encoder", "return padding_mask(src)", f"return {ALL}", {TORCH, SRC_PAD}),
    ("source padding heard across", "self.encoder(src), padding_mask(src))", f"self.encoder(src), {ALL})",
     {TORCH, SRC_PAD}),
    ("first place of the source hidden", "mask[:, 0] = True", "pass", {NUMBERS}),
    ("a second place always visible", "mask[:, 0] = True", "mask[:, :2] = True", {TORCH, SRC_PAD}),
    ("padding visible, text hidden", "mask = idx != PAD", "mask = idx == PAD", {TORCH, BOTH_WAYS, SRC_PAD}),
    ("cross-attention masked causally", ACROSS,
     "self.ca(self.ln3(x), memory, memory_mask & torch.ones(x.shape[1], memory.shape[1]).bool().tril())",
     {TORCH, WHOLE}),
    ("decoder sees the future", BACK, "self.sa(normed, normed)", {TORCH, CAUSAL, ALONE, TGT_PAD}),
    ("decoder hears itself alone", BACK, "self.sa(normed, normed, torch.eye(x.shape[1]).bool())",
     {TORCH, ALONE, LEARN}),
    ("encoder masked causally", AROUND, "self.sa(normed, normed, mask & causal_mask(x.shape[1]))",
     {TORCH, BOTH_WAYS}),
    ("keys and values from the decoder", ACROSS, "self.ca(self.ln3(x), self.ln3(x))",
     {TORCH, CAUSAL, WHOLE, TGT_PAD, NUMBERS, LEARN}),
    ("keys and values from the decoder, causally",
     ACROSS, "self.ca(self.ln3(x), self.ln3(x), causal_mask(x.shape[1]))", {TORCH, WHOLE, NUMBERS, LEARN}),
    ("values from the text that asks", "self.value(memory)", "self.value(x)",
     {TORCH, LISTENS, CAUSAL, WHOLE, BATCH, SRC_PAD, TGT_PAD, NUMBERS, LEARN}),
    ("keys from the text that asks", "self.key(memory)", "self.key(x)",
     {TORCH, LISTENS, CAUSAL, WHOLE, BATCH, SRC_PAD, TGT_PAD, NUMBERS, LEARN}),
    ("keys and values swapped", "self.by_head(k), self.by_head(v)", "self.by_head(v), self.by_head(k)",
     {TORCH, PROJECTED, LISTENS}),
    ("mask not passed on", "self.by_head(v), mask)", "self.by_head(v), None)",
     {TORCH, PROJECTED, CAUSAL, SRC_PAD, TGT_PAD}),
    ("memory not asked", f"x = x + {ACROSS}", "pass", {TORCH, WHOLE, NUMBERS, LEARN}),
    ("what is heard replaces the pathway", f"x = x + {ACROSS}", f"x = {ACROSS}", {TORCH}),
    ("cross-attention without its norm", "self.ca(self.ln3(x)", "self.ca(x", {TORCH, NUMBERS, LEARN}),
    ("one attention for both", "self.ca = CrossAttention(n_embd, n_head)", "self.ca = self.sa", {OWN}),
    ("one norm for two", "self.ln3 = nn.LayerNorm(n_embd)", "self.ln3 = self.ln1", {OWN}),
    ("heads interleaved", HEADS, "y.unflatten(-1, (-1, self.n_head)).movedim(-1, 1)",
     {TORCH, PROJECTED, LISTENS}),
    ("heads cut across time", HEADS, "y.reshape(len(y), self.n_head, -1, y.shape[-1] // self.n_head)",
     {TORCH, PROJECTED, LISTENS, CAUSAL, SRC_PAD, TGT_PAD}),
    ("no projection", "self.proj(out.transpose(1, 2).flatten(2))", "out.transpose(1, 2).flatten(2)",
     {TORCH, PROJECTED, LISTENS, NUMBERS, LEARN}),
    ("no positions", "self.tokens(idx) + self.positions[: idx.shape[1]]", "self.tokens(idx)", {TORCH}),
    ("positions from 1", "self.positions[: idx.shape[1]]", "self.positions[1 : idx.shape[1] + 1]",
     {TORCH, TGT_PAD}),
    ("sines first, then cosines", "torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)",
     "torch.cat([angle.sin(), angle.cos()], dim=-1)", {TORCH}),
    ("memory without its norm", "return self.norm(x)", "return x", {TORCH, NUMBERS, LEARN}),
    ("logits without their norm", "self.lm_head(self.norm(x))", "self.lm_head(x)",
     {TORCH, ALONE, NUMBERS, LEARN}),
    ("texts of a batch mixed", "self.decoder(idx, self.encoder(src)",
     "self.decoder(idx, self.encoder(src).roll(1, 0)", {TORCH, BATCH, SRC_PAD, TGT_PAD, NUMBERS}),
    ("padding costs", "ignore_index=PAD", "ignore_index=-100", {LOSS}),
    ("padding counts", "(targets != PAD).sum().clamp(min=1)", "targets.numel()", {LOSS}),
    ("a batch of padding is not a number", ".sum().clamp(min=1)", ".sum()", {LOSS}),
]  # fmt: skip


test_a_planted_fault_is_caught, test_every_property_catches_a_fault = fault_tests(
    {encoder_decoder: (PROPERTIES, FAULTS)}, **SIZES
)
