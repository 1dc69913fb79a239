"""A newcomer's first mistakes, in a process whose annotations nobody checks: they work, or one sentence says what to do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import secondsight as ss
from models import clip, pixels, tokens

SUPPORT = Path(__file__).parents[1] / "support"


def run(code: str, *arguments: object) -> dict:
    """What the code printed as JSON, run without the annotations' checks of the tests."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


SWEEP = """
import dataclasses, json, math
import torch
import secondsight as ss
from models import clip, pixels, tokens
model, unclear, tried = ss.wrap(clip()), [], 0
WRONG = ["many", "", [1], {}, {1}, object(), print, b"x", True, None, -1, 0, 2.5, math.nan, math.inf, -math.inf,
         10**30, (1,), (1, 2, 3), ("a", 2.5), (None, object()), torch.ones(2), int, 1 + 2j]
for name, kind in ss.METHODS.items():
    for field in dataclasses.fields(kind):
        for value in WRONG:
            if field.name in ("budget", "samples", "orders", "epochs", "steps", "max_steps", "cells", "pairs", "waypoints"):
                if isinstance(value, int) and value > 2**64:
                    continue
            tried += 1
            try:
                small = {"budget": 16} if name in ("banzhaf",) and field.name != "budget" else {}
                method = kind(**{field.name: value}, **small)
                if name not in ("bilinear-lime", "shapley"):
                    ss.explain(model, pixels(), tokens(), method).terms
            except ss.InputError as problem:
                if "\\n" in str(problem) or len(str(problem)) > 400:
                    unclear.append([name, field.name, repr(value), str(problem)])
            except Exception as problem:
                unclear.append([name, field.name, repr(value), repr(problem)[:200]])
print(json.dumps({"unclear": unclear, "tried": tried}))
"""


def test_options_of_every_method_of_any_type():
    found = run(SWEEP)
    assert found["unclear"] == []
    assert found["tried"] > 1000


CALLS = """
import json, sys
import torch
import secondsight as ss
from families import FAMILIES
from models import clip, pixels, tokens
model = ss.wrap(clip())
e = ss.explain(model, pixels(), tokens())
left, said = model.left, {}
for line in json.loads(sys.argv[1]):
    try:
        said[line] = repr(eval(line))[:50]
    except ss.InputError as problem:
        said[line] = "InputError " + str(problem)
    except Exception as problem:
        said[line] = "FAILED " + repr(problem)[:200]
print(json.dumps(said))
"""

WORDS = {
    "ss.load(None)": "None is not the name of a model",
    "ss.load(3)": "3 is not the name of a model",
    "ss.load('')": "unknown model ''",
    "ss.load(clip())": "ss.wrap takes model objects",
    "ss.load(sys.prefix)": "needs its library before it, such as 'hf:",
    "ss.wrap(clip(), print)": "preprocess= makes NoneType of an image",
    "ss.wrap(clip(), clip().encode_text)": "preprocess= cannot read an image",
    "ss.wrap(clip(), lambda image: torch.zeros(1, 3, 8, 8))": "must give (3, height, width), not (1, 3, 8, 8): give a func",
    "ss.DualEncoder(clip(), clip())": "joins two encoders, and CLIP is none: describe",
    "ss.DualEncoder(left=model.left.encoder, right=model)": "DualEncoder is none",
    "ss.TorchEncoder(clip().visual, 'conv1', tokenizer=print)": "say kind='text'",
    "ss.TorchEncoder(clip().visual, 'conv1', kind='text', preprocess=print)": "say kind='image'",
    "ss.wrap('builtin')": "load a name with ss.load",
    "ss.wrap(FAMILIES['st-static'](torch.float32).host, prompts={'query': 'a', 'document': 'b'})": "must be two",
    "ss.wrap(None)": "cannot wrap NoneType",
    "ss.explain(None, pixels(), tokens())": "None is not a model",
    "ss.explain(clip(), pixels(), tokens())": "wrap it first",
    "ss.explain(model, pixels(), tokens(), 3)": "3 is not a method",
    "ss.explain(model, pixels(), tokens(), ss)": "is not a method",
    "ss.explain(model, pixels(), tokens(), '')": "unknown method ''",
    "ss.explain(model, pixels(), tokens(), ss.explain)": "is not a method",
    "ss.explain(model, pixels(), tokens(), 'banzhaf:budget')": "'budget' is not NAME=VALUE",
    "ss.explain(model, pixels(), tokens(), 'banzhaf:budget=many')": "budget='many' must be a whole number or None",
    "ss.explain(model, pixels(), tokens(), scale=3)": "unknown scale 3",
    "ss.explain(model, pixels(), tokens(), scale=['logit'])": "unknown scale",
    "ss.explain(model, pixels(), None)": "cannot use NoneType as a text",
    "ss.explain(model, None, tokens())": "came without preprocessing",
    "ss.explain(model, pixels(), tokens(), against=[])": "names no rival",
    "left.contributions(pixels(), 3)": "3 is not a method",
    "left.contributions(3)": "give a list, not int",
    "ss.Banzhaf(budget='many')": "budget='many' must be a whole number or None",
    "ss.Banzhaf(budget=2.5)": "budget=2.5 must be a whole number or None",
    "ss.Banzhaf(p='half')": "p='half' must be a number",
    "ss.Banzhaf(prior='last-layer')": "must be a method, True or False or None",
    "ss.ChainedJacobian(cells='2')": "cells='2' must be",
    "ss.IntegratedJacobian(steps=True)": "steps=True must be a whole number or None",
    "ss.IntegratedJacobian(tol=float('nan'))": "finite",
    "ss.IntegratedJacobian(seed=2**70)": "is too large",
    "ss.IntegratedJacobian(reference=3)": "must be the name of a reference",
    "ss.IntegratedJacobian(quadrature=None)": "quadrature=None must be a name",
    "ss.IntegratedJacobian(layer=None)": "layer=None must be",
    "e.box((1, 2, 3))": "box (1, 2, 3) is not four numbers",
    "e.box('1,2,3,4')": "is not four numbers",
    "e.box(1)": "box 1 is not four numbers",
    "e.box()": "box () is not four numbers",
    "e.box(0, 0, float('inf'), 9)": "no finite number",
    "e.box(0, 0, float('nan'), 9)": "is empty",
    "e.T[(0, 0, float('inf'), 9)]": "no finite number",
    "e[None, None]": "cannot",
    "e[1.5]": "cannot select 1.5",
    "e[{}]": "cannot select {}",
    "e.heatmap('dog')": "use token indices",
    "e.save(3)": "cannot write 3",
    "e.save('e.txt')": "must end in .html",
}


def test_mistakes_get_a_sentence_that_names_them():
    said = run(CALLS, json.dumps(list(WORDS)))
    wrong = {
        line: said[line]
        for line, words in WORDS.items()
        if not (said[line][:10] == "InputError" and words in said[line])
    }
    assert wrong == {}


def test_names_work_as_they_do_on_the_command_line():
    model = ss.wrap(clip())
    assert ss.explain(model, pixels(), tokens(), "banzhaf:budget=16,seed=3").about["method"] == "banzhaf"
    assert ss.explain(model, pixels(), tokens(), ss.Occlusion).about["method"] == "occlusion"
    named = ss.explain(model, pixels(), tokens(), "integrated-jacobian:layer=1/input,steps=4")
    built = ss.explain(model, pixels(), tokens(), ss.IntegratedJacobian(layer=(1, "input"), steps=4))
    assert named.matrix.equal(built.matrix)
    assert ss.IntegratedJacobian(layer="1/input").layer == (1, "input")
    assert ss.IntegratedJacobian(layer="-1").layer == -1
    assert ss.IntegratedJacobian(layer=("0", "grounded")).layer == (0, "grounded")
    with pytest.raises(ss.InputError, match="layer 'middle' is not one of this"):
        ss.explain(model, pixels(), tokens(), ss.IntegratedJacobian(layer="middle"))


def test_a_model_of_a_name_is_loaded_once():
    from secondsight.encoders.registry import as_model

    assert as_model("scenes") is as_model("scenes")
    photo = Path(__file__).parents[2] / "examples" / "coffee.jpg"
    e = ss.explain("scenes", photo, "a red cup")
    assert e.model == "scenes"
    corners = (0, 0, 300, 200)
    assert e.box(corners) == e.box(*corners) == e.box(list(corners))


def test_words_that_the_model_does_not_know_are_named(builtin):
    with pytest.warns(UserWarning, match="does not know '😀' of the text"):
        builtin.right.prepare(["a dog 😀 on grass"])


def test_known_words_get_no_warning(builtin, recwarn):
    builtin.right.prepare(["a dog on grass"])
    assert [str(w.message) for w in recwarn if "does not know" in str(w.message)] == []


def test_the_json_names_every_term_and_scores_every_word(tmp_path):
    e = ss.explain("scenes", Path(__file__).parents[2] / "examples" / "coffee.jpg", "a red cup")
    e.save(tmp_path / "e.json")
    data = json.loads((tmp_path / "e.json").read_text())
    assert [data[k] for k in ("base", "image_alone", "text_alone", "interaction")] == list(data["terms"].values())
    assert [(w["word"], w["score"]) for w in data["words"]["right"]] == e.words
    assert [(w["start"], w["end"]) for w in data["words"]["right"]] == [(0, 1), (2, 5), (6, 9)]
    assert list(data["words"]) == ["right"]


def test_a_link_is_written_through(tmp_path):
    from secondsight.support.files import atomic

    (tmp_path / "far").mkdir()
    link, target = tmp_path / "link.json", tmp_path / "far" / "numbers.json"
    for present in (False, True):
        if not present:
            link.symlink_to(target)
        with atomic(link) as file:
            file.write(b"%d" % present)
        assert link.is_symlink()
        assert target.read_bytes() == b"%d" % present
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ss.InputError, match="leads back to itself"), atomic(tmp_path / "loop"):
        pass


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["methods"], ["explain", "a dog", "a cat", "--model", "scenes", "--json", "-"]])
def test_a_full_disk_gets_a_sentence(arguments):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "secondsight", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: the output cannot be written (no space left on device): send it somewhere else\n"


def test_no_advice_to_run_code_from_a_checkpoint(tmp_path):
    import pickle

    (tmp_path / "model.pt").write_bytes(pickle.dumps(print))
    with pytest.raises(ss.InputError) as problem:
        ss.load(f"open_clip:ViT-B-32/{tmp_path / 'model.pt'}")
    assert "weights_only" not in str(problem.value)
    assert "safetensors" in str(problem.value)


def test_an_option_of_the_wrong_type_on_the_command_line():
    arguments = ["explain", "a dog", "a cat", "--model", "scenes", "--method", "banzhaf", "--option", "budget=many"]
    command = [sys.executable, "-m", "secondsight", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (2, "error: budget='many' must be a whole number or None\n")


def test_a_file_is_no_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("passage.txt").write_text("Fever is a sign of influenza.")
    Path("page.png").write_bytes(b"")
    Path("fever").write_text("")
    model = ss.load("scenes")
    with pytest.raises(ss.InputError, match=r"'passage.txt' is a file, where the model reads a text: .*read_text\(\)"):
        ss.explain(model, "a red star", "passage.txt")
    with pytest.raises(ss.InputError, match=r"'page.png' is a file, .* no side for files"):
        ss.explain(model.pair("text", "text"), "a red star", "page.png")
    assert ss.explain(model, "a red star", "fever").right_input == "fever"


def test_a_word_of_the_other_side_is_said_to_be_there():
    e = ss.explain("scenes", "a red star", "a blue square")
    with pytest.raises(ss.InputError, match="'star' is not in the text; .*; the other side has it: e.T exchanges the"):
        e["star"]
    assert float(e.T["star"].sum()) == pytest.approx(dict(e.T.words)["star"], rel=1e-5)
    with pytest.raises(ss.InputError, match=r"its words are 'a', 'blue', 'square'$"):
        e["moon"]
