"""GPT-2's and nanoGPT's weights, chapter 13: in and out, against Hugging Face's own GPT-2."""

import re
from dataclasses import replace
from functools import cache

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import Suite, close, draw_ids, raises, refusals, suite_tests
from torch import nn

from lecture_lib import gpt2_weights
from lecture_lib.base.errors import CourseError
from lecture_lib.gpt2_weights import from_gpt2, from_nanogpt, gpt2_name, load_gpt2, to_gpt2
from lecture_lib.nanogpt import NanoGPT, NanoGPTConfig
from lecture_lib.sizing import PUBLISHED, parameter_counts

transformers = pytest.importorskip("transformers")

V, T = 31, 12
TINY = NanoGPTConfig(V, T, n_embd=24, n_head=3, n_layer=2, activation="gelu_tanh")
IDX = draw_ids(2, T, vocab_size=V)
weights = Suite(gpt2_weights)


def randomised(model):
    """The same, in eval mode, with every tensor random, gains, shifts and biases too."""
    torch.manual_seed(1337)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model.eval()


def hugging_face(config=TINY):
    """Hugging Face's GPT-2 of the same sizes, its dropouts off."""
    sizes = transformers.GPT2Config(
        vocab_size=config.vocab_size,
        n_positions=config.block_size,
        n_embd=config.n_embd,
        n_head=config.n_head,
        n_layer=config.n_layer,
        bos_token_id=None,
        eos_token_id=None,
    )
    return transformers.GPT2LMHeadModel(sizes)


@cache
def theirs():
    return randomised(hugging_face())


def ours(**changes):
    return randomised(NanoGPT(replace(TINY, **changes)))


def alike(actual, expected):
    """But for rounding in single precision."""
    close(actual, expected, atol=1e-5 * expected.abs().max().item())


def nanogpts_checkpoint(model, prefix=""):
    """What nanoGPT's training script would save: its names, written out, and torch's own layout."""
    state = {
        "wte.weight": model.token_embedding_table.weight,
        "wpe.weight": model.position_embedding_table.weight,
    }
    for i, block in enumerate(model.body.blocks):
        layers = {
            "ln_1": block.ln1,
            "attn.c_attn": block.sa.qkv,
            "attn.c_proj": block.sa.proj,
            "ln_2": block.ln2,
            "mlp.c_fc": block.ffwd.net[0],
            "mlp.c_proj": block.ffwd.net[2],
        }
        for name, layer in layers.items():
            state |= {f"h.{i}.{name}.{kind}": tensor for kind, tensor in layer.state_dict().items()}
    state |= {f"ln_f.{kind}": tensor for kind, tensor in model.body.ln.state_dict().items()}
    state = {f"{prefix}transformer.{name}": tensor for name, tensor in state.items()}
    state[f"{prefix}lm_head.weight"] = model.lm_head.weight
    sizes = {name: getattr(model.config, name) for name in gpt2_weights.NANOGPT_SIZES}
    return {"model": state, "model_args": sizes, "iter_num": 100, "config": {"dataset": "shakespeare"}}


def refusal(library, state):
    """What `from_gpt2` says of a state that it doesn't take; empty if it takes it."""
    try:
        library.from_gpt2(state, n_head=3)
    except (ValueError, KeyError) as error:
        return str(error)
    return ""


@weights.holds
def loads_hugging_faces_gpt2(library):
    """The same logits for all tokens, and the model is a GPT-2: tied, with biases, with its own GELU."""
    model = library.from_gpt2(theirs().state_dict(), n_head=3)
    with torch.no_grad():
        alike(model(IDX)[0], theirs()(IDX).logits)
    assert model.config == TINY and model.lm_head.weight is model.token_embedding_table.weight


@weights.holds
def goes_back_to_hugging_face(library):
    """Our state loads there, strictly, and gives our logits; and theirs comes back as it was."""
    model, other = ours(), hugging_face().eval()
    other.load_state_dict(library.to_gpt2(model))
    with torch.no_grad():
        alike(other(IDX).logits, model(IDX)[0])
    state = theirs().state_dict()
    back = library.to_gpt2(from_gpt2(state, n_head=3))
    assert back.keys() == state.keys() and all(torch.equal(back[name], state[name]) for name in state)
    assert all(tensor.is_contiguous() for tensor in back.values())


@weights.holds
def loads_the_published_form(library):
    """As on the hub: without `transformer.` and `lm_head`, and with the masks that old versions kept."""
    state = {name.removeprefix("transformer."): t for name, t in theirs().state_dict().items()}
    del state["lm_head.weight"]
    state |= {"h.0.attn.bias": torch.ones(1, 1, T, T), "h.1.attn.masked_bias": torch.tensor(-1e4)}
    model = library.from_gpt2(state, n_head=3)
    assert torch.equal(model(IDX)[0], from_gpt2(theirs().state_dict(), n_head=3)(IDX)[0])


@weights.holds
def loads_nanogpts_checkpoints(library):
    """With biases or without, compiled or not: the same logits."""
    for bias in (True, False):
        for prefix in ("", "_orig_mod."):
            model = ours(bias=bias, activation="gelu", dropout=0.1, attention_dropout=0.1)
            loaded = library.from_nanogpt(nanogpts_checkpoint(model, prefix))
            assert torch.equal(loaded(IDX)[0], model(IDX)[0])
            assert loaded.config == model.config and not loaded.training


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


@settings(deadline=None, max_examples=5)
@given(
    n_head=st.integers(1, 3), hs=st.integers(1, 8), n_layer=st.integers(1, 3), block_size=st.integers(2, 9)
)
def test_any_size_of_gpt2(n_head, hs, n_layer, block_size):
    sizes = NanoGPTConfig(V, block_size, n_head * hs, n_head, n_layer, activation="gelu_tanh")
    reference = randomised(hugging_face(sizes))
    model, idx = from_gpt2(reference.state_dict(), n_head), IDX[:, :block_size]
    with torch.no_grad():
        alike(model(idx)[0], reference(idx).logits)


def test_continues_greedily_as_hugging_face_does():
    """With the cache, past nothing: the same tokens as `GPT2LMHeadModel.generate` without drawing."""
    model, idx = from_gpt2(theirs().state_dict(), n_head=3), IDX[:1, :4]
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    expected = theirs().generate(idx, attention_mask=torch.ones_like(idx), **options)
    assert torch.equal(model.generate(idx, 8, top_k=1), expected)


def test_heads_of_64_unless_told():
    state = to_gpt2(NanoGPT(replace(TINY, n_embd=192)))
    assert from_gpt2(state).config.n_head == 3


def test_the_published_size_is_hugging_faces():
    with torch.device("meta"):
        count = hugging_face(PUBLISHED["GPT-2 124M"]).num_parameters()
    assert count == sum(parameter_counts(PUBLISHED["GPT-2 124M"]).values()) == 124_439_808


def test_names():
    assert gpt2_name("body.blocks.11.ffwd.net.2.bias") == "h.11.mlp.c_proj.bias"
    assert gpt2_name("token_embedding_table.weight") == "wte.weight"
    assert gpt2_name("lm_head.weight") == "lm_head.weight"


def test_what_is_given_away_is_a_copy():
    model = ours()
    for tensor in to_gpt2(model).values():
        tensor.zero_()
    assert model.lm_head.weight.abs().sum() > 0 and model.body.blocks[0].sa.qkv.weight.abs().sum() > 0


def test_a_published_file(tmp_path):
    path = tmp_path / "model.safetensors"
    model = randomised(NanoGPT(replace(TINY, n_embd=64, n_head=1)))
    state = {name.removeprefix("transformer."): t for name, t in to_gpt2(model).items()}
    safetensors.torch.save_file(state, path)
    assert torch.equal(load_gpt2(path)(IDX)[0], model(IDX)[0])


@pytest.mark.parametrize("content", [None, b"", b"no weights at all", b"\x08\0\0\0\0\0\0\0{}      "])
def test_files_that_are_no_gpt2(tmp_path, content):
    path = tmp_path / "model.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CourseError, match=r"model\.safetensors"):
        load_gpt2(path)


GOOD = nanogpts_checkpoint(ours(activation="gelu"))
SHALLOW = GOOD["model_args"] | {"n_layer": 1}
UNSIZED = {name: size for name, size in SHALLOW.items() if name != "bias"}
NO_MATRIX = "wte.weight is missing or not a matrix; expected the state dict of a GPT-2"
test_what_is_refused = refusals(
    ("'bias': False, 'tied': True, 'activation': 'gelu_tanh'}; expected GPT-2's", to_gpt2, ours(bias=False)),
    ("'tied': False, 'activation': 'gelu_tanh'}; expected GPT-2's", to_gpt2, ours(tied=False)),
    ("'activation': 'gelu'}; expected GPT-2's {'bias': True", to_gpt2, ours(activation="gelu")),
    (NO_MATRIX, from_gpt2, {}),
    (NO_MATRIX, from_gpt2, {"wte.weight": torch.zeros(3), "wpe.weight": torch.zeros(2, 2)}),
    ("n_embd is 24, n_head is 5; expected n_head to divide n_embd", from_gpt2, to_gpt2(ours()), 5),
    ("the checkpoint has no 'model_args'; expected nanoGPT's", from_nanogpt, {"model": GOOD["model"]}),
    ("model_args has no bias; expected vocab_size", from_nanogpt, GOOD | {"model_args": UNSIZED}),
    ("h.1.attn.c_attn.bias (72,) is unknown", from_nanogpt, GOOD | {"model_args": SHALLOW}),
    ("c_attn.weight has shape (24, 72), expected (72, 24)", from_nanogpt, GOOD | {"model": to_gpt2(ours())}),
)

TURN = 'return tensor.T if name.startswith("h.") and tensor.dim() == 2 else tensor'
BARE = 'removeprefix("_orig_mod.").removeprefix("transformer.")'
MASKS = '(".attn.bias", ".attn.masked_bias")'
weights.faults = [
    ("nothing turned", TURN, "return tensor", refuses_what_does_not_fit),
    ("square matrices not turned", "tensor.dim() == 2 else",
     "tensor.dim() == 2 and tensor.shape[0] != tensor.shape[1] else",
     (loads_hugging_faces_gpt2, goes_back_to_hugging_face, loads_the_published_form)),
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
     raises(IndexError, loads_the_published_form)),
    ("masks not left out", MASKS, '(".attn.masked_bias",)', raises(ValueError, loads_the_published_form)),
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
