"""The exercises of 13_nanogpt."""

from answers import exercise_tests

PARTS = "return tuple(part.unflatten(-1, (-1, hs)).transpose(1, 2) for part in (q, k, v))"
REPEAT = "k, v = (t.repeat_interleave(group, dim=1) for t in (k, v))  # -> (B, n_head, T_k, hs)"
CACHE = (
    "        if cache is not None:\n            k, v = cache.extend(k, v)  # (B, n_kv_head, T_k, hs) each\n"
)

TestExercises = exercise_tests(
    "13",
    (
        "13.1",
        "head by head",
        "You go head by head",
        "part, within = divmod(channel, C)",
        "hs = C // n_head",
        "head, number = divmod(within, C // n_head)",
        "part, head, number = channel // hs % 3, channel // (3 * hs), channel % hs",
    ),
    (
        "13.1",
        "in turn",
        "dealt to the heads in turn",
        "head, number = divmod(within, C // n_head)",
        "number, head = divmod(within, n_head)",
    ),
    ("13.1", "counted on", "each part has its own head 0", "divmod(within, C //", "divmod(channel, C //"),
    ("13.1", "another order", "yours begins with the head", "return part, head", "return head, part"),
    ("13.1", "two numbers", "expected three numbers", "return part, head, number", "return head, number"),
    ("13.2", "still tied", "Only `tied` should change", "tied=False", "tied=True"),
    ("13.2", "the same model", "the model that was given", "twin.train(model.training)", "model"),
    (
        "13.2",
        "new head",
        "other numbers than the old one",
        "model.state_dict()",
        '{n: t for n, t in model.state_dict().items() if n != "lm_head.weight"}',
    ),
    (
        "13.2",
        "shared with the old",
        "shares numbers with the old one",
        "return twin",
        "twin.lm_head.weight = model.lm_head.weight\n    return twin",
    ),
    (
        "13.2",
        "one matrix",
        "still one matrix",
        "return twin",
        "twin.lm_head.weight = twin.token_embedding_table.weight\n    return twin",
    ),
    (
        "13.2",
        "blocks not copied",
        "The logits of random ids",
        "model.state_dict()",
        '{n: t for n, t in model.state_dict().items() if "body" not in n}',
    ),
    (
        "13.2",
        "old one changed",
        "The old model has changed",
        "return twin",
        "model.body.ln.weight.add_(1)\n    return twin",
    ),
    ("13.3", "not transposed", "the heads come before time", ".transpose(1, 2)", ""),
    (
        "13.3",
        "view",
        "mixes time and heads",
        "part.unflatten(-1, (-1, hs)).transpose(1, 2)",
        "part.reshape(len(qkv), -1, qkv.shape[1], hs)",
    ),
    ("13.3", "exchanged", "Keys and values are exchanged", "in (q, k, v)", "in (q, v, k)"),
    (
        "13.3",
        "in turn",
        "a head has hs neighbours",
        "part.unflatten(-1, (-1, hs)).transpose(1, 2)",
        "part.unflatten(-1, (hs, -1)).permute(0, 3, 1, 2)",
    ),
    (
        "13.3",
        "repeated",
        "heads of keys; expected",
        PARTS,
        PARTS.replace("return tuple", "q, k, v = ")
        + "\n    return q, k.repeat_interleave(n_head // n_kv_head, 1), v.repeat_interleave(n_head // n_kv_head, 1)",
    ),
    ("13.4", "all keys", "keys and values are what becomes fewer", "2 * n_kv_head)", "2 * config.n_head)"),
    (
        "13.4",
        "in turn",
        "The wrong heads share",
        "t.repeat_interleave(group, dim=1)",
        "t.repeat(1, group, 1, 1)",
    ),
    (
        "13.4",
        "not causal",
        "The future is visible",
        "causal = mask is None and q.shape[2] > 1",
        "causal = False",
    ),
    (
        "13.4",
        "repeated too soon",
        "go into the cache first",
        f"{CACHE}        {REPEAT}\n",
        f"        {REPEAT}\n{CACHE}",
    ),
    ("13.4", "no cache", "nothing is in it", CACHE, ""),
    (
        "13.4",
        "no mask",
        "the first of them sees the second",
        "q, k, v, mask, dropout",
        "q, k, v, None, dropout",
    ),
    (
        "13.4",
        "causal, not masked",
        "counts from the first key",
        "mask, dropout, causal)",
        "None, dropout, q.shape[2] > 1)",
    ),
    (
        "13.4",
        "another class",
        "class GroupedAttention(CausalSelfAttention)",
        "(CausalSelfAttention)",
        "(nn.Module)",
    ),
)
