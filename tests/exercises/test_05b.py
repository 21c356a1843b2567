"""The exercises of 05b_notes."""

from answers import exercise_tests

TestExercises = exercise_tests(
    "05b",
    ("05b.1", "no root", "81 times", " ** 0.5", ""),
    ("05b.1", "for both", "both multiplied", "0.5", "0.25"),
    (
        "05b.1",
        "upside down",
        "smaller still",
        "(1 / (query_variance * key_variance))",
        "(query_variance * key_variance)",
    ),
    (
        "05b.1",
        "the variance",
        "variance as it is",
        "(1 / (query_variance * key_variance)) ** 0.5",
        "query_variance * key_variance",
    ),
    ("05b.1", "nothing", "changes nothing", 1.0),
    ("05b.2", "one layer", "single layer", "mask.float().matrix_power(n_layer)", "mask"),
    ("05b.2", "too many", "too many", "(n_layer)", "(n_layer + 1)"),
    ("05b.2", "too few", "too few", "(n_layer)", "(n_layer - 1)"),
    ("05b.2", "transposed", "direction is wrong", "mask.float()", "mask.float().T"),
    ("05b.2", "counts", "count the ways", "ways > 0", "ways"),
    (
        "05b.2",
        "at most",
        "fewer layers",
        "mask.float().matrix_power(n_layer)",
        "sum(mask.float().matrix_power(n) for n in range(1, n_layer + 1))",
    ),
    ("05b.3", "no mask", "as if it were text", ", real[:, None, :]", ""),
    (
        "05b.3",
        "values",
        "still gets weight",
        "attention(q, k, v, real[:, None, :])",
        "attention(q, k, v * real[:, :, None])",
    ),
    (
        "05b.3",
        "the future, too",
        "The future is masked",
        "real[:, None, :])",
        "real[:, None, :] & causal_mask(q.shape[1]))",
    ),
    ("05b.3", "the future only", "The future is masked", "real[:, None, :]", "causal_mask(q.shape[1])"),
    ("05b.3", "one too many", "One token of padding", "< lengths", "<= lengths"),
    ("05b.3", "the shortest", "the shortest text", "lengths[:, None]", "lengths.min().expand(len(q), 1)"),
    ("05b.3", "queries", "rows of the mask are empty", "real[:, None, :]", "real[:, :, None]"),
    ("05b.4", "d_v not transposed", "d_v takes wei transposed", "wei.transpose(1, 2) @ d_out", "wei @ d_out"),
    ("05b.4", "no mask", "the weights of d_v reach", '.masked_fill(~causal_mask(T), float("-inf"))', ""),
    ("05b.4", "another order", "in another order", "return d_q, d_k, d_v", "return d_v, d_k, d_q"),
    ("05b.4", "swapped", "swapped", "return d_q, d_k, d_v", "return d_k, d_q, d_v"),
    ("05b.4", "d_q not scaled", "missing in d_q", "d_scores @ k * scale", "d_scores @ k"),
    ("05b.4", "d_k not scaled", "missing in d_k", "@ q * scale", "@ q"),
    (
        "05b.4",
        "own score only",
        "p (1 - p)",
        "(d_wei - (wei * d_wei).sum(dim=-1, keepdim=True))",
        "(1 - wei) * d_wei",
    ),
    ("05b.4", "no sum", "sum over the row", " - (wei * d_wei).sum(dim=-1, keepdim=True)", ""),
    (
        "05b.4",
        "no softmax",
        "softmax is missing",
        "d_scores = wei * (d_wei - (wei * d_wei).sum(dim=-1, keepdim=True))",
        "d_scores = d_wei",
    ),
    ("05b.4", "d_k not transposed", "has to be transposed", "d_scores.transpose(1, 2)", "d_scores"),
    ("05b.4", "one tensor", "Expected three tensors", "return d_q, d_k, d_v", "return d_q"),
    (
        "05b.4",
        "with autograd",
        "Your code stopped",
        "T, scale =",
        "with torch.enable_grad():\n"
        "        given = [each.clone().requires_grad_() for each in (q, k, v)]\n"
        "        scores = given[0] @ given[1].mT * q.shape[2] ** -0.5\n"
        "        wei = scores.masked_fill(~causal_mask(q.shape[1]), -torch.inf).softmax(-1)\n"
        "        return torch.autograd.grad(wei @ given[2], given, d_out)\n"
        "    T, scale =",
    ),
)
