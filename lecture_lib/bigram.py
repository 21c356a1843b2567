"""The bigram language model.

From notebooks/03_bigram.ipynb.
Video 22:11, 34:53, 38:00.
Written by `lecture promote`: edit the notebook, not this file.
"""

import torch
from torch import nn
from torch.nn import functional as F

from lecture_lib.base.device import choose_device, describe_device
from lecture_lib.batches import get_batch
from lecture_lib.tokenization import load_splits
from lecture_lib.training import TrainConfig, config_parser, sample_text, train

__all__ = ["BigramLanguageModel"]


class BigramLanguageModel(nn.Module):
    """Predict the next token from the current one alone, by a table of logits (video 22:11).

    Its (vocab_size, vocab_size) parameters are the logits: row = current token, column = next.
    """

    def __init__(self, vocab_size: int):
        super().__init__()
        self.token_embedding_table = nn.Embedding(vocab_size, vocab_size)

    def forward(
        self, idx: torch.Tensor, targets: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Ids (B, T) -> logits (B, T, vocab_size) and the loss in nats per token, None without targets."""
        logits = self.token_embedding_table(idx)  # (B, T) -> (B, T, C)
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())  # (B*T, C), (B*T,)

    @torch.no_grad()
    def generate(self, idx: torch.Tensor, max_new_tokens: int) -> torch.Tensor:
        """Append sampled tokens to every row: (B, T) -> (B, T + max_new_tokens), int64."""
        for _ in range(max_new_tokens):
            logits, _ = self(idx)  # (B, T, C)
            probs = F.softmax(logits[:, -1], dim=-1)  # (B, C): what may follow the last token
            idx = torch.cat([idx, torch.multinomial(probs, 1)], dim=1)  # (B, T), (B, 1) -> (B, T + 1)
        return idx


def main(argv: list[str] | None = None) -> None:
    """Train a bigram model and print a sample: `python -m lecture_lib.bigram` (video 38:00)."""
    parser = config_parser("Train the bigram model on tiny Shakespeare and sample from it.", TrainConfig())
    settings = vars(parser.parse_args(argv))
    seed = settings.pop("seed")
    tokenizer, splits = load_splits()
    try:
        config = TrainConfig(**settings)
        for split in splits:
            get_batch(splits, split, 1, config.block_size)  # raises ValueError if the text is too short
    except ValueError as error:
        parser.error(str(error))
    device = choose_device()
    print(f"device: {describe_device(device)}")
    torch.manual_seed(seed)
    model = BigramLanguageModel(tokenizer.vocab_size).to(device)
    train(model, splits, config)
    print(sample_text(model, tokenizer, max_new_tokens=500, seed=seed))


if __name__ == "__main__":
    main()
