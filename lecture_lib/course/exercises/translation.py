"""Checks of the exercises of 12b_translation."""

from collections.abc import Callable

import torch
from torch import nn

from lecture_lib.encoder_decoder import EncoderDecoder, TranslatorConfig
from lecture_lib.self_attention import causal_mask
from lecture_lib.sequences import END, PAD, START

from .asking import Wrong, ask, expect, truth
from .checking import exercise

CONFIG = TranslatorConfig(src_vocab_size=13, tgt_vocab_size=9, block_size=16, n_embd=16, n_head=2, n_layer=1)

# ---------------------------------------------------------------- 12b.1


@exercise("12b.1", Callable, "a function of S and T that gives a boolean mask")
def prefix_mask(answer: Callable) -> str:
    for S, T in ((3, 4), (1, 5), (6, 2)):
        N = S + T
        past, source = causal_mask(N), torch.arange(N) < S  # (N, N), (N,)
        mask = ask(answer, S, T)
        if isinstance(mask, torch.Tensor) and mask.dtype != torch.bool:
            raise Wrong(
                f"The mask has dtype {mask.dtype}; expected torch.bool, True where a token may attend."
            )
        expect(
            mask,
            past | source,
            f"The mask for S={S}, T={T}, a row for each token",
            {
                "This is the plain causal mask: a source token sees only its own past.": past,
                "Everything is visible to all: the target sees its own future.": torch.ones(N, N).bool(),
                "The source sees the target; only the columns of the source are open to all.": (
                    past | source[:, None]
                ),
                "The mask is transposed: a row stands for the token that asks.": (past | source).T,
                "The target doesn't see the source: nothing could be translated.": (past | source)
                & (source == source[:, None]),
                "One token too many is open to all: the first of the target.": past | (torch.arange(N) <= S),
                "Your mask hides what it should show: True means *may attend to*.": ~(past | source),
            },
        )
    return (
        "One model, both ways of reading: an encoder for the first S tokens, a decoder for the rest, in the same "
        "weights. Such a model is called a prefix language model."
    )


# ---------------------------------------------------------------- 12b.2


@exercise(
    "12b.2", Callable, "a function of what beam_search returns, and alpha, that gives it in another order"
)
def length_normalised(answer: Callable) -> str:
    lengths = torch.arange(1, 15)  # of 14 texts, <end> included
    scores = -(1.5 + 0.3 * torch.rand(14)) * ((5 + lengths) / 6) ** 0.65  # log probabilities
    texts = [[START, *[3] * (n - 1), END, *[PAD] * (14 - n)] for n in lengths.tolist()]
    found = [(texts[i], scores[i].item()) for i in scores.argsort(descending=True).tolist()]

    def order(normalised: torch.Tensor) -> list[int]:
        """The lengths of the texts, best first."""
        return lengths[normalised.argsort(descending=True, stable=True)].tolist()

    for alpha in (0.65, 1.0, 0.0):
        given = ask(answer, found, alpha)
        if not isinstance(given, list) or sorted(map(str, given)) != sorted(map(str, found)):
            raise Wrong("Expected a list of the same pairs, ids and log probability, in another order.")
        got = [ids.index(END) for ids, _ in given]
        right = order(scores / ((5 + lengths) / 6) ** alpha)
        mistakes = {
            "The worst comes first.": right[::-1],
            "The length makes no difference yet. Is padding counted, so that all have the same?": order(
                scores
            ),
            "Divide by the power of the length; you multiply, and favour short texts even more.": order(
                scores * ((5 + lengths) / 6) ** alpha
            ),
            "You divide by a power of the length itself; the formula has ((5 + length) / 6) ** alpha.": order(
                scores / lengths**alpha
            ),
            "You count <start>, which is given, not written.": order(scores / ((6 + lengths) / 6) ** alpha),
            "<end> is a token that is written, too: count it.": order(scores / ((4 + lengths) / 6) ** alpha),
        }
        if got != right:
            said = [sentence for sentence, wrong in mistakes.items() if got == wrong]
            raise Wrong(
                f"For alpha={alpha}, expected texts of lengths {right}, got {got}. {' '.join(said[:1])}"
            )
    return (
        "With alpha=0 the sums decide, which favours short texts; the larger alpha, the longer the winner. Nothing "
        "in the model says which is right: alpha is tuned on translations whose quality is known."
    )


# ---------------------------------------------------------------- 12b.3


class Peeking(nn.Module):
    """An honest translator, but for what `peek` adds to the logits of id 0, of ids (B, T): (B, T) numbers."""

    def __init__(self, peek: Callable[[torch.Tensor], torch.Tensor]):
        super().__init__()
        self.honest, self.peek, self.config = EncoderDecoder(CONFIG), peek, CONFIG

    def forward(self, src: torch.Tensor, idx: torch.Tensor) -> torch.Tensor:
        added = self.peek(idx)[..., None]  # (B, T, 1); to all logits, it would be lost in a softmax
        return self.honest(src, idx) + nn.functional.pad(
            added, (0, CONFIG.tgt_vocab_size - 1)
        )  # (B, T, vocab)


def next_id(idx: torch.Tensor) -> torch.Tensor:
    """The id after each, 0 after the last: (B, T) -> (B, T)."""
    return nn.functional.pad(idx[:, 1:], (0, 1)).float()


def first_sees_last(idx: torch.Tensor) -> torch.Tensor:
    """The last id, at the first place only."""
    return idx[:, -1:].float() * (torch.arange(idx.shape[1]) == 0)


def last_but_one_sees_last(idx: torch.Tensor) -> torch.Tensor:
    """The last id, at the place before it only."""
    return idx[:, -1:].float() * (torch.arange(idx.shape[1]) == idx.shape[1] - 2)


def in_one_row(idx: torch.Tensor) -> torch.Tensor:
    """The next id, in the last row of the batch only."""
    return next_id(idx) * (torch.arange(len(idx)) == len(idx) - 1)[:, None]


def from_the_middle(idx: torch.Tensor) -> torch.Tensor:
    """At each place the id of the middle, if that is yet to come."""
    middle = idx.shape[1] // 2
    return idx[:, middle, None].float() * (torch.arange(idx.shape[1]) < middle)


@exercise("12b.3", Callable, "a function of model, src and idx that gives True or False")
@torch.no_grad()
def leak_detector(answer: Callable) -> str:
    src, idx = torch.randint(3, 13, (3, 6)), torch.randint(3, 9, (3, 7))  # (B, S), (B, T)
    idx[:, 0] = START
    honest = {
        "an honest model": lambda idx: torch.zeros(idx.shape),
        "an honest model, in which each prediction depends on the letter just read": lambda idx: idx.float(),
    }
    for name, peek in honest.items():
        if truth(ask(answer, Peeking(peek), src, idx)):
            raise Wrong(
                f"You find a leak in {name}. If the ids after t change, the predictions *up to* t must stay; "
                "those after t may change."
            )
    leaks = {
        "whose predictions all depend on the next letter": (next_id, "Change the ids after t for each t."),
        "whose first prediction depends on the last letter": (
            first_sees_last,
            "A letter may leak further back than by one place.",
        ),
        "whose last prediction but one depends on the last letter": (
            last_but_one_sees_last,
            "Compare the predictions at every place, not at the first ones alone.",
        ),
        "whose predictions leak in the last row of the batch alone": (in_one_row, "Look at every row."),
        "whose first half depends on the letter in the middle": (
            from_the_middle,
            "Every letter after t has to change, not the last or the next alone.",
        ),
    }
    for name, (peek, hint) in leaks.items():
        if not truth(ask(answer, Peeking(peek), src, idx)):
            raise Wrong(f"You overlook the leak in a model {name}. {hint}")
    return (
        "A test that knows nothing of masks, only of what may depend on what. It would have found a missing mask "
        "in the decoder, whose training loss looks wonderful."
    )


# ---------------------------------------------------------------- 12b.4


@exercise("12b.4", Callable, "a function of model, src and a list of texts that gives one of the texts")
@torch.no_grad()
def one_of_the_allowed(answer: Callable) -> str:
    six, sixty, four, five = [3, 4, END], [3, 4, 6, 8, END], [5, 7, 8, END], [5, 6, END]
    back = torch.arange(9) <= torch.arange(9)[:, None]  # (vocab, vocab): ids that aren't above the last one
    back[:, END] = False
    for allowed in ([six, sixty, four], [four, five, sixty], [six, four, five, sixty]):
        for _ in range(6):
            likes = torch.randn(9, 9) - 10 * back  # logits by the last token; each text comes to its end
            model, src = Writer(likes), torch.randint(3, 13, (1, 4))
            right = greedy(likes, allowed)
            got = ask(answer, model, src, allowed)
            got = got.tolist() if isinstance(got, torch.Tensor) else got
            if got == right:
                continue
            if not isinstance(got, list):
                raise Wrong(f"Expected a list of ids, got {type(got).__name__}.")
            what = f"For the allowed texts {allowed}, expected {right}, got {got}."
            if got == [START, *right]:
                raise Wrong(f"{what} Leave <start> out, as the allowed texts do.")
            if [*got, END] == right:
                raise Wrong(f"{what} The text has to end with <end>, as it does in the list.")
            if got == free(likes):
                raise Wrong(f"{what} That's what the model would write freely; only allowed texts count.")
            if got == max(allowed, key=lambda text: log_p(likes, text)):
                raise Wrong(
                    f"{what} That's the likeliest of all allowed texts; greedy decoding takes, at each step, "
                    "the likeliest token that can still lead to one."
                )
            if got == greedy(likes, allowed, by_letters=True):
                raise Wrong(
                    f"{what} A token is allowed if it continues a text whose *whole* beginning has been "
                    "written, not if some text has it at that place."
                )
            if got in allowed and got == greedy(likes, [text for text in allowed if text != right]):
                raise Wrong(
                    f"{what} Where one text is the beginning of another, <end> is one token among others."
                )
            raise Wrong(what)
    return (
        "No 'andone' any more: what isn't a number can't be written. Programs that must produce valid JSON or code "
        "do the same, with a grammar in place of the list."
    )


class Writer(nn.Module):
    """A translator in whose decoder the last token alone decides: `likes`, logits (vocab, vocab)."""

    def __init__(self, likes: torch.Tensor):
        super().__init__()
        self.likes, self.config = likes, CONFIG

    def encoder(self, src: torch.Tensor) -> torch.Tensor:
        return torch.zeros(*src.shape, CONFIG.n_embd)  # (B, S) -> (B, S, C)

    def decoder(self, idx: torch.Tensor, *_) -> torch.Tensor:
        return self.likes[idx]  # (B, T) -> (B, T, vocab)

    def forward(self, src: torch.Tensor, idx: torch.Tensor) -> torch.Tensor:
        return self.decoder(idx, self.encoder(src))


def greedy(likes: torch.Tensor, allowed: list[list[int]], by_letters: bool = False) -> list[int]:
    """The likeliest token at each step that leads to an allowed text; or that any of them has at that place."""
    text = []
    while END not in text and len(text) < 9:
        open_ways = [each for each in allowed if by_letters or each[: len(text)] == text]
        tokens = sorted({each[len(text)] for each in open_ways if len(each) > len(text)})
        if not tokens:
            break
        text.append(max(tokens, key=lambda token: likes[([START, *text])[-1], token].item()))
    return text


def free(likes: torch.Tensor) -> list[int]:
    """The likeliest token at each step."""
    text = []
    while END not in text and len(text) < CONFIG.block_size:
        text.append(likes[([START, *text])[-1]].argmax().item())
    return text


def log_p(likes: torch.Tensor, text: list[int]) -> float:
    """The log probability of a text."""
    steps = likes.log_softmax(dim=-1)
    return sum(steps[a, b].item() for a, b in zip([START, *text], text, strict=False))
