"""`secondsight search` through documents: sentence encoders with prompts, and late interaction."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch

from families import FAMILIES
from families.late_interaction import LATE
from secondsight.__main__ import main

DOCUMENTS = ("a red cup of coffee", "two dogs play with a ball", "a cat on a wooden table")
QUERY = "a cup on a table"

pytest.importorskip("pyarrow", reason="needs secondsight[scale]")
pytestmark = pytest.mark.filterwarnings("ignore:the model does not know")


@pytest.fixture(params=["st-bert-two-prompts", "st-late-plain", "st-splade"])
def searched(request, tmp_path, monkeypatch, capsys):
    """A saved model, its store of documents, and a function that runs a command: what it printed, and its exit code."""
    name = request.param
    host = LATE[name](torch.float32) if name in LATE else FAMILIES[name](torch.float32).host
    host.save_pretrained(str(tmp_path / "model"))
    (tmp_path / "documents.txt").write_text("\n".join(DOCUMENTS))
    monkeypatch.chdir(tmp_path)

    def run(*arguments, code=0):
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["secondsight", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert ended.value.code == code, printed.err
        return printed

    run("decompose", "--data", "texts:documents.txt", "--model", "st:model", "--out", "store")
    return host, run


def test_documents_come_in_the_order_of_the_models_own_similarity(searched):
    host, run = searched
    expected = host.similarity(host.encode_query(QUERY), host.encode_document(list(DOCUMENTS)))
    printed = run("search", "store/text", QUERY, "--model", "st:model")
    lines = printed.out.splitlines()
    assert lines[0] == "ranked by similarity: how close an entry is to the query"
    order = expected.to_dense()[0].argsort(descending=True).tolist()
    assert [line.split()[2] for line in lines[1:4]] == [str(i + 1) for i in order]
    # A document is named by its text, not only by its line.
    assert all(f"“{DOCUMENTS[i]}”" in line for i, line in zip(order, lines[1:4], strict=True))
    values = [float(line.split()[1]) for line in lines[1:4]]
    # Stores keep half precision.
    assert values == pytest.approx([float(expected.to_dense()[0][i]) for i in order], rel=2e-3, abs=2e-3)


def test_two_documents_are_compared_by_the_words_of_all_three_texts(searched):
    _, run = searched
    printed = run("search", "store/text", QUERY, "--model", "st:model", "--data", "texts:documents.txt",
                  "--compare", "1,2", "--out", "two.html")  # fmt: skip
    assert "by word of the query, sum" in printed.out
    assert "by word of the two, sum" in printed.out
    assert re.search(r"^\d “.*” leads \d “.*” by ", printed.out, re.M)
    page = Path("two.html").read_text()
    assert all(text in page for text in (QUERY, *[d for d in DOCUMENTS if f"“{d}” leads" in printed.out]))
    run("search", "store/text", QUERY, "--model", "st:model", "--data", "texts:documents.txt",
        "--explain", "1", "--out", "hit.html")  # fmt: skip
    assert Path("hit.html").is_file()


def test_the_folder_above_a_store_is_told_from_it(searched):
    _, run = searched
    assert "it holds one, 'store/text'" in run("search", "store", QUERY, "--model", "st:model", code=2).err
