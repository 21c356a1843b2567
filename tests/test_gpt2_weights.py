"""GPT-2's and nanoGPT's weights, chapter 13: in and out, against Hugging Face's own GPT-2."""

import copy
import os
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import safetensors.torch
import torch
from kit import Suite, close, draw_ids, raises, refusals, seeded, suite_tests
from torch import nn

from lecture_lib import gpt2_weights
from lecture_lib.base.errors import CourseError
from lecture_lib.gpt2_weights import from_gpt2, from_nanogpt, load_gpt2, load_gpt2_tokenizer, to_gpt2
from lecture_lib.nanogpt import NanoGPT, NanoGPTConfig
from lecture_lib.sizing import PUBLISHED, parameter_counts

transformers = pytest.importorskip("transformers")

V, T = 31, 12
TINY = NanoGPTConfig(V, T, n_embd=24, n_head=3, n_layer=2, activation="gelu_tanh")
IDX = draw_ids(2, T, vocab_size=V)
weights = Suite(gpt2_weights, n_head=3, hs=8, n_layer=2, block_size=T)


@cache
def theirs(config=TINY, **choices):
    """Hugging Face's GPT-2 of these sizes, in eval mode, every tensor random, biases and gains too."""
    names = "vocab_size", "n_embd", "n_head", "n_layer"
    sizes = {name: getattr(config, name) for name in names} | {"n_positions": config.block_size}
    tokens = {"bos_token_id": None, "eos_token_id": None}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **tokens, **choices))
    torch.manual_seed(1337)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model.eval()


def ours(**changes):
    return seeded(NanoGPT, replace(TINY, **changes)).eval()


def alike(actual, expected):
    """But for rounding in single precision."""
    close(actual, expected, atol=1e-5 * expected.abs().max().item())


def nanogpts_checkpoint(state, prefix="", **changes):
    """What nanoGPT would save of a state of Hugging Face's: its prefix, matrices in `nn.Linear`'s layout."""
    on_their_sides = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
    turned = {prefix + name: t.T if name.endswith(on_their_sides) else t for name, t in state.items()}
    sizes = {name: getattr(TINY, name) for name in gpt2_weights.NANOGPT_SIZES} | changes
    return {"model": turned, "model_args": sizes, "iter_num": 100, "config": {"dataset": "shakespeare"}}


def refusal(library, state):
    """What `from_gpt2` says of a state that it doesn't take; empty if it takes it."""
    try:
        library.from_gpt2(state, n_head=3)
    except (ValueError, KeyError) as error:
        return str(error)
    return ""


@weights.holds
def loads_hugging_faces_gpt2(library, n_head, hs, n_layer, block_size):
    """The same logits for all tokens, and the model is a GPT-2: tied, with biases, with its own GELU."""
    sizes = NanoGPTConfig(V, block_size, n_head * hs, n_head, n_layer, activation="gelu_tanh")
    model, idx = library.from_gpt2(theirs(sizes).state_dict(), n_head), IDX[:, :block_size]
    alike(model(idx)[0], theirs(sizes)(idx).logits)
    assert model.config == sizes and model.lm_head.weight is model.token_embedding_table.weight


@weights.holds
def goes_back_to_hugging_face(library):
    """The state that comes out is the one that went in, in copies."""
    state = theirs().state_dict()
    model = from_gpt2(state, n_head=3)
    back = library.to_gpt2(model)
    assert back.keys() == state.keys() and all(torch.equal(back[name], state[name]) for name in state)
    ours = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    for tensor in back.values():
        assert tensor.is_contiguous() and tensor.untyped_storage().data_ptr() not in ours


@weights.holds
def loads_the_published_file(library, tmp_path):
    """As on the hub: without `transformer.` and `lm_head`, with the masks of old versions, heads of 64."""
    model = theirs(replace(TINY, n_embd=192))
    state = {name.removeprefix("transformer."): t for name, t in model.state_dict().items()}
    del state["lm_head.weight"]
    state |= {"h.0.attn.bias": torch.ones(1, 1, T, T), "h.1.attn.masked_bias": torch.tensor(-1e4)}
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    alike(library.load_gpt2(tmp_path / "model.safetensors")(IDX)[0], model(IDX).logits)


@weights.holds
def loads_nanogpts_checkpoints(library):
    """With biases or without, compiled or not: the same logits."""
    model = copy.deepcopy(theirs(activation_function="gelu"))
    for bias in (True, False):
        state = model.state_dict()
        if not bias:
            for name in [name for name in state if name.endswith("bias")]:
                state.pop(name).zero_()
        for prefix in ("", "_orig_mod."):
            loaded = library.from_nanogpt(nanogpts_checkpoint(state, prefix, bias=bias, dropout=0.1))
            alike(loaded(IDX)[0], model(IDX).logits)
            choices = {"bias": bias, "dropout": 0.1, "attention_dropout": 0.1, "activation": "gelu"}
            assert loaded.config == replace(TINY, **choices) and not loaded.training


@weights.holds
def refuses_what_does_not_fit(library):
    """Missing, foreign, of another shape, on its side, untied: a ValueError that names the tensor."""
    state, matrix = theirs().state_dict(), "transformer.h.1.mlp.c_fc.weight"
    for change, message in (
        ({"transformer.h.0.rotary": torch.zeros(3)}, r"h\.0\.rotary \(3,\) is unknown"),
        ({matrix: state[matrix].T}, r"h\.1\.mlp\.c_fc\.weight has shape \(96, 24\), expected \(24, 96\)"),
        ({"transformer.ln_f.bias": torch.zeros(7)}, r"ln_f\.bias has shape \(7,\), expected \(24,\)"),
        ({"lm_head.weight": torch.zeros(V, 24)}, "lm_head.weight is not wte.weight"),
    ):
        assert re.search(message, refusal(library, state | change))
    del state["transformer.h.1.ln_2.weight"]
    assert re.search(r"h\.1\.ln_2\.weight is missing, expected \(24,\)", refusal(library, state))


test_at_any_size = weights.at_any_size(
    examples=5, n_head=range(1, 4), hs=range(1, 9), n_layer=range(1, 4), block_size=range(2, 10)
)


def test_continues_greedily_as_hugging_face_does():
    """With the cache, past nothing: the same tokens as `GPT2LMHeadModel.generate` without drawing."""
    model, idx = from_gpt2(theirs().state_dict(), n_head=3), IDX[:1, :4]
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    expected = theirs().generate(idx, attention_mask=torch.ones_like(idx), **options)
    assert torch.equal(model.generate(idx, 8, top_k=1), expected)


def test_the_published_size_is_hugging_faces():
    with torch.device("meta"):
        published = transformers.GPT2LMHeadModel(transformers.GPT2Config())
    assert published.num_parameters() == sum(parameter_counts(PUBLISHED["GPT-2 124M"]).values())


def truncated() -> bytes:
    return safetensors.torch.save(to_gpt2(ours()))[:-100]


@pytest.mark.parametrize("content", [b"", b"no weights at all", b"\x08\0\0\0\0\0\0\0{}      ", truncated])
def test_files_that_are_no_gpt2(tmp_path, content):
    """One sentence that names the file: the command line prints nothing else of a CourseError."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(content() if callable(content) else content)
    with pytest.raises(
        CourseError, match=r"/model\.safetensors is not GPT-2's model\.safetensors: \S"
    ) as refusal:
        load_gpt2(path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("load", [load_gpt2, load_gpt2_tokenizer])
def test_files_that_cannot_be_read(tmp_path, monkeypatch, load):
    """Not there, a folder, or not for us: said with the whole path, even of a relative one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    locked = tmp_path / "locked"
    locked.write_bytes(b"secret")
    locked.chmod(0)
    reasons = {"missing": "No such file", "folder/missing": "No such file", "folder": "Is a directory"}
    if os.geteuid() != 0:  # who may read everything is refused nothing
        reasons["locked"] = "Permission denied"
    for name, reason in reasons.items():
        for path in (Path(name), tmp_path / name):
            with pytest.raises(CourseError, match=re.escape(f", {tmp_path / name}: {reason}")):
                load(path)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe"])
def test_files_that_are_no_tokenizer(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(CourseError, match=r"/tokenizer\.json is not GPT-2's tokenizer\.json: \S"):
        load_gpt2_tokenizer(path)


THEIRS = theirs().state_dict()
GOOD = nanogpts_checkpoint(THEIRS)
SHALLOW = GOOD["model_args"] | {"n_layer": 1}
UNSIZED = {name: size for name, size in SHALLOW.items() if name != "bias"}
NO_MATRIX = "wte.weight is missing or not a matrix; expected the state dict of a GPT-2"
test_what_is_refused = refusals(
    ("'bias': False, 'tied': True, 'activation': 'gelu_tanh'}; expected GPT-2's", to_gpt2, ours(bias=False)),
    ("'tied': False, 'activation': 'gelu_tanh'}; expected GPT-2's", to_gpt2, ours(tied=False)),
    ("'activation': 'gelu'}; expected GPT-2's {'bias': True", to_gpt2, ours(activation="gelu")),
    (NO_MATRIX, from_gpt2, {}),
    (NO_MATRIX, from_gpt2, {"wte.weight": torch.zeros(3), "wpe.weight": torch.zeros(2, 2)}),
    ("n_embd is 24, n_head is 5; expected n_head to divide n_embd", from_gpt2, THEIRS, 5),
    ("the checkpoint has no 'model_args'; expected nanoGPT's", from_nanogpt, {"model": GOOD["model"]}),
    ("model_args has no bias; expected vocab_size", from_nanogpt, GOOD | {"model_args": UNSIZED}),
    ("h.1.attn.c_attn.bias (72,) is unknown", from_nanogpt, GOOD | {"model_args": SHALLOW}),
    ("c_attn.weight has shape (24, 72), expected (72, 24)", from_nanogpt, GOOD | {"model": THEIRS}),
)

TURN = 'return tensor.T if name.startswith("h.") and tensor.dim() == 2 else tensor'
BARE = 'removeprefix("_orig_mod.").removeprefix("transformer.")'
MASKS = '(".attn.bias", ".attn.masked_bias")'
weights.faults = [
    ("nothing turned", TURN, "return tensor", refuses_what_does_not_fit),
    ("square matrices not turned", "tensor.dim() == 2 else",
     "tensor.dim() == 2 and tensor.shape[0] != tensor.shape[1] else",
     (loads_hugging_faces_gpt2, goes_back_to_hugging_face, loads_the_published_file)),
    ("tables turned too", 'if name.startswith("h.") and tensor.dim() == 2', "if tensor.dim() == 2",
     refuses_what_does_not_fit),
    ("nanoGPT's turned too", "conv1d=False", "conv1d=True", raises(ValueError, loads_nanogpts_checkpoints)),
    ("turned, but only viewed in another shape", TURN,
     TURN.replace("tensor.T", "tensor.reshape(tensor.T.shape)"),
     (loads_hugging_faces_gpt2, goes_back_to_hugging_face)),
    ("queries, keys, values in another order", "parameter.copy_(state[name])",
     'parameter.copy_(state[name].roll(24, -1) if name.endswith("c_attn.bias") else state[name])',
     (loads_hugging_faces_gpt2, loads_nanogpts_checkpoints)),
    ("the norms swapped", '"ln1": "ln_1"', '"ln1": "ln_2"', refuses_what_does_not_fit),
    ("the two projections swapped", '"ffwd.net.2": "mlp.c_proj"', '"ffwd.net.2": "attn.c_proj"',
     refuses_what_does_not_fit),
    ("exact GELU for GPT-2", 'n_layer, activation="gelu_tanh")', 'n_layer, activation="gelu")',
     loads_hugging_faces_gpt2),
    ("the compiler's prefix kept", '.removeprefix("_orig_mod.")', "",
     raises(ValueError, loads_nanogpts_checkpoints)),
    ("`transformer.` needed", f"name.{BARE}", 'name.removeprefix("_orig_mod.").split("transformer.")[1]',
     raises(IndexError, loads_the_published_file)),
    ("masks not left out", MASKS, '(".attn.masked_bias",)', raises(CourseError, loads_the_published_file)),
    ("biases of the attention left out", MASKS, MASKS.replace(".attn.bias", ".c_attn.bias"),
     refuses_what_does_not_fit),
    ("nanoGPT's dropout forgotten", ', attention_dropout=sizes["dropout"]', "", loads_nanogpts_checkpoints),
    ("nanoGPT's biases forgotten", '"dropout", "bias")', '"dropout")',
     raises(ValueError, loads_nanogpts_checkpoints)),
    ("an untied head let through", "if not problems and lm_head", "if False and lm_head",
     refuses_what_does_not_fit),
    ("foreign tensors let through", "for name in shapes.keys() - expected]", "for name in ()]",
     refuses_what_does_not_fit),
    ("missing tensors let through", "for name in expected.keys() - shapes]", "for name in ()]",
     refuses_what_does_not_fit),
    ("loaded in train mode", "return model.eval()", "return model", loads_nanogpts_checkpoints),
]  # fmt: skip
test_a_property_holds, test_a_planted_fault_is_caught = suite_tests(weights)
