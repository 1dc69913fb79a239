"""Towers of standard blocks run head by head, as the oracle of methods that read attention."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def assert_close(actual: Tensor, expected: Tensor, relative: float = 1e-8) -> None:
    """Differences are at most `relative` times the largest value, which is not 0."""
    assert expected.abs().max() > 0
    assert (actual - expected).abs().max() <= relative * expected.abs().max()


@dataclass
class Tower:
    """The parts of a tower of blocks with norms first, whatever library they come from.

    `start` (position, width) are the states that enter the first block, `finish` maps one position's state to the embedding.
    """

    start: Tensor
    blocks: list[Any]
    heads: int
    pool: int
    finish: Any
    causal: bool = False

    def attend(self, x: Tensor, block: Any) -> dict[str, Any]:
        """Queries, keys, values, and every head's probabilities, as leaves or parts of the graph."""
        q, k, v = block.project(block.norm1(x))
        width = q.shape[1] // self.heads
        probabilities, outputs = [], []
        for head in range(self.heads):
            at = slice(head * width, (head + 1) * width)
            scores = q[:, at] @ k[:, at].T / width**0.5
            if self.causal:
                scores = scores + torch.full_like(scores, -torch.inf).triu(1)
            probabilities.append(scores.softmax(1).requires_grad_())
            outputs.append(probabilities[-1] @ v[:, at])
        output = torch.cat(outputs, 1)
        y = x + block.out(output)
        return {"q": q, "k": k, "v": v, "A": probabilities, "o": output, "y": y + block.mlp(block.norm2(y))}

    def run(self) -> list[dict[str, Any]]:
        """What every block computes."""
        x, computed = self.start, []
        for block in self.blocks:
            computed.append(self.attend(x, block))
            x = computed[-1]["y"]
        return computed


@dataclass
class Block:
    norm1: Any
    project: Any
    out: Any
    norm2: Any
    mlp: Any


def open_clip_block(block: nn.Module) -> Block:
    weights = zip(block.attn.in_proj_weight.chunk(3), block.attn.in_proj_bias.chunk(3), strict=True)
    linear = [(w.detach(), b.detach()) for w, b in weights]
    return Block(
        block.ln_1, lambda x: [F.linear(x, w, b) for w, b in linear], block.attn.out_proj, block.ln_2, block.mlp
    )


def hub_block(layer: nn.Module) -> Block:
    attention = layer.self_attn
    parts = (attention.q_proj, attention.k_proj, attention.v_proj)
    return Block(
        layer.layer_norm1, lambda x: [part(x) for part in parts], attention.out_proj, layer.layer_norm2, layer.mlp
    )


def entering(module: nn.Module, run: Any) -> Tensor:
    """The first argument of a module while the host runs."""
    kept = []
    handle = module.register_forward_pre_hook(
        lambda _, args, kwargs: kept.append((*args, *kwargs.values())[0]), with_kwargs=True
    )
    with torch.no_grad():
        run()
    handle.remove()
    return kept[0][0].detach()


def open_clip_towers(host: nn.Module, image: Tensor, text: Tensor) -> tuple[Tower, Tower]:
    visual, blocks = host.visual, host.transformer.resblocks
    end = int(text[0].argmax())
    return (
        Tower(
            entering(visual.transformer.resblocks[0], lambda: host.encode_image(image)),
            [open_clip_block(block) for block in visual.transformer.resblocks],
            visual.transformer.resblocks[0].attn.num_heads,
            0,
            lambda y: visual.ln_post(y) @ visual.proj,
        ),
        Tower(
            entering(blocks[0], lambda: host.encode_text(text))[: end + 1],
            [open_clip_block(block) for block in blocks],
            blocks[0].attn.num_heads,
            end,
            lambda y: host.ln_final(y) @ host.text_projection,
            causal=True,
        ),
    )


def hub_towers(example: Any, image: Tensor, text: Tensor) -> tuple[Tower, Tower]:
    host = example.host
    vision, words = host.vision_model, host.text_model
    return (
        Tower(
            entering(vision.encoder.layers[0], lambda: host.get_image_features(image)),
            [hub_block(layer) for layer in vision.encoder.layers],
            host.config.vision_config.num_attention_heads,
            0,
            lambda y: host.visual_projection(vision.post_layernorm(y)),
        ),
        Tower(
            entering(words.encoder.layers[0], lambda: host.get_text_features(text)),
            [hub_block(layer) for layer in words.encoder.layers],
            host.config.text_config.num_attention_heads,
            text.shape[1] - 1,
            lambda y: host.text_projection(words.final_layer_norm(y)),
            causal=True,
        ),
    )
