"""Checks of the exercises of 13_nanogpt."""

from collections.abc import Callable
from dataclasses import replace

import torch

from lecture_lib.kv_cache import KVCache, mask_after
from lecture_lib.nanogpt import CausalSelfAttention, NanoGPT, NanoGPTConfig
from lecture_lib.self_attention import causal_mask

from .asking import Wrong, ask, expect, number, several, subclass
from .checking import exercise

CONFIG = NanoGPTConfig(vocab_size=11, block_size=8, n_embd=16, n_head=4, n_layer=2)

# ---------------------------------------------------------------- 13.1


@exercise("13.1", Callable, "a function of channel, C and n_head that gives three numbers")
def place_of_channel(answer: Callable) -> str:
    for C, n_head in ((8, 2), (16, 4), (6, 1)):
        hs, channels = C // n_head, torch.arange(3 * C)
        part, within = channels // C, channels % C
        places = torch.stack([three_numbers(ask(answer, c, C, n_head), c) for c in range(3 * C)])
        expect(
            places,
            torch.stack([part, within // hs, within % hs], dim=1),
            f"For C={C}, n_head={n_head}, a row (part, head, number) for each channel",
            {
                "You go head by head, each with its query, key and value; all queries come first.": torch.stack(
                    [channels // hs % 3, channels // (3 * hs), channels % hs], dim=1
                ),
                "Channels aren't dealt to the heads in turn: head 0 has the first hs of them.": torch.stack(
                    [part, within % n_head, within // n_head], dim=1
                ),
                "The heads are counted on from queries to keys; each part has its own head 0.": torch.stack(
                    [part, channels // hs, channels % hs], dim=1
                ),
                "The order is (part, head, number); yours begins with the head.": torch.stack(
                    [within // hs, part, within % hs], dim=1
                ),
            },
        )
    return (
        "That is split_heads for one channel: a number with three digits, part, head and channel of the head. "
        "A view into (3, n_head, hs) reads the same digits, so it moves nothing."
    )


def three_numbers(place: object, channel: int) -> torch.Tensor:
    """A learner's place of one channel as a tensor (3,)."""
    several(place, 3, f"For channel {channel}: expected three numbers, (part, head, number), got {place!r}.")
    return torch.tensor([number(each, f"For channel {channel}") for each in place])


# ---------------------------------------------------------------- 13.2


@exercise("13.2", Callable, "a function that gives an untied NanoGPT for a tied one")
@torch.no_grad()
def untie(answer: Callable) -> str:
    for config in (CONFIG, replace(CONFIG, bias=False, activation="relu")):
        model = NanoGPT(config).eval()
        before, idx = {name: t.clone() for name, t in model.state_dict().items()}, torch.randint(11, (2, 8))
        logits, _ = model(idx)
        got = answer(model)
        if not isinstance(got, NanoGPT):
            raise Wrong(f"Expected a NanoGPT, got {type(got).__name__}.")
        if got is model:
            raise Wrong("You hand back the model that was given; make a new one, and leave the old one tied.")
        if got.config != replace(config, tied=False):
            raise Wrong(f"Only `tied` should change in the config; it is {got.config}.")
        embeds, makes = got.token_embedding_table.weight, got.lm_head.weight
        if embeds.data_ptr() == makes.data_ptr():
            raise Wrong("It's still one matrix: token_embedding_table and lm_head share their numbers.")
        if model.lm_head.weight.data_ptr() in {p.data_ptr() for p in got.parameters()}:
            raise Wrong("The new model shares numbers with the old one: training it would change both. Copy.")
        if not torch.equal(makes, before["lm_head.weight"]):
            raise Wrong("lm_head starts with other numbers than the old one had, so the logits are others.")
        expect(got(idx)[0], logits, "The logits of random ids (2, 8)", atol=1e-4)
        if any(not torch.equal(t, before[name]) for name, t in model.state_dict().items()):
            raise Wrong("The old model has changed; it should stay as it was.")
    return (
        "The same function, from V × C + V more numbers: the function doesn't show that a matrix is shared, "
        "training does. From here on the two matrices go their own ways."
    )


# ---------------------------------------------------------------- 13.3


@exercise("13.3", Callable, "a function of qkv, n_head and n_kv_head that gives queries, keys and values")
def split_groups(answer: Callable) -> str:
    for n_head, n_kv_head in ((4, 2), (6, 1), (3, 3)):
        B, T, hs = 2, 5, 4
        qkv = torch.randn(B, T, (n_head + 2 * n_kv_head) * hs)
        widths = [n_head * hs, n_kv_head * hs, n_kv_head * hs]
        parts = dict(zip(("queries", "keys", "values"), qkv.split(widths, dim=-1), strict=True))
        given = ask(answer, qkv, n_head, n_kv_head)
        several(given, 3, "Expected three tensors: queries, keys, values.")
        for (name, part), got in zip(parts.items(), given, strict=True):
            heads = n_head if name == "queries" else n_kv_head
            shape = tuple(getattr(got, "shape", ()))
            if shape == (B, T, heads, hs) and heads != T:
                raise Wrong(f"The {name} have shape {shape}; the heads come before time: transpose them.")
            if shape == (B, n_head, T, hs) and heads < n_head:
                raise Wrong(f"There are {n_head} heads of {name}; expected n_kv_head = {n_kv_head} of them.")
            other = parts["values" if name == "keys" else "keys"]
            expect(
                got,
                by_head(part, hs),
                f"The {name} for n_head={n_head}, n_kv_head={n_kv_head}",
                {
                    "The shape is right, the numbers aren't: a view straight into it mixes time and heads.": (
                        part.reshape(B, heads, T, hs)
                    ),
                    "Keys and values are exchanged.": by_head(other, hs),
                    "Channels are dealt to the heads in turn; a head has hs neighbours.": (
                        part.view(B, T, hs, heads).permute(0, 3, 1, 2)
                    ),
                },
            )
    return "With as many key heads as query heads it's split_heads; with one, all queries meet the same keys."


def by_head(part: torch.Tensor, hs: int) -> torch.Tensor:
    """(B, T, heads * hs) -> (B, heads, T, hs)."""
    return part.unflatten(-1, (-1, hs)).transpose(1, 2)


# ---------------------------------------------------------------- 13.4


@exercise("13.4", type, "a subclass of CausalSelfAttention that is made from a config and n_kv_head")
@torch.no_grad()
def grouped_attention(answer: type) -> str:
    answer = subclass(answer, CausalSelfAttention)
    x, hs = torch.randn(2, 7, CONFIG.n_embd), CONFIG.n_embd // CONFIG.n_head  # (B, T, C)
    for n_kv_head in (4, 2, 1):
        own = answer(CONFIG, n_kv_head).eval()
        rows = (CONFIG.n_head + 2 * n_kv_head) * hs
        if own.qkv.weight.shape != (rows, CONFIG.n_embd):
            raise Wrong(
                f"For n_embd=16, n_head=4, n_kv_head={n_kv_head}, qkv makes {len(own.qkv.weight)} channels; "
                f"expected (4 + 2 * {n_kv_head}) * 4 = {rows}: keys and values are what becomes fewer."
            )
        plain = with_all_heads(own, n_kv_head, neighbours)
        everywhere = torch.ones(7, 7, dtype=torch.bool)
        expect(
            ask(own, x),
            plain(x),
            f"For random x (2, 7, 16), n_head=4, n_kv_head={n_kv_head}, compared with CausalSelfAttention",
            {
                "The wrong heads share: neighbours should, 0 with 1, 2 with 3; yours are dealt in turn.": (
                    with_all_heads(own, n_kv_head, in_turn)(x)
                ),
                "The future is visible: without a mask, attention is causal.": plain(x, mask=everywhere),
                "Each token attends to itself alone.": plain(x, mask=torch.eye(7).bool()),
            },
        )
        reads_in_pieces(own, plain, x, n_kv_head)
    return (
        "With n_kv_head = n_head it's the chapter's attention; with fewer, it equals one whose heads have the "
        "same keys and values in groups. The cache holds each of them once, and that's why large models do it."
    )


def reads_in_pieces(own: CausalSelfAttention, plain: CausalSelfAttention, x: torch.Tensor, n: int) -> None:
    """Wrong unless 4 tokens, then 2, then 1, read with a cache of `n` heads, give what all 7 give at once."""
    cache, what = KVCache(2, n, 7, x.shape[-1] // CONFIG.n_head, like=x), f"With a cache of {n} heads"
    pieces, mask = [], mask_after(4, 2, torch.zeros(2, dtype=torch.long))
    for piece, its_mask in zip(x.split([4, 2, 1], dim=1), (None, mask, None), strict=True):
        try:
            pieces.append(own(piece, cache, its_mask))
        except ValueError as error:
            later = "Keys and values go into the cache first, and are repeated after that."
            raise Wrong(f"{what}, as for n_kv_head={n}: {error}. {later}") from None
        if cache.length == 0:
            raise Wrong(f"{what}: nothing is in it after 4 tokens; extend it by the keys and values.")
    too_much, too_little = causal_mask(7), causal_mask(7)
    too_much[4, 5], too_little[4, 1:], too_little[5, 2:] = True, False, False
    expect(
        torch.cat(pieces, dim=1),
        plain(x),
        f"{what}: 4 tokens, then 2, then 1, compared with all 7 at once",
        {
            "Two tokens that follow a cache come with a mask; as it is, the first of them sees the second.": (
                plain(x, mask=too_much)
            ),
            "After a cache is_causal counts from the first key, and hides most of the past: use the mask.": (
                plain(x, mask=too_little)
            ),
        },
    )


def with_all_heads(own: CausalSelfAttention, n_kv_head: int, share: Callable) -> CausalSelfAttention:
    """Chapter 13's attention, each of whose heads has the keys and values that it shares in `own`."""
    plain, C = CausalSelfAttention(CONFIG).eval(), CONFIG.n_embd
    width = n_kv_head * C // CONFIG.n_head
    for name, parameter in plain.qkv.named_parameters():
        q, k, v = getattr(own.qkv, name).split([C, width, width])
        k, v = (share(t.unflatten(0, (n_kv_head, -1)), CONFIG.n_head // n_kv_head) for t in (k, v))
        parameter.copy_(torch.cat([q, k.flatten(0, 1), v.flatten(0, 1)]))
    plain.proj.load_state_dict(own.proj.state_dict())
    return plain


def neighbours(heads: torch.Tensor, times: int) -> torch.Tensor:
    """Each head several times in a row: 0 0 1 1."""
    return heads.repeat_interleave(times, dim=0)


def in_turn(heads: torch.Tensor, times: int) -> torch.Tensor:
    """All heads several times: 0 1 0 1."""
    return torch.cat([heads] * times)
