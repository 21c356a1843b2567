"""The exercises of 16b_modern_block."""

from answers import exercise_tests

TestExercises = exercise_tests(
    "16b",
    ("16b.1", "sum", "sum over the pairs", "mean(dim=1)", "sum(dim=1)"),
    ("16b.1", "sum of channels", "Divide by the product", "mean(dim=1)", "sum(dim=1) * 2"),
    ("16b.1", "sines", "sines", "cos()", "sin()"),
    ("16b.1", "both turned", "Nothing falls", "rotary_angles(T, hs)", "(0 * rotary_angles(T, hs))"),
    ("16b.2", "fused", "fused form", "torch.cat([orthogonalised(part) for part in matrix.chunk(3)])", "orthogonalised(matrix)"),
    ("16b.2", "columns", "cut along dim 0", "for part in matrix.chunk(3)]", "for part in matrix.chunk(3, dim=1)], dim=1"),
    ("16b.2", "as it is", "the matrix itself", "orthogonalised(part)", "part"),
    ("16b.3", "Muon's own", "Muon's own numbers", (3.4445, -4.7750, 2.0315)),
    ("16b.3", "the start", "Only the shortest stretches", (2.0, -1.5, 0.5)),
    ("16b.3", "overflow", "grow without limit", (9.0, 9.0, 9.0)),
    ("16b.3", "two numbers", "Expected three numbers", (2.0, -1.5)),
    ("16b.3", "no numbers", "number 2: expected a number", (2.0, "b", 0.5)),
    ("16b.3", "identity", "ends 0.970 away", (1.0, 0.0, 0.0)),
    ("16b.4", "too wide", "within 10%", "8 * C / 3", "4 * C"),
    ("16b.4", "no gate", "gets no gradient", "F.silu(self.gate(x)) * self.value(x)", "F.silu(self.gate(x))"),
    ("16b.4", "not causal", "isn't causal", "self.gate(x)", "self.gate(x.flip(1))"),
    ("16b.4", "no attention", "the attention is missing", "self.ffwd = SwiGLU(config.n_embd)", "self.ffwd = SwiGLU(config.n_embd)\n        self.sa = nn.Linear(config.n_embd, 4 * config.n_embd)\n        self.forward = lambda x: x + self.ffwd(x)"),
    ("16b.4", "nothing new", "nothing has changed yet", "self.ffwd = SwiGLU(config.n_embd)", "pass"),
    ("16b.4", "another shape", "expected shape (2, 9, 32)", "self.ffwd = SwiGLU(config.n_embd)", "self.ffwd = SwiGLU(config.n_embd)\n        self.forward = lambda x: self.ffwd(x)[0]"),
)  # fmt: skip
