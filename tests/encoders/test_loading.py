"""Models by name: from local folders as the libraries save them, or one sentence that says what is wrong."""

import numpy as np
import pytest
import torch
import transformers

import secondsight as ss
from families import FAMILIES, Example, save_hub

# DPR is saved as two models.
HUB = [name for name in FAMILIES if name.startswith("hf-") and name != "hf-dpr"]
SENTENCES = [name for name in FAMILIES if name.startswith("st-")]


def same(model: ss.DualEncoder, example: Example) -> None:
    assert torch.allclose(model.left.embed(example.left), example.model.left.embed(example.left), atol=1e-6)
    # Ids, because a tokenizer of a few words may come back from disk as its family's usual class with other rules.
    ids = [example.model.right.encoder.prepare(text).tensor for text in example.right]
    assert torch.allclose(model.right.embed(ids), example.model.right.embed(ids), atol=1e-6)
    assert torch.isfinite(model.right.embed(["a cup"])).all()


@pytest.mark.parametrize("name", HUB)
def test_a_folder_of_transformers(tmp_path, name):
    example = FAMILIES[name](torch.float32)
    save_hub(example, tmp_path)
    model = ss.load(f"hf:{tmp_path}")
    same(model, example)
    assert model.logit_scale == pytest.approx(example.model.logit_scale) if example.model.logit_scale else True


@pytest.mark.parametrize("name", SENTENCES)
def test_a_folder_of_sentence_transformers(tmp_path, name):
    example = FAMILIES[name](torch.float32)
    example.host.save(str(tmp_path))
    model = ss.load(f"st:{tmp_path}")
    assert model.cosine == example.model.cosine
    same(model, example)


def test_what_cannot_be_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr("socket.getaddrinfo", lambda *_: (_ for _ in ()).throw(OSError("no network")))
    for prefix in ("hf", "st"):
        for name, words in (
            ("", "needs a hub name or a local folder"),
            ("./nowhere", "'./nowhere' does not exist"),
            (str(tmp_path), "has no"),
            ("someone/something", "cannot be reached: use a local folder"),
        ):
            with pytest.raises(ss.InputError, match=words):
                ss.load(f"{prefix}:{name}")
    transformers.BertConfig(num_hidden_layers=1).save_pretrained(tmp_path)
    with pytest.raises(ss.InputError, match=r"\(bert\) is one text encoder: .*ss.load\('st:"):
        ss.load(f"hf:{tmp_path}")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ss.InputError, match="cannot be loaded"):
        ss.load(f"hf:{tmp_path}")


def test_a_folder_keeps_the_users_random_state(tmp_path):
    example = FAMILIES["st-minilm-mean"](torch.float32)
    example.host.save(str(tmp_path))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    ss.load(f"st:{tmp_path}")
    assert torch.equal(before, torch.get_rng_state())


# Sound --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clap() -> Example:
    return FAMILIES["hf-clap"](torch.float64)


def test_sound_from_files_arrays_and_other_rates(clap, tmp_path):
    soundfile = pytest.importorskip("soundfile", reason="the package soundfile reads sound files")
    sound = 0.5 * clap.left[0]
    soundfile.write(tmp_path / "a.wav", sound, 8000, subtype="DOUBLE")
    stereo = np.stack([sound, sound], 1)
    expected = clap.model.left.embed([sound])
    for raw in (tmp_path / "a.wav", str(tmp_path / "a.wav"), stereo, (sound, 8000)):
        assert torch.allclose(clap.model.left.embed([raw]), expected, atol=1e-6), type(raw)
    rounded = clap.model.left.embed([(sound * 32767).astype(np.int16)])
    assert torch.cosine_similarity(rounded, expected).item() > 0.999
    # A tone has the same spectrogram whatever rate it was taken at.
    tone = [np.sin(2 * np.pi * 440 * np.arange(n) / n) for n in (8000, 16000)]
    a, b = clap.model.left.embed([tone[0], (tone[1], 16000)])
    assert torch.cosine_similarity(a, b, dim=0) > 0.999


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("no.wav", "does not exist"),
        (__file__, "cannot be read as sound"),
        (np.zeros((4, 4, 4)), "are not a sound"),
        (np.full(100, np.nan), "NaN"),
        ((np.zeros(100), 0), "the sampling rate must be positive, not 0 Hz"),
        (np.zeros(80000), "lasts 10.0 s, the model hears 1 s"),
        (torch.zeros(1, 7, 3, 3), "not a model-ready sound"),
        (3.5, "cannot use float as sound"),
    ],
)
def test_sound_that_cannot_be_used(clap, raw, words):
    with pytest.raises(ss.InputError, match=words):
        clap.model.left.embed([raw])


def test_sound_is_explained_over_time_and_frequency(clap):
    e = ss.explain(clap.model, clap.left[1], clap.right[0], ss.IntegratedJacobian(layer=0, steps=8))
    bands, frames = e.left_layout.grid
    assert e["spoon"].shape == (bands, frames)
    assert e.left_layout.seconds == 1.0
    halves = [e.toward_right((0.0, 0.5)), e.toward_right((0.5, 1.0))]
    assert torch.allclose(halves[0] + halves[1], e.toward_right(None))
    # The first half of the frames is the first half of the time, in every band.
    assert torch.equal(
        e.left_layout.view(e.left_layout.select((0.0, 0.5))),
        torch.ones(bands, frames) * (torch.arange(frames) < frames // 2),
    )
    assert e.terms.audio == e.terms.left
    for bad, words in (
        ((0.5, 0.2), "start less than end"),
        ((2.0, 3.0), "outside the sound"),
        ("dog", "cannot select"),
    ):
        with pytest.raises(ss.InputError, match=words):
            e.toward_right(bad)


def test_a_change_in_one_cell_of_the_spectrogram_appears_where_it_was_made(clap):
    """The model's folding of time into a square is undone: a change late in time appears late, a high one high."""
    prepared = clap.model.left.encoder.prepare(clap.left[1])
    frames, bands = prepared.tensor.shape[-2:]
    changed = prepared.tensor.clone()
    changed[..., int(0.8 * frames) : int(0.9 * frames), : bands // 4] += 5.0
    method = ss.IntegratedJacobian(layer="input", steps=4, reference=(changed, None))
    e = ss.explain(clap.model, prepared.tensor, clap.right[0], method)
    grid = e[None].abs()
    assert grid.sum() > 0
    moved = grid > 1e-9 * grid.max()
    assert moved[:, : int(0.75 * grid.shape[1])].sum() == 0
    assert moved[grid.shape[0] // 3 :].sum() == 0
