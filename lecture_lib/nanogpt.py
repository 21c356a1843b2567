"""nanoGPT.

From notebooks/13_nanogpt.ipynb.
Video 1:46:22.
Written by `lecture promote`: edit the notebook, not this file.

Vaswani et al. 2017: https://arxiv.org/abs/1706.03762
Radford et al. 2019: https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from lecture_lib.checkpoint import checkpoint_kind
from lecture_lib.generation import AutoregressiveModel, check_prompt, next_token
from lecture_lib.gpt import GPT, GPTConfig, initialise
from lecture_lib.kv_cache import KVCache, check_padding, mask_after, positions_after
from lecture_lib.layer_norm import Block
from lecture_lib.multi_head import MultiHeadAttention
from lecture_lib.residual import ProjectedAttention, WideFeedForward

__all__ = [
    "ACTIVATIONS",
    "CausalSelfAttention",
    "NanoBlock",
    "NanoBody",
    "NanoGPT",
    "NanoGPTConfig",
    "copy_attention",
    "from_gpt",
    "qkv_layers",
    "split_heads",
]

ACTIVATIONS = {
    "gelu": nn.GELU,  # nanoGPT's: exact
    "gelu_tanh": partial(nn.GELU, approximate="tanh"),  # GPT-2's: by an approximation
    "relu": nn.ReLU,  # the lecture's
}


@dataclass(frozen=True)
class NanoGPTConfig(GPTConfig):
    """What a nanoGPT is made of: chapter 11's six numbers, and four choices (video 1:46:22)."""

    # share of attention weights zeroed while training; 0 is faster
    attention_dropout: float = 0.0
    bias: bool = True  # in linear layers and norms
    # one matrix embeds tokens and makes logits; False: the lecture's lm_head
    tied: bool = True
    activation: str = "gelu"  # of the feed-forward, a key of ACTIVATIONS

    def __post_init__(self):
        super().__post_init__()
        self.check_share("attention_dropout")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation is {self.activation!r}; expected one of: {', '.join(ACTIVATIONS)}")


def split_heads(qkv: torch.Tensor, n_head: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(B, T, 3 * n_embd) -> queries, keys and values, each (B, n_head, T, hs): heads as a batch dimension."""
    B, T, width = qkv.shape
    by_head = qkv.view(B, T, 3, n_head, width // (3 * n_head))  # (B, T, 3C) -> (B, T, 3, n_head, hs)
    return by_head.permute(2, 0, 3, 1, 4).unbind(0)  # -> (3, B, n_head, T, hs)


class CausalSelfAttention(nn.Module):
    """All heads of causal self-attention in one product (video 1:46:22; Vaswani et al. 2017, 3.2.2)."""

    def __init__(self, config: NanoGPTConfig):
        super().__init__()
        self.n_head, self.dropout = config.n_head, config.attention_dropout
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)

    def heads(
        self, x: torch.Tensor, cache: "KVCache | None" = None, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(B, T, n_embd) -> (B, T, n_embd): the outputs of all heads, side by side."""
        q, k, v = split_heads(self.qkv(x), self.n_head)  # (B, T, C) -> (B, n_head, T, hs) each
        if cache is not None:
            k, v = cache.extend(k, v)  # -> (B, n_head, T_k, hs): those of earlier tokens come first
        dropout = self.dropout if self.training else 0.0
        causal = mask is None and q.shape[2] > 1  # a single query is the latest token: nothing to hide
        out = F.scaled_dot_product_attention(q, k, v, mask, dropout, causal)  # (B, n_head, T, hs)
        return out.transpose(1, 2).flatten(2)  # -> (B, T, n_head, hs) -> (B, T, C)

    def forward(
        self, x: torch.Tensor, cache: "KVCache | None" = None, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(B, T, n_embd) -> (B, T, n_embd).

        `cache` holds keys and values of earlier tokens, and gets those of the T new ones: T_k in all. `mask`,
        True where a query may attend to a key, broadcasts to (B, n_head, T, T_k); it must be given if
        1 < T < T_k. Without it, the T tokens don't see each other's future.
        """
        return self.proj(self.heads(x, cache, mask))  # (B, T, C) -> (B, T, C)


def qkv_layers(heads: MultiHeadAttention) -> list[nn.Linear]:
    """Chapter 07's layers in the order of the rows of `qkv`: queries, keys, values, each head by head."""
    return [getattr(head, name) for name in ("query", "key", "value") for head in heads.heads]


@torch.no_grad()
def copy_attention(source: ProjectedAttention, target: CausalSelfAttention) -> None:
    """Give `target` the weights of chapter 09's heads, which have no bias, and of their projection."""
    stacked = torch.cat([layer.weight for layer in qkv_layers(source)])  # 3 * n_head times (hs, C) -> (3C, C)
    target.qkv.weight.copy_(stacked)
    target.qkv.bias.zero_()
    target.proj.load_state_dict(source.proj.state_dict())


class NanoBlock(Block):
    """Chapter 10's block, around attention that may have a cache; dropout on what each part adds."""

    def __init__(self, config: NanoGPTConfig):
        attend = CausalSelfAttention(config)
        think = WideFeedForward(config.n_embd, ACTIVATIONS[config.activation], config.bias)
        super().__init__(config.n_embd, attend, think, config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: torch.Tensor, cache: KVCache | None = None, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(B, T, n_embd) -> (B, T, n_embd); `cache` and `mask` as for the attention."""
        x = x + self.dropout(self.sa(self.ln1(x), cache, mask))  # (B, T, C) + (B, T, C)
        return x + self.dropout(self.ffwd(self.ln2(x)))


class NanoBody(nn.Module):
    """Dropout on the embeddings, `n_layer` blocks, and the last norm."""

    def __init__(self, config: NanoGPTConfig):
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(NanoBlock(config) for _ in range(config.n_layer))
        self.ln = nn.LayerNorm(config.n_embd, bias=config.bias)

    def forward(
        self, x: torch.Tensor, caches: list[KVCache] | None = None, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(B, T, n_embd) -> (B, T, n_embd); `caches` has one for each block."""
        x = self.dropout(x)
        for block, cache in zip(self.blocks, caches or [None] * len(self.blocks), strict=True):
            x = block(x, cache, mask)
        return self.ln(x)


@checkpoint_kind("NanoGPT", NanoGPTConfig)
class NanoGPT(AutoregressiveModel):
    """nanoGPT's model: GPT-2's, with the lecture's as a choice (video 1:46:22; Radford et al. 2019).

    Starts with small weights, as nanoGPT does (`initialise`). Called with ids, and targets or not, as every
    model of the course.
    """

    def __init__(self, config: NanoGPTConfig):
        sizes = config.vocab_size, config.block_size, config.n_embd
        super().__init__(*sizes, make_body=lambda: NanoBody(config), head_bias=not config.tied)
        self.config = config
        if config.tied:
            self.lm_head.weight = self.token_embedding_table.weight
        initialise(self)

    def embed(self, idx: torch.Tensor, at: torch.Tensor | None = None) -> torch.Tensor:
        """Token plus position embeddings, (B, T) -> (B, T, n_embd); at `at` (B, T), or at 0 to T - 1."""
        if at is None:
            return super().embed(idx)
        return self.token_embedding_table(idx) + self.position_embedding_table(at)  # (B, T, C) + (B, T, C)

    def new_caches(self, B: int) -> list[KVCache]:
        """An empty cache for each block, for B texts side by side."""
        sizes, weight = self.config, self.lm_head.weight
        hs = sizes.n_embd // sizes.n_head
        return [KVCache(B, sizes.n_head, self.block_size, hs, weight) for _ in range(sizes.n_layer)]

    def read(self, idx: torch.Tensor, caches: list[KVCache], pad: torch.Tensor | None = None) -> torch.Tensor:
        """Read ids (B, T) that follow what `caches` hold: logits after the last, (B, T) -> (B, vocab_size).

        `pad` (B,): how many columns on the left of each row, the cached ones included, are padding.
        """
        (B, T), seen = idx.shape, caches[0].length
        at = mask = None  # without a past or padding: as in training
        if seen or pad is not None:
            padding = idx.new_zeros(B) if pad is None else pad
            at = positions_after(seen, T, padding)  # (B, T)
            if T > 1 or pad is not None:
                mask = mask_after(seen, T, padding)  # (B, 1, T, seen + T)
        x = self.body(self.embed(idx, at), caches, mask)  # (B, T) -> (B, T, C)
        return self.lm_head(x[:, -1])  # (B, C) -> (B, vocab_size)

    @torch.no_grad()
    def stream(
        self,
        idx: torch.Tensor,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        keep: int | None = None,
        pad: torch.Tensor | None = None,
    ) -> Iterator[torch.Tensor]:
        """Draw the next token of every row of idx (B, T), then the next: (B, 1) each, int64, as it is drawn.

        Under the same seed it's chapter 06's text, token for token, but each token is read once. When the
        text outgrows block_size, the window moves: it starts again with the last `keep` tokens. All
        block_size of them, the default, is chapter 06's way; it means reading the window again at each step,
        since all positions change. With fewer, the tokens up to the next move are read once, but see a
        shorter context. `pad` (B,) tells how many ids on the left of each row are padding (`left_padded`).
        Raises chapter 06's errors, and ValueError for keep or pad out of range.
        """
        check_prompt(idx, max_new_tokens)
        if pad is not None:
            check_padding(pad, *idx.shape)
        keep = self.block_size if keep is None else keep
        if not 1 <= keep <= self.block_size:
            raise ValueError(f"keep is {keep}; expected 1 to block_size = {self.block_size}, or None")
        caches, start = self.new_caches(len(idx)), 0  # start: the window's first column
        for _ in range(max_new_tokens):
            if idx.shape[1] - start > self.block_size:
                start = idx.shape[1] - keep
                for cache in caches:
                    cache.clear()
            unread = idx[:, start + caches[0].length :]  # (B, 1), or more at the start of a window
            padding = None if pad is None else (pad - start).clamp(min=0)  # (B,)
            logits = self.read(unread, caches, padding)  # -> (B, vocab_size)
            idx_next = next_token(logits, temperature, top_k, top_p)  # (B, vocab_size) -> (B, 1)
            idx = torch.cat([idx, idx_next], dim=1)  # (B, T), (B, 1) -> (B, T + 1)
            yield idx_next

    def generate(self, idx: torch.Tensor, max_new_tokens: int, **choices) -> torch.Tensor:
        """Append to every row what `stream` draws, given its choices: (B, T) -> (B, T + max_new_tokens)."""
        return torch.cat([idx, *self.stream(idx, max_new_tokens, **choices)], dim=1)


@torch.no_grad()
def from_gpt(gpt: GPT) -> NanoGPT:
    """Chapter 11's model with all its heads in one product: a copy, in the same mode, on the same device."""
    drop = gpt.config.dropout
    config = NanoGPTConfig(**asdict(gpt.config), attention_dropout=drop, tied=False, activation="relu")
    model = NanoGPT(config).to(gpt.lm_head.weight)
    *blocks, ln = gpt.body
    pairs = [(model.body.ln, ln)]
    for ours, theirs in zip(model.body.blocks, blocks, strict=True):
        (attention, _), (feed_forward, _) = theirs.sa, theirs.ffwd  # each with a dropout after it
        copy_attention(attention, ours.sa)
        pairs += [(ours.ln1, theirs.ln1), (ours.ln2, theirs.ln2), (ours.ffwd, feed_forward)]
    for name in ("token_embedding_table", "position_embedding_table", "lm_head"):
        pairs.append((getattr(model, name), getattr(gpt, name)))
    for ours, theirs in pairs:
        ours.load_state_dict(theirs.state_dict())
    return model.train(gpt.training)
