"""Attention recorded while a host runs is the host's own."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from families import FAMILIES
from secondsight.paths.recorded_attention import AttentionRecorder
from secondsight.support.guard import differentiable, untouched
from towers import assert_close


def recorded(side: Any, tensor: Tensor) -> list:
    with untouched(side.encoder.module), differentiable(), torch.enable_grad(), AttentionRecorder() as recorder:
        side.encoder.features(tensor, side.encoder.depth - 1)
    return recorder.attentions


@pytest.mark.parametrize("family", ["hf-clip", "hf-siglip", "hf-chinese-clip", "st-mpnet-dense"])
def test_recorded_attention_is_what_the_host_gives_out(family):
    example = FAMILIES[family](torch.float32)
    host: Any = example.host[0].auto_model if family.startswith("st-") else example.host
    text = example.model.right.encoder.prepare(example.right[0]).tensor
    tower = getattr(host, "text_model", host)
    seen = recorded(example.model.right, text)
    for part in (host, tower):
        part.set_attn_implementation("eager")
    with torch.no_grad():
        given = tower(input_ids=text, attention_mask=torch.ones_like(text), output_attentions=True).attentions
    assert len(seen) == len(given)
    for attention, wanted in zip(seen, given, strict=True):
        assert_close(attention.probabilities.detach(), wanted, 1e-5)


def test_torchs_own_attention_is_written_out_with_its_masks():
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(12, 3, batch_first=True).double().eval()
    x = torch.randn(1, 5, 12, dtype=torch.float64)
    later = torch.ones(5, 5, dtype=torch.bool).triu(1)
    padding = torch.tensor([[False, False, False, False, True]])
    for options in ({}, {"attn_mask": later}, {"attn_mask": later, "key_padding_mask": padding}):
        wanted, weights = attention(x, x, x, average_attn_weights=False, **options)
        with AttentionRecorder() as recorder:
            found, found_weights = attention(x, x, x, average_attn_weights=False, **options)
            alone, nothing = attention(x, x, x, need_weights=False, **options)
        assert nothing is None
        assert_close(found, wanted, 1e-12)
        assert_close(alone, wanted, 1e-12)
        assert_close(found_weights, weights, 1e-12)
        assert_close(recorder.attentions[0].probabilities, weights, 1e-12)
    with torch.no_grad(), AttentionRecorder() as recorder:
        extended = nn.MultiheadAttention(12, 3, add_bias_kv=True, batch_first=True).double()
        extended(x, x, x)
    assert recorder.attentions == []
