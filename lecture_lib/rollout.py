"""Sampling, faster.

Video 1:48:53.
Promoted from notebooks/14_chatgpt.ipynb by `lecture promote`: edit the notebook, not this file.
"""

import torch

from lecture_lib.fine_tuning import LINE_END, answer_mask
from lecture_lib.gpt import GPT
from lecture_lib.self_attention import attention
from lecture_lib.single_head import next_token
from lecture_lib.training import eval_mode

__all__ = ["extend", "sample_answers"]


def extend(model: GPT, idx: torch.Tensor, memory: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """Logits of the token after `idx`, (B, T_new) -> (B, vocab_size), `memory` standing for all before it.

    `memory` holds keys and values, each (B, T, hs), of every head in order; it is empty at first and grows by
    T_new tokens. The same logits as `model(whole text)[0][:, -1]`, for the work of the new tokens alone.
    """
    earlier = memory or [(None, None)] * (model.config.n_layer * model.config.n_head)
    past = memory[0][0].shape[1] if memory else 0
    T = past + idx.shape[1]
    grown = []
    x = model.token_embedding_table(idx) + model.position_embedding_table(torch.arange(past, T))
    for block in list(model.body)[:-1]:
        projected, normed, outs = block.sa[0], block.ln1(x), []
        for head in projected.heads:
            new = head.key(normed), head.value(normed)  # (B, T_new, C) -> (B, T_new, hs)
            old = earlier[len(grown)]
            k, v = (torch.cat(pair, dim=1) for pair in zip(old, new, strict=True)) if memory else new
            grown.append((k, v))  # (B, T, hs)
            outs.append(attention(head.query(normed), k, v, head.tril[past:T, :T])[0])
        x = x + block.sa[1](projected.proj(torch.cat(outs, dim=-1)))  # (B, T_new, C)
        x = x + block.ffwd(block.ln2(x))
    memory[:] = grown
    return model.lm_head(model.body[-1](x[:, -1]))  # (B, C) -> (B, vocab_size)


@torch.no_grad()
def sample_answers(model: GPT, prompts: torch.Tensor, max_new_tokens: int) -> torch.Tensor:
    """Draw an answer to each prompt, with dropout off: (B, P) -> (B, max_new_tokens), filled with LINE_END.

    Takes its draws from torch's global generator.
    """
    answers = prompts.new_full((len(prompts), max_new_tokens), LINE_END)
    memory, idx = [], prompts
    with eval_mode(model):
        for t in range(max_new_tokens):
            idx = next_token(extend(model, idx, memory))  # (B, vocab_size) -> (B, 1)
            answers[:, t] = idx[:, 0]
    return answers.where(answer_mask(answers), LINE_END)
