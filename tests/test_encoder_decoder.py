"""Encoder, decoder and both: chapter 12, and its counterpart in PyTorch."""

import math

import torch
from kit import (
    DOUBLE,
    Suite,
    assert_all_learn,
    close,
    constructed_and_kept,
    count,
    draw,
    draw_ids,
    refusals,
    suite_tests,
)
from torch.nn import functional as F

from lecture_lib import encoder_decoder
from lecture_lib.course.counterparts import pytorch_transformer
from lecture_lib.encoder_decoder import Attention, Embeddings, EncoderDecoder, TranslatorConfig
from lecture_lib.self_attention import causal_mask
from lecture_lib.sequences import PAD

SRC_VOCAB, TGT_VOCAB = 9, 11

machine = Suite(encoder_decoder, B=3, T=4, S=3, n_head=2, hs=2, n_layer=2)


def ids(B, T, vocab):
    """Characters (B, T), the first row whole, each further one a token shorter, but never shorter than 1."""
    rows = 3 + draw_ids(B, T, vocab_size=vocab - 3)
    for b in range(B):
        rows[b, max(1, T - b) :] = PAD
    return rows


def shaken(module):
    """In double precision, with random numbers in every parameter: no gain is 1, no bias 0, no two alike."""
    for seed, parameter in enumerate(module.double().parameters()):
        parameter.data = 0.5 * draw(*parameter.shape, seed=seed)
    return module


def make(library, B, T, S, n_head, hs, n_layer):
    """A machine with sources (B, S) and targets (B, T) for it, padding in both."""
    config = library.TranslatorConfig(SRC_VOCAB, TGT_VOCAB, max(S, T) + 3, n_head * hs, n_head, n_layer)
    return shaken(library.EncoderDecoder(config)), ids(B, S, SRC_VOCAB), ids(B, T, TGT_VOCAB)


# ---------------------------------------------------------------- equal to PyTorch


def embedded(embeddings, idx):
    """Token embeddings plus the paper's positions, computed here, number by number."""
    C = embeddings.tokens.embedding_dim
    turns = [[t / 10_000 ** ((c - c % 2) / C) for c in range(C)] for t in range(idx.shape[1])]
    rows = [[(math.cos if c % 2 else math.sin)(turn) for c, turn in enumerate(row)] for row in turns]
    return embeddings.tokens(idx) + torch.tensor(rows, dtype=DOUBLE)


@machine.holds
def equals_torch(library, B, T, S, n_head, hs, n_layer):
    """nn.Transformer with our weights, on rows with padding in source and target."""
    model, src, idx = make(library, B, T, S, n_head, hs, n_layer)
    hidden = pytorch_transformer(model)(
        embedded(model.encoder.embed, src),
        embedded(model.decoder.embed, idx),
        tgt_mask=~causal_mask(T),
        src_key_padding_mask=src == PAD,
        memory_key_padding_mask=src == PAD,
    )
    close(model(src, idx), model.decoder.lm_head(hidden), atol=1e-6)  # our positions are float32's


@machine.holds
def asks_in_one_text_and_listens_to_the_other(library, B, T, n_head, hs):
    """A memory of one repeated vector is answered with that vector's value, whatever is asked."""
    ours, x = shaken(library.Attention(n_head * hs, n_head)), draw(B, T, n_head * hs)
    vector = draw(B, 1, n_head * hs, seed=2)
    out, wei = ours.attend(x, vector.expand(-1, T, -1))
    close(out, ours.proj(ours.value(vector)).expand(-1, T, -1))
    close(wei, torch.full((B, n_head, T, T), 1 / T, dtype=DOUBLE))


@machine.holds
def without_a_memory_it_is_a_language_model(library, B, T, S, n_head, hs, n_layer):
    """The blocks' other two parts, and nothing else."""
    model, _, idx = make(library, B, T, S, n_head, hs, n_layer)
    x = model.decoder.embed(idx)
    for block in model.decoder.blocks:
        normed = block.ln1(x)
        x = x + block.sa(normed, normed, causal_mask(T))
        x = x + block.ffwd(block.ln2(x))
    close(model.decoder(idx), model.decoder.lm_head(model.decoder.norm(x)))


# ---------------------------------------------------------------- padding


@machine.holds
def padding_of_the_source_changes_nothing(library, B, T, S, n_head, hs, n_layer):
    """More padding for all rows; and each row as it is without any."""
    model, src, idx = make(library, B, T, S, n_head, hs, n_layer)
    before, longer = model(src, idx), F.pad(src, (0, 3), value=PAD)
    close(model(longer, idx), before)
    close(model.encoder(longer)[:, :S], model.encoder(src))
    for b, row in enumerate(src):
        close(model(row[row != PAD][None], idx[b : b + 1]), before[b : b + 1])


@machine.holds
def nothing_but_padding_gives_numbers(library, B, T, S, n_head, hs, n_layer):
    """In value and gradient; and the other rows of the batch don't notice."""
    model, src, idx = make(library, B, T, S, n_head, hs, n_layer)
    logits = model(F.pad(src, (0, 0, 0, 1), value=PAD), F.pad(idx, (0, 0, 0, 1), value=PAD))
    close(logits[:B], model(src, idx))
    assert logits.isfinite().all()
    for gradient in torch.autograd.grad(logits.square().sum(), list(model.parameters())):
        assert gradient.isfinite().all()


@machine.holds
def loss_counts_real_targets_alone(library, B, T):
    logits, targets = draw(B, T, TGT_VOCAB), ids(B, T, TGT_VOCAB)
    each = [F.cross_entropy(logits[b, t], targets[b, t]) for b, t in (targets != PAD).nonzero().tolist()]
    close(library.translation_loss(logits, targets), torch.stack(each).mean())
    close(library.translation_loss(logits, torch.full_like(targets, PAD)), torch.zeros((), dtype=DOUBLE))


# ---------------------------------------------------------------- parameters


@machine.holds
def has_parts_of_its_own(library, B, T, S, n_head, hs, n_layer):
    """No matrix and no norm is shared or left out."""
    C = n_head * hs
    attention, think, norm = 4 * C**2 + C, 8 * C**2 + 5 * C, 2 * C
    blocks = n_layer * (3 * attention + 2 * think + 5 * norm)
    rest = SRC_VOCAB * C + TGT_VOCAB * C + 2 * norm + C * TGT_VOCAB + TGT_VOCAB
    assert count(make(library, B, T, S, n_head, hs, n_layer)[0]) == blocks + rest


@machine.holds
def builds_each_part_once(library, B, T, S, n_head, hs, n_layer):
    built, kept = constructed_and_kept(lambda: make(library, B, T, S, n_head, hs, n_layer)[0])
    assert built == kept


@machine.holds
def all_learn(library, T, S, n_head, hs, n_layer):
    model, src, idx = make(library, 4, T + 2, S + 2, n_head, hs, n_layer)
    assert_all_learn(model, (draw(4, T + 2, TGT_VOCAB) * model(src, idx)).sum())


test_at_any_size = machine.at_any_size(
    8, B=range(1, 4), T=range(1, 6), S=range(1, 6), n_head=range(1, 4), hs=[2, 4], n_layer=[1, 2]
)


test_what_is_refused = refusals(
    *(
        (f"n_embd is {C}, n_head is {n}; expected n_head to divide n_embd", Attention, C, n)
        for C, n in [(30, 4), (32, 0), (4, 8)]
    ),
    *(
        (f"ids of shape {shape}; expected (B, T) with T from 1 to block_size = 8", Embeddings(5, 8, 4), idx)
        for shape in [(2, 9), (2, 0), (5,), (1, 2, 3)]
        for idx in [torch.zeros(shape, dtype=torch.long)]
    ),
    ("n_embd is 5; expected an even number, as sines and cosines come in pairs", Embeddings, 5, 8, 5),
    (
        "3 sources, 1 targets; expected a target for each source",
        EncoderDecoder(TranslatorConfig(SRC_VOCAB, TGT_VOCAB, 8, 4, 2, 1)),
        ids(3, 4, SRC_VOCAB),
        ids(1, 4, TGT_VOCAB),
    ),
)

ACROSS = "self.ca(self.ln3(x), memory, memory_mask)"
BACK = "self.sa(normed, normed, causal_mask(x.shape[1]).to(x.device))"
AROUND = "self.sa(normed, normed, mask)"
HEADS = "y.unflatten(-1, (self.n_head, -1)).transpose(1, 2)"
ALL = "torch.ones(1, 1, 1, src.shape[1], dtype=torch.bool)"
machine.faults = [
    ("source padding heard in the encoder", "return padding_mask(src)", f"return {ALL}",
     padding_of_the_source_changes_nothing),
    ("source padding heard across", "self.encoder(src), padding_mask(src))", f"self.encoder(src), {ALL})",
     padding_of_the_source_changes_nothing),
    ("first place of the source hidden", "mask[:, 0] = True", "pass", nothing_but_padding_gives_numbers),
    ("a second place always visible", "mask[:, 0]", "mask[:, :2]", padding_of_the_source_changes_nothing),
    ("padding visible, text hidden", "mask = idx != PAD", "mask = idx == PAD", equals_torch),
    ("cross-attention masked causally", ACROSS,
     "self.ca(self.ln3(x), memory, memory_mask & torch.ones(x.shape[1], memory.shape[1]).bool().tril())",
     equals_torch),
    ("decoder sees the future", BACK, "self.sa(normed, normed)", equals_torch),
    ("decoder hears itself alone", BACK, "self.sa(normed, normed, torch.eye(x.shape[1]).bool())",
     without_a_memory_it_is_a_language_model),
    ("encoder masked causally", AROUND, "self.sa(normed, normed, mask & causal_mask(x.shape[1]))",
     equals_torch),
    ("keys and values from the decoder", ACROSS, "self.ca(self.ln3(x), self.ln3(x))", equals_torch),
    ("keys and values from the decoder, causally",
     ACROSS, "self.ca(self.ln3(x), self.ln3(x), causal_mask(x.shape[1]))", equals_torch),
    ("values from the text that asks", "self.value(memory)", "self.value(x)",
     asks_in_one_text_and_listens_to_the_other),
    ("keys from the text that asks", "self.key(memory)", "self.key(x)",
     asks_in_one_text_and_listens_to_the_other),
    ("keys and values swapped", "self.by_head(k), self.by_head(v)", "self.by_head(v), self.by_head(k)",
     asks_in_one_text_and_listens_to_the_other),
    ("mask not passed on", "self.by_head(v), mask)", "self.by_head(v), None)", equals_torch),
    ("memory not asked", f"x = x + {ACROSS}", "pass", equals_torch),
    ("what is heard replaces the pathway", f"x = x + {ACROSS}", f"x = {ACROSS}", equals_torch),
    ("cross-attention without its norm", "self.ca(self.ln3(x)", "self.ca(x", (equals_torch, all_learn)),
    ("one attention for both", "self.ca = Attention(n_embd, n_head)", "self.ca = self.sa",
     has_parts_of_its_own),
    ("one norm for two", "self.ln3 = nn.LayerNorm(n_embd)", "self.ln3 = self.ln1", has_parts_of_its_own),
    ("a part built and dropped", "self.ca = Attention(n_embd, n_head)",
     "self.ca = [Attention(n_embd, n_head) for _ in range(2)][1]", builds_each_part_once),
    ("heads interleaved", HEADS, "y.unflatten(-1, (-1, self.n_head)).movedim(-1, 1)", equals_torch),
    ("heads cut across time", HEADS, "y.reshape(len(y), self.n_head, -1, y.shape[-1] // self.n_head)",
     equals_torch),
    ("no projection", "self.proj(out.transpose(1, 2).flatten(2))", "out.transpose(1, 2).flatten(2)",
     equals_torch),
    ("no positions", " + self.positions[: idx.shape[1]]", "", equals_torch),
    ("positions from 1", "self.positions[: idx.shape[1]]", "self.positions[1 : idx.shape[1] + 1]",
     equals_torch),
    ("sines first, then cosines", "torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)",
     "torch.cat([angle.sin(), angle.cos()], dim=-1)", equals_torch),
    ("memory without its norm", "return self.norm(x)", "return x", equals_torch),
    ("logits without their norm", "self.lm_head(self.norm(x))", "self.lm_head(x)", equals_torch),
    ("texts of a batch mixed", "self.decoder(idx, self.encoder(src)",
     "self.decoder(idx, self.encoder(src).roll(1, 0)", equals_torch),
    ("padding costs", "ignore_index=PAD", "ignore_index=-100", loss_counts_real_targets_alone),
    ("padding counts", "(targets != PAD).sum().clamp(min=1)", "targets.numel()",
     loss_counts_real_targets_alone),
    ("a batch of padding is not a number", ".sum().clamp(min=1)", ".sum()", loss_counts_real_targets_alone),
]  # fmt: skip
test_a_property_holds, test_a_planted_fault_is_caught = suite_tests(machine)
