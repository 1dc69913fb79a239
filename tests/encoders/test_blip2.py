"""BLIP-2's image-text contrast, the best of the query tokens, against the library's own logits."""

from functools import cache

import pytest
import torch
import transformers

import secondsight as ss
import vocabularies
from families import CAPTIONS, Pair, photographs
from families.example import resized
from families.hub_more import blip2_host
from secondsight.model import Side
from secondsight.testing import CHECKS, Case

host = cache(blip2_host)
model = cache(lambda dtype: ss.wrap(host(dtype), Pair(resized(32), vocabularies.bert())))


def logits(dtype: torch.dtype, text: str) -> float:
    """The host's own contrast of the first photograph and a text."""
    pixels = resized(32)(images=photographs()[0], return_tensors="pt")["pixel_values"].to(dtype)
    encoding = vocabularies.bert()(text, return_tensors="pt")
    with torch.no_grad():
        return float(host(dtype)(pixels, encoding["input_ids"], encoding["attention_mask"]).logits_per_image)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("layer", ["output", 1, 0, "input"])
def test_the_four_terms_add_up_to_the_hosts_contrast(layer, dtype):
    expected = logits(dtype, CAPTIONS[0])
    e = ss.explain(model(dtype), photographs()[0], CAPTIONS[0], ss.ChainedJacobian(layer=layer))
    precise = 1e-10 if dtype == torch.float64 else 1e-5
    assert e.similarity == pytest.approx(expected, abs=precise)
    assert e.terms.total == pytest.approx(expected, abs=precise)


@pytest.mark.parametrize("check", CHECKS)
def test_every_encoder_with_the_best_query_token_held(check):
    dual = model(torch.float64)
    for side, inputs, choice in ((dual.left, photographs(), [3]), (dual.right, CAPTIONS, [0])):
        CHECKS[check](Case(Side(side.encoder.choosing(torch.tensor(choice)), side.index, False), inputs))


def test_words_have_maps_over_the_image():
    e = ss.explain(model(torch.float64), photographs()[0], CAPTIONS[0], ss.IntegratedJacobian(layer=1))
    assert e["spoon"].shape == (4, 4)
    assert len(e.about["assignment"]) == 1
    with pytest.raises(ss.InputError, match="no embedding of the whole"):
        model(torch.float64).image.embed(photographs())


def test_a_folder_has_the_contrast_or_is_refused(tmp_path):
    host(torch.float32).save_pretrained(tmp_path)
    transformers.Blip2Processor(
        resized(32),
        transformers.PreTrainedTokenizerFast(
            tokenizer_object=vocabularies.bert()._tokenizer,
            pad_token="[PAD]",
            unk_token="[UNK]",
            cls_token="[CLS]",
            sep_token="[SEP]",
        ),
    ).save_pretrained(tmp_path)
    loaded = ss.load(f"hf:{tmp_path}")
    e = ss.explain(loaded, photographs()[0], CAPTIONS[0])
    assert e.similarity == pytest.approx(logits(torch.float32, CAPTIONS[0]), abs=1e-5)
    config = host(torch.float32).config
    config = type(config)(**{**config.to_dict(), "architectures": ["Blip2ForConditionalGeneration"]})
    config.save_pretrained(tmp_path)
    with pytest.raises(ss.InputError, match=r"\(blip-2\) generates text"):
        ss.load(f"hf:{tmp_path}")
