"""The exercises of 10_layer_norm."""

from answers import exercise_tests

ONLY_QUERIES = "        k = F.layer_norm(k, k.shape[-1:])\n"
ONLY_KEYS = "        q = F.layer_norm(q, q.shape[-1:])\n"
NORMALISE = ONLY_KEYS + ONLY_QUERIES

TestExercises = exercise_tests(
    "10",
    (
        "10.1",
        "LayerNorm",
        "This is LayerNorm",
        "    mean_square",
        "    x = x - x.mean(-1, keepdim=True)\n    mean_square",
    ),
    ("10.1", "centred", "mean is still subtracted", "return x", "return (x - x.mean(-1, keepdim=True))"),
    (
        "10.1",
        "by the std",
        "measure from 0",
        "(x**2).mean(dim=-1, keepdim=True)",
        "x.var(-1, False, keepdim=True)",
    ),
    ("10.1", "a sum", "root of the sum", "mean(dim=-1", "sum(dim=-1"),
    ("10.1", "no root", "the root is missing", "torch.sqrt(mean_square + 1e-5)", "mean_square"),
    ("10.1", "over rows", "dim=0", "dim=-1", "dim=0"),
    ("10.1", "over all", "share one mean", "dim=-1, keepdim=True", ""),
    ("10.1", "no eps", "0 / 0 is NaN", " + 1e-5", ""),
    ("10.2", "no shift", "shift is lost", " + linear.weight @ norm.bias", ""),
    ("10.2", "no gain", "gain is lost", "linear.weight * norm.weight", "linear.weight"),
    ("10.2", "no bias", "own bias is lost", "linear.bias + ", ""),
    ("10.2", "gain twice", "already have the gain", "+ linear.weight @", "+ folded.weight @"),
    ("10.2", "shift as it is", "through the weights first", "linear.weight @ norm.bias", "norm.bias"),
    ("10.2", "rows", "Inputs are the columns", "norm.weight)", "norm.weight[:, None])"),
    (
        "10.2",
        "in place",
        "Make a new nn.Linear",
        "folded = nn.Linear(linear.in_features, linear.out_features)",
        "folded = linear",
    ),
    ("10.3", "squares", "squares of the lengths", "squares.sqrt()", "squares"),
    (
        "10.3",
        "lengths added",
        "Lengths don't add up",
        "(p.grad**2).sum()",
        "p.grad.norm()",
        "squares.sqrt()",
        "squares",
    ),
    ("10.3", "weights", "lengths of the weights", "p.grad**2", "p.detach()**2"),
    ("10.3", "backwards", "wrong order", "return lengths", "return lengths[::-1]"),
    ("10.3", "the final norm too", "one for each block", "model.body[:n_layer]", "model.body"),
    ("10.3", "adding up", "backward() adds", "    model.zero_grad()\n", ""),
    ("10.4", "an ordinary head", "an ordinary head", NORMALISE, ""),
    ("10.4", "queries only", "Only the queries", ONLY_QUERIES, ""),
    ("10.4", "keys only", "Only the keys", ONLY_KEYS, ""),
    (
        "10.4",
        "over positions",
        "over the positions",
        NORMALISE,
        "        q, k = F.layer_norm(q.mT, (T,)).mT, F.layer_norm(k.mT, (T,)).mT\n",
    ),
    (
        "10.4",
        "unit length",
        "have length 1",
        NORMALISE,
        "        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)\n",
    ),
    ("10.4", "not scaled", "divided by sqrt(hs)", "attention(q,", "attention(q * 2,"),
    ("10.4", "no mask", "the mask is missing", "self.tril[:T, :T]", "None"),
    (
        "10.4",
        "values too",
        "values are normalised",
        "attention(q, k, v,",
        "attention(q, k, F.layer_norm(v, v.shape[-1:]),",
    ),
    (
        "10.4",
        "x normalised",
        "You normalised x",
        NORMALISE,
        "        x = F.layer_norm(x, x.shape[-1:])\n        q, k = self.query(x), self.key(x)\n",
    ),
    (
        "10.2",
        "changes what it was given",
        "that you were given, too",
        "return folded",
        "linear.weight.data.zero_()\n    return folded",
    ),
)
