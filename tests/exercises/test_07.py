"""The exercises of 07_multi_head."""

import torch
from answers import exercise_tests

from lecture_lib.multi_head import MultiHeadAttention

EQUAL_COLUMNS = "weight.copy_(weight[:, :hs].repeat(1, 1 + len(others)))"
IN_TURN = """outs = []
        for q, k, v in zip(*(each(x).split(x.shape[2] // self.n_head, -1) for each in (self.query, self.key, self.value))):
            wei = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).masked_fill(~self.tril[:T, :T], float("-inf"))
            outs.append(wei.softmax(-1) @ v)
        return torch.cat(outs, -1)"""

TestExercises = exercise_tests(
    "07",
    ("07.1", "narrow lm_head", "128 inputs", "128 * 65", "32 * 65"),
    ("07.1", "one head", "there are four", "4 * 3", "3"),
    ("07.1", "heads of 8", "8 channels, not 32", 7_553),
    ("07.1", "no bias", "bias of lm_head", " + 65\n", "\n"),
    ("07.1", "no positions", "positions are missing", " + 8 * 32", ""),
    ("07.1", "no embeddings", "embeddings are missing", "embeddings + ", ""),
    ("07.1", "one matrix", "a head has three", "4 * 3", "4"),
    ("07.2", "bias in each", "whole bias", "out @ W.T", "out @ W.T + lm_head.bias"),
    ("07.2", "bias divided", "A part of the bias", "out @ W.T", "out @ W.T + lm_head.bias / len(outs)"),
    (
        "07.2",
        "equal shares",
        "same share",
        "return ",
        "return (lm_head(torch.cat([*outs], -1)) / len(outs)).expand(len(outs), -1, -1, -1)  # ",
    ),
    (
        "07.2",
        "interleaved",
        "next to each other",
        "lm_head.weight.split(hs, dim=1)",
        "[lm_head.weight[:, i :: len(outs)] for i in range(len(outs))]",
    ),
    (
        "07.2",
        "viewed",
        "view moves no numbers",
        "lm_head.weight.split(hs, dim=1)",
        "lm_head.weight.view(len(outs), -1, hs)",
    ),
    ("07.2", "a sum", "expected shape (4, 2, 3, 13)", "torch.stack(", "sum("),
    (
        "07.3",
        "viewed",
        "view alone",
        "self.n_head, C // self.n_head).transpose(1, 2)",
        "C).reshape(B, self.n_head, T, -1)",
        "transpose(1, 2).flatten(2)",
        "reshape(x.shape)",
    ),
    ("07.3", "not transposed back", "put together wrong", "transpose(1, 2).flatten(2)", "reshape(x.shape)"),
    (
        "07.3",
        "interleaved",
        "n_head comes before hs",
        "self.n_head, C // self.n_head).transpose(1, 2)",
        "-1, self.n_head).permute(0, 3, 1, 2)",
    ),
    ("07.3", "scaled by C", "square root of C", "q.shape[-1] **", "x.shape[-1] **"),
    ("07.3", "not scaled", "aren't scaled", " / q.shape[-1] ** 0.5", ""),
    ("07.3", "no mask", "isn't masked", '.masked_fill(~self.tril[:T, :T], float("-inf"))', ""),
    ("07.3", "over the queries", "over the queries", "dim=-1", "dim=-2"),
    (
        "07.3",
        "biases",
        "bias=False",
        "self.key = nn.Linear(n_embd, n_embd, bias=False)",
        "self.key = nn.Linear(n_embd, n_embd)",
    ),
    ("07.3", "longer texts only", "Your code stopped", "self.tril[:T, :T]", "self.tril"),
    ("07.3", "the list of heads", "has key = None", MultiHeadAttention),
    (
        "07.3",
        "in turns",
        "take turns",
        "q, k, v = self.by_head(self.query(x)), self.by_head(self.key(x)), self.by_head(self.value(x))",
        IN_TURN,
    ),
    ("07.4", "heads alone", "at step 1", EQUAL_COLUMNS, "pass"),
    ("07.4", "columns alone", "Head 1 doesn't start", "head.load_state_dict(first.state_dict())", "pass"),
    (
        "07.4",
        "one module",
        "one and the same module",
        "return model",
        "model.body.heads = torch.nn.ModuleList([first] * 4)[: 1 + len(others)]\n    return model",
    ),
    (
        "07.4",
        "all zeros",
        "head 0 itself must stay",
        "return model",
        "[p.data.zero_() for p in model.body.parameters()]\n    return model",
    ),
    ("07.4", "frozen", "don't learn", "return model", "return model.requires_grad_(False)"),
    ("07.4", "nothing returned", "Expected the model", "return model", "return weight"),
    ("07.4", "another model", "got MultiHeadAttention", lambda model: MultiHeadAttention(8, 2, 4)),
    ("07.4", "a tensor", "got Tensor", lambda model: torch.zeros(3)),
    (
        "07.3",
        "in turns, then stacked",
        "take more calls",
        "q, k, v = self.by_head(self.query(x)), self.by_head(self.key(x)), self.by_head(self.value(x))",
        IN_TURN.replace("torch.cat(outs, -1)", "torch.stack(outs, 1).transpose(1, 2).flatten(2)"),
    ),
)
