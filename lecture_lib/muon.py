"""The Muon optimizer.

From notebooks/16b_modern_block.ipynb, section "2. Muon".
Video 1:56:20.
Written by `lecture promote`: edit the notebook, not this file.

Jordan et al. 2024: https://kellerjordan.github.io/posts/muon/
"""

import torch

__all__ = ["Muon", "orthogonalised"]


def orthogonalised(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The matrix (m, n), its singular values driven near 1 by Newton-Schulz steps (Jordan et al. 2024)."""
    X = matrix / (matrix.norm() + 1e-7)  # (m, n), all singular values at most 1
    if tall := X.shape[0] > X.shape[1]:
        X = X.T  # so that X X^T is the smaller product
    for _ in range(steps):
        A = X @ X.T  # (k, k), k the smaller of m and n
        X = 3.4445 * X + (-4.7750 * A + 2.0315 * A @ A) @ X
    return X.T if tall else X


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised: for matrices (Jordan et al. 2024). Computes in the parameters' dtype."""

    def __init__(self, params, lr: float = 0.02, momentum: float = 0.95):
        super().__init__(params, {"lr": lr, "momentum": momentum})
        for p in (p for group in self.param_groups for p in group["params"]):
            if p.dim() != 2:
                raise ValueError(f"a parameter has shape {tuple(p.shape)}; expected a matrix, two dimensions")
            self.state[p]["velocity"] = torch.zeros_like(p)

    @torch.no_grad()
    def step(self) -> None:
        """One step for all parameters that have a gradient."""
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                velocity = self.state[p]["velocity"]
                velocity.lerp_(p.grad, 1 - group["momentum"])
                update = orthogonalised(p.grad.lerp(velocity, group["momentum"]))  # Nesterov's momentum
                p.add_(update, alpha=-group["lr"] * max(1, p.shape[0] / p.shape[1]) ** 0.5)
