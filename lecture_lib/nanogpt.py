"""nanoGPT.

Video 1:46:22.
Promoted from notebooks/13_nanogpt.ipynb by `lecture promote`: edit the notebook, not this file.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from lecture_lib.checkpoint import checkpoint_kind
from lecture_lib.generation import AutoregressiveModel, check_prompt, next_token
from lecture_lib.gpt import GPT, GPTConfig, initialise
from lecture_lib.kv_cache import KVCache, may_look, positions
from lecture_lib.layer_norm import Block
from lecture_lib.multi_head import MultiHeadAttention
from lecture_lib.residual import ProjectedAttention, WideFeedForward

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "CausalSelfAttention",
    "NanoBlock",
    "NanoBody",
    "NanoGPT",
    "NanoGPTConfig",
    "carry_heads",
    "from_gpt",
    "split_heads",
    "stacked_heads",
]

ACTIVATIONS = {
    "gelu": nn.GELU,  # nanoGPT's: exact
    "gelu_tanh": partial(nn.GELU, approximate="tanh"),  # GPT-2's: by an approximation
    "relu": nn.ReLU,  # the lecture's
}


@dataclass(frozen=True)
class NanoGPTConfig(GPTConfig):
    """What a nanoGPT is made of: chapter 11's six numbers, and four choices (video 1:46:22)."""

    attention_dropout: float = (
        0.0  # share of attention weights zeroed while training; 0 allows a faster kernel
    )
    bias: bool = True  # in linear layers and norms
    tied: bool = (
        True  # one matrix embeds tokens and makes logits, then without bias; False: the lecture's lm_head
    )
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
        self, x: torch.Tensor, past: Callable | None = None, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(B, T, n_embd) -> (B, T, n_embd): the outputs of all heads, one after the other."""
        q, k, v = split_heads(self.qkv(x), self.n_head)  # (B, T, C) -> (B, n_head, T, hs) each
        if past is not None:
            k, v = past(k, v)  # -> (B, n_head, T_k, hs): those of earlier tokens come first
        dropout = self.dropout if self.training else 0.0
        causal = mask is None and q.shape[2] > 1  # a single query is the latest token: nothing to hide
        out = F.scaled_dot_product_attention(q, k, v, mask, dropout, causal)  # (B, n_head, T, hs)
        return out.transpose(1, 2).flatten(2)  # -> (B, T, n_head, hs) -> (B, T, C)

    def forward(
        self, x: torch.Tensor, past: Callable | None = None, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(B, T, n_embd) -> (B, T, n_embd).

        `past` takes the new tokens' keys and values, (B, n_head, T, hs) each, and returns those of all so
        far, (B, n_head, T_k, hs) each. `mask`, True = may look, broadcasts to (B, n_head, T, T_k); it must be
        given if 1 < T < T_k. Without it, the T tokens don't see each other's future.
        """
        return self.proj(self.heads(x, past, mask))  # (B, T, C) -> (B, T, C)


def stacked_heads(heads: MultiHeadAttention, of: Callable = lambda weight: weight) -> torch.Tensor:
    """Chapter 07's matrices as one, (3 * n_embd, n_embd): queries, keys, values, each head by head.

    `of` chooses what is stacked of each matrix; by default, itself.
    """
    layers = [getattr(head, name) for name in ("query", "key", "value") for head in heads.heads]
    return torch.cat([of(layer.weight) for layer in layers])  # 3 * n_head times (hs, C) -> (3C, C)


@torch.no_grad()
def carry_heads(heads: ProjectedAttention, into: CausalSelfAttention) -> None:
    """Give `into` the weights of chapter 09's heads, without bias, and of their projection."""
    into.qkv.weight.copy_(stacked_heads(heads))
    into.qkv.bias.zero_()
    into.proj.load_state_dict(heads.proj.state_dict())


class MLP(WideFeedForward):
    """Chapter 09's feed-forward with the activation and the bias that the configuration says."""

    def __init__(self, config: NanoGPTConfig):
        super().__init__(config.n_embd)
        C, bias = config.n_embd, config.bias
        up, down = nn.Linear(C, 4 * C, bias=bias), nn.Linear(4 * C, C, bias=bias)
        self.net = nn.Sequential(up, ACTIVATIONS[config.activation](), down)


class NanoBlock(Block):
    """Chapter 10's block, around attention that may have a past; dropout on what each part adds."""

    def __init__(self, config: NanoGPTConfig):
        super().__init__(config.n_embd, CausalSelfAttention(config), MLP(config))
        self.ln1, self.ln2 = (nn.LayerNorm(config.n_embd, bias=config.bias) for _ in range(2))
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: torch.Tensor, past: Callable | None = None, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(B, T, n_embd) -> (B, T, n_embd); `past` and `mask` as for the attention."""
        x = x + self.dropout(self.sa(self.ln1(x), past, mask))  # (B, T, C) + (B, T, C)
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
        for i, block in enumerate(self.blocks):
            x = block(x, caches and caches[i].extend, mask)
        return self.ln(x)


@checkpoint_kind("NanoGPT", NanoGPTConfig)
class NanoGPT(AutoregressiveModel):
    """nanoGPT's model: GPT-2's, with the lecture's as a choice (video 1:46:22; Radford et al. 2019).

    Starts as GPT-2 does (`initialise`). Called with ids, and targets or not, as every model of the course.
    """

    def __init__(self, config: NanoGPTConfig):
        super().__init__(config.vocab_size, config.block_size, config.n_embd, lambda: NanoBody(config))
        self.config = config
        if config.tied:
            self.lm_head.weight, self.lm_head.bias = self.token_embedding_table.weight, None
        initialise(self)

    def embed(self, idx: torch.Tensor, at: torch.Tensor | None = None) -> torch.Tensor:
        """Token plus position embeddings, (B, T) -> (B, T, n_embd); at `at` (B, T), or 0 to T - 1."""
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

        `pad` (B,): how many columns at the left of each row, the cached ones included, hold no token.
        """
        (B, T), seen = idx.shape, caches[0].length
        at = mask = None  # without a past or filling: as in training
        if seen or pad is not None:
            none = idx.new_zeros(B) if pad is None else pad
            at = positions(seen, T, none)  # (B, T)
            if T > 1 or pad is not None:
                mask = may_look(seen, T, none)  # (B, 1, T, seen + T)
        x = self.body(self.embed(idx, at), caches, mask)  # (B, T) -> (B, T, C)
        return self.lm_head(x[:, -1])  # (B, C) -> (B, vocab_size)

    @torch.no_grad()
    def generate(
        self,
        idx: torch.Tensor,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        keep: int | None = None,
        pad: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Append sampled tokens to every row, each read once: (B, T) -> (B, T + max_new_tokens), int64.

        Under the same seed it's chapter 06's text, token for token. Where the text outgrows block_size, the
        window moves: it begins anew with the last `keep` tokens. All block_size of them, the default, is
        chapter 06's way; it means reading the window again at each step, since all positions change. With
        fewer, the tokens up to the next move are read once, but see a shorter context.
        `pad` (B,) tells how many ids at the left of each row are filling (`left_padded`).
        Raises chapter 06's errors, and ValueError for keep or pad out of range.
        """
        check_prompt(idx, max_new_tokens)
        keep = self.block_size if keep is None else keep
        if not 1 <= keep <= self.block_size:
            raise ValueError(
                f"keep is {keep}; expected 1 to block_size = {self.block_size}, or None for that"
            )
        B, T = idx.shape
        if pad is not None and (pad.shape != (B,) or not ((pad >= 0) & (pad < T)).all()):
            raise ValueError(
                f"pad is {pad.tolist()}; expected {B} numbers from 0 to {T - 1}, one for each row"
            )
        text = torch.cat([idx, idx.new_zeros(B, max_new_tokens, dtype=torch.int64)], dim=1)
        caches, start, read = self.new_caches(B), 0, 0  # the window's first token, the first one not yet read
        for end in range(T, T + max_new_tokens):
            if end - start > self.block_size:
                start = read = end - keep
                for cache in caches:
                    cache.clear()
            filling = None if pad is None else (pad - start).clamp(min=0)  # (B,)
            logits = self.read(text[:, read:end], caches, filling)  # (B, end - read) -> (B, vocab_size)
            text[:, end : end + 1] = next_token(logits, temperature, top_k, top_p)  # (B, 1)
            read = end
        return text


@torch.no_grad()
def from_gpt(gpt: GPT) -> NanoGPT:
    """Chapter 11's model with all its heads in one product: a copy, in the same mode, on the same device."""
    drop = gpt.config.dropout
    config = NanoGPTConfig(**asdict(gpt.config), attention_dropout=drop, tied=False, activation="relu")
    model = NanoGPT(config).to(gpt.lm_head.weight)
    *blocks, ln = gpt.body
    pairs = [(model.body.ln, ln)]
    for ours, theirs in zip(model.body.blocks, blocks, strict=True):
        carry_heads(theirs.sa[0], into=ours.sa)
        pairs += [(ours.ln1, theirs.ln1), (ours.ln2, theirs.ln2), (ours.ffwd, theirs.ffwd[0])]
    for name in ("token_embedding_table", "position_embedding_table", "lm_head"):
        pairs.append((getattr(model, name), getattr(gpt, name)))
    for ours, theirs in pairs:
        ours.load_state_dict(theirs.state_dict())
    return model.train(gpt.training)
