"""PyTorch's own modules with the weights of ours, for comparison."""

from collections.abc import Iterator

import torch
from torch import nn

from lecture_lib.encoder_decoder import EncoderDecoder


@torch.no_grad()
def pytorch_transformer(model: EncoderDecoder) -> nn.Transformer:
    """PyTorch's Transformer, norms first, with the weights of `model`, without embeddings and `lm_head`."""
    config = model.config
    how = {"dropout": 0.0, "norm_first": True, "batch_first": True}
    sizes = config.n_embd, config.n_head, 4 * config.n_embd
    layer, norm = nn.TransformerEncoderLayer(*sizes, **how), nn.LayerNorm(config.n_embd)
    encoder = nn.TransformerEncoder(layer, config.n_layer, norm, enable_nested_tensor=False)
    depths = config.n_layer, config.n_layer
    theirs = nn.Transformer(*sizes[:2], *depths, sizes[2], custom_encoder=encoder, **how)
    theirs.to(next(model.parameters()))
    for their_half, our_half in ((theirs.encoder, model.encoder), (theirs.decoder, model.decoder)):
        their_half.norm.load_state_dict(our_half.norm.state_dict())
        for their_layer, our_block in zip(their_half.layers, our_half.blocks, strict=True):
            for their_part, our_part in counterparts(their_layer, our_block):
                copy_weights(their_part, our_part)
    return theirs


def counterparts(theirs: nn.Module, ours: nn.Module) -> Iterator[tuple[nn.Module, nn.Module]]:
    """The parts of a layer of PyTorch's, each with the part of our block that does the same."""
    yield theirs.self_attn, ours.sa
    yield theirs.norm1, ours.ln1
    yield theirs.linear1, ours.ffwd.net[0]
    yield theirs.linear2, ours.ffwd.net[2]
    if isinstance(theirs, nn.TransformerDecoderLayer):
        yield theirs.multihead_attn, ours.ca
        yield theirs.norm2, ours.ln3
        yield theirs.norm3, ours.ln2
    else:
        yield theirs.norm2, ours.ln2


def copy_weights(theirs: nn.Module, ours: nn.Module) -> None:
    """Copy our part's weights into PyTorch's, whose attention stacks q, k and v and gives them a bias."""
    if not isinstance(theirs, nn.MultiheadAttention):
        theirs.load_state_dict(ours.state_dict())
        return
    theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))  # (3C, C)
    theirs.in_proj_bias.zero_()
    theirs.out_proj.load_state_dict(ours.proj.state_dict())
