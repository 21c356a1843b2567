"""What a computation costs: shortest times in turns, and bytes kept for the backward pass."""

import torch

from lecture_lib.course.measuring import saved_bytes, shortest


def test_jobs_are_timed_in_turns_and_the_shortest_counts(monkeypatch):
    clock, order = [0.0], []
    monkeypatch.setattr("time.process_time", lambda: clock[0])
    lengths = {"a": iter((3, 1, 2)), "b": iter((5, 6, 4))}

    def job(name):
        order.append(name)
        clock[0] += next(lengths[name])

    assert shortest({"a": lambda: job("a"), "b": lambda: job("b")}, 3) == {"a": 1, "b": 4}
    assert order == ["a", "b"] * 3


def test_what_is_kept_is_counted_once_and_without_parameters():
    weight, x = torch.ones(8, 4, requires_grad=True), torch.ones(2, 8)
    product = x.nbytes + 2 * 4 * 4  # the product's input, and the output that the square keeps, once
    assert saved_bytes(lambda: (x @ weight) ** 2, [weight]) == product
    assert saved_bytes(lambda: (x.view(2, 8) @ weight) * (x @ weight), [weight]) == x.nbytes + 2 * 2 * 4 * 4
    assert saved_bytes(lambda: x + 1) == 0
