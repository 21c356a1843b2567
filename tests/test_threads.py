"""How many threads a chapter trains with, wherever it is opened, without timing anything."""

import os
import subprocess
import sys

import pytest
import torch
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from lecture_lib.base import threads
from lecture_lib.base.paths import ROOT

FREE = {name: value for name, value in os.environ.items() if name not in (threads.VARIABLE, threads.MARK)}
TRAIN = """
import torch
from lecture_lib.batches import get_batch
from lecture_lib.bigram import BigramLanguageModel
from lecture_lib.training import TrainConfig, train

class Spy(BigramLanguageModel):
    def forward(self, *inputs):
        seen.add(torch.get_num_threads())
        return super().forward(*inputs)

seen, ids = set(), torch.arange(100) % 65
train(Spy(65), {"train": ids, "val": ids}, TrainConfig(max_iters=3, eval_iters=1))
print(*seen)
"""


def said(code: str, environment: dict[str, str]) -> str:
    """The last line that a Python process prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    "first", ["import torch", "import lecture_lib", ""], ids=["torch", "library", "either"]
)
def test_a_small_model_trains_with_one_thread_whichever_is_imported_first(first):
    assert said(first + TRAIN, FREE) == "1"


def test_the_user_s_number_stands():
    assert said(TRAIN, FREE | {threads.VARIABLE: "2"}) == "2"
    assert said("import torch, lecture_lib; torch.set_num_threads(3)" + TRAIN, FREE) == "3"
    code = (
        "import torch, lecture_lib.base.threads as t; torch.set_num_threads(3); print(t.fit_threads(10**8))"
    )
    assert said(code, FREE) == "3"


def test_a_large_model_takes_all_cores_and_a_small_one_gives_them_back():
    code = "import torch, lecture_lib.base.threads as t; print(*map(t.fit_threads, (10**8, 10**5, t.LARGE)))"
    assert said(code, FREE) == f"{threads.cores()} 1 {threads.cores()}"
    assert said(code, FREE | threads.fixed(1)) == "1 1 1"


def test_a_long_run_of_a_large_model_takes_all_cores():
    code = """
import torch, pathlib
from lecture_lib.gpt import GPT, GPTConfig
from lecture_lib.long_run import LongRun
from lecture_lib.training import TrainConfig
for width in (16, 384):
    LongRun(GPT(GPTConfig(n_embd=width, n_layer=1)), None, TrainConfig(), pathlib.Path("."), {})
    print(torch.get_num_threads(), end=" ")
"""
    assert said(code, FREE) == f"1 {threads.cores()} "


def test_a_process_that_this_one_starts_may_choose_again():
    """What the course sets isn't taken for the user's choice by a kernel or script that it starts."""
    code = """
import lecture_lib, subprocess, sys
child = "import torch, lecture_lib.base.threads as t; print(t.fit_threads(10**8))"
print(subprocess.check_output([sys.executable, "-c", child], text=True), end="")
"""
    assert said(code, FREE) == str(threads.cores())


def test_a_notebook_in_jupyter_trains_with_one_thread(monkeypatch):
    """In a kernel that anyone starts, without a word about threads; torch is imported first there."""
    for name in (threads.VARIABLE, threads.MARK):
        monkeypatch.delenv(name, raising=False)
    book = new_notebook(cells=[new_code_cell("import torch\n" + TRAIN)])
    NotebookClient(book, kernel_name="python3").execute()
    assert book.cells[0].outputs[-1].text.splitlines()[-1] == "1"


@pytest.mark.parametrize(("one", "several"), [(1.0, 0.6), (1.0, 1.5)])
def test_writing_takes_the_number_of_threads_that_is_quicker_now(monkeypatch, one, several):
    """By a clock that knows how long the work takes with one thread and with several."""
    clock, before = [0.0], torch.get_num_threads()
    monkeypatch.setattr(threads, "chosen_by_user", lambda: False)
    monkeypatch.setattr(threads, "cores", lambda: 2)
    monkeypatch.setattr(threads, "_given", before)
    monkeypatch.setattr(threads.time, "perf_counter", lambda: clock[0])

    def work():
        clock[0] += one if torch.get_num_threads() == 1 else several

    try:
        chosen = threads.quickest_threads(work)
        assert torch.get_num_threads() == chosen == (1 if one < several else 2)
    finally:
        torch.set_num_threads(before)


def test_writing_keeps_the_user_s_number_and_measures_nothing():
    code = "import torch, lecture_lib.base.threads as t; print(t.quickest_threads(None))"
    assert said(code, FREE | {threads.VARIABLE: "2"}) == "2"
    code = "import torch, lecture_lib.base.threads as t; torch.set_num_threads(3)"
    assert said(f"{code}; print(t.quickest_threads(None))", FREE) == "3"


def test_waiting_threads_stay_awake_in_a_process_that_writes_unless_the_user_says_how_long():
    code = "import os, lecture_lib.base.threads as t; t.wait_awake(); print(os.environ['GOMP_SPINCOUNT'])"
    assert said(code, FREE) == threads.SPIN["GOMP_SPINCOUNT"]
    assert said(code, FREE | {"GOMP_SPINCOUNT": "7"}) == "7"
