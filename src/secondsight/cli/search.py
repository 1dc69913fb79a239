"""`secondsight search`: rank a store by a query, say why, open a hit as an explanation, compare two."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from secondsight.cli.common import Device, check_writable, err, out, plain_errors, print_written, spinner
from secondsight.cli.edits import How, check_edit, parsed_selections, print_places
from secondsight.cli.scale import StoreFolder
from secondsight.support.errors import InputError

if TYPE_CHECKING:
    from secondsight.model import DualEncoder
    from secondsight.scale import Hit, Lead, OrdinaryQueries, Store

_PAGE = (".html",)

_BEGINNING = 60
"""Characters of a text that stand for it."""


def search(
    store: StoreFolder,
    query: Annotated[str, typer.Argument(help="What to look for: a text in quotes, or an image for stores of texts.")],
    model: Annotated[str, typer.Option(help="The store's model, for the query.")] = "builtin",
    k: Annotated[int, typer.Option("-k", help="How many.", min=1)] = 5,
    rank: Annotated[
        str | None,
        typer.Option(
            help="similarity, or above-usual: less the entry's mean similarity to ordinary captions, so that entries that are "
            "close to every caption do not come first. Default: above-usual where a text searches pictures or sounds."
        ),
    ] = None,
    captions: Annotated[
        Path | None,
        typer.Option(help="Your own ordinary captions, one a line, or a folder of photographs if the query is one."),
    ] = None,
    compare: Annotated[str | None, typer.Option(help="Two ranks, such as 1,2: why the first leads the second.")] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(help="Words of the query to leave out; may be repeated. For a photograph x0,y0,x1,y1."),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Really leave --without out and encode again: ranks by both.")
    ] = False,
    how: How = "deleted",
    explain: Annotated[int | None, typer.Option(help="A rank: explain that hit anew; writes --out.", min=1)] = None,
    data: Annotated[
        str | None, typer.Option(help="What the store was made of, such as photos:FOLDER, to show its photographs.")
    ] = None,
    out_file: Annotated[Path | None, typer.Option("--out", help="A page (.html) of --explain or --compare.")] = None,
    device: Device = None,
    precision: Annotated[str | None, typer.Option(help="As the store's: float32, bf16 or fp16.")] = None,
) -> None:
    """The entries of a store that match a query best, why each does, and which words carry the ranking."""
    with plain_errors():
        ranks = None if compare is None else _parse_ranks(compare)
        _check_options(rank, ranks, explain, out_file)
        check_edit(without, verify)
        with spinner("loading libraries"):
            from secondsight.algebra.edit import described
            from secondsight.encoders.registry import load
            from secondsight.scale import open_store
            from secondsight.scale import search as best_matches
            from secondsight.scale.place import move_model
            from secondsight.scale.query import edited_query, query_of, query_side
            from secondsight.scale.search import edited_ranking
        opened = open_store(store)
        with spinner(f"loading {model}"):
            dual = move_model(load(model), device, precision)
        by_text = query_side(opened, dual, query).kind == "text"
        ordinary = None
        # A collection of texts is ranked as its model ranks it; captions of scenes are no usual queries there.
        usual = by_text and opened.facts["side"] != "text" and rank != "similarity"
        if dual.factorises and (usual or captions is not None or rank == "above-usual"):
            with spinner("measuring the usual similarities"):
                ordinary = _ordinary(opened, dual, captions, by_text)
        elif not dual.factorises and (captions is not None or rank == "above-usual"):
            raise InputError("a late-interaction model has no usual similarities: use --rank similarity")
        used_rank = rank or ("similarity" if ordinary is None else "above-usual")
        most = max(k, *(ranks or ()), explain or 0)
        removed = None if without is None else parsed_selections(without, by_text)
        encoded = query_of(opened, dual, query)
        hits = best_matches(opened, encoded, most, without=removed, rank=used_rank, ordinary=ordinary)
        _print_hits(hits[:k], used_rank)
        if removed is not None:
            measured = edited_query(opened, dual, query, removed, how)[1] if verify else None
            places = edited_ranking(opened, encoded, removed, k, measured=measured, rank=used_rank, ordinary=ordinary)
            print_places(places, described(encoded.layout, removed))
        if ranks is not None:
            _print_lead(_hit(hits, ranks[0]).compare(_hit(hits, ranks[1])))
        _write_page(opened, dual, hits, query, ranks, explain, data, out_file)
        if explain is None and data is not None:
            _print_command(opened, hits[0], query, model, data)


def _parse_ranks(text: str) -> tuple[int, int]:
    numbers = [int(part) for part in text.split(",") if part.strip().isdigit()]
    if len(numbers) != 2 or text.count(",") != 1 or min(numbers) < 1 or numbers[0] == numbers[1]:
        raise InputError(f"--compare {text!r} is not two different ranks such as 1,2")
    return numbers[0], numbers[1]


def _check_options(rank: str | None, ranks: tuple[int, int] | None, explain: int | None, out_file: Path | None) -> None:
    """Refuse what cannot work before any model loads."""
    if rank not in (None, "similarity", "above-usual"):
        raise InputError(f"unknown --rank {rank!r}; known: similarity, above-usual")
    if explain is not None and ranks is not None:
        raise InputError("--explain and --compare write one page: give one of them")
    if explain is not None and out_file is None:
        raise InputError("--explain needs --out FILE.html, the page to write")
    if out_file is not None and explain is None and ranks is None:
        raise InputError("--out needs --explain RANK or --compare RANK,RANK")
    check_writable(out_file, _PAGE, "--out")


def _ordinary(store: Store, dual: DualEncoder, captions: Path | None, by_text: bool) -> OrdinaryQueries:
    from secondsight.scale import open_source, ordinary_queries

    if captions is None and not by_text:
        raise InputError("--rank above-usual for a photograph needs --captions FOLDER with ordinary photographs")
    if captions is None:
        with warnings.catch_warnings():
            # What the model does not know of the package's own captions is nobody's concern.
            warnings.simplefilter("ignore")
            return ordinary_queries(store, dual)
    if captions.is_dir() == by_text:
        needed = "a text file with a caption a line" if by_text else "a folder of photographs"
        raise InputError(f"--captions {str(captions)!r} must be of the query's kind: {needed}")
    kind = "texts" if by_text else "photos"
    source = open_source(f"{kind}:{captions}", "text" if by_text else "image")
    return ordinary_queries(store, dual, [source.read(i) for i in range(len(source))])


def _hit(hits: Sequence[Hit], rank: int) -> Hit:
    if rank > len(hits):
        raise InputError(f"there is no hit {rank}: the store has {len(hits)} entries")
    return hits[rank - 1]


def _print_hits(hits: Sequence[Hit], rank: str) -> None:
    from secondsight.scale.search import RANKINGS, words_of_ranking

    out.print(f"ranked by {rank}: {RANKINGS[rank]}", soft_wrap=True)
    for number, hit in enumerate(hits, 1):
        _print_hit(number, hit)
    if len(hits) > 1 and hits[0].query.layout.words:
        scores = words_of_ranking(hits)
        out.print("words above the rest: " + ", ".join(f"{w} {v:+.4f}" for w, v in scores), soft_wrap=True)


def _print_hit(number: int, hit: Hit) -> None:
    from secondsight.algebra.layout import word_scores

    line = Text.assemble((f"{number:3} {hit.score:+.4f} ", "bold"), hit.key)
    line.append(_beginning(hit))
    if hit.usual is not None and hit.taken_off is not None:
        line.append(f"  similarity {hit.similarity:+.4f}, usually {hit.usual.similarity:+.4f}")
    if hit.usual is not None and hit.usual.hub:
        line.append(f"  close to most captions (rank {hit.usual.rank} of {hit.usual.entries})", "yellow")
    pair = hit.pair
    if pair.right_layout.words:
        scores = word_scores(pair.right_layout, pair.toward_right(None))
        line.append("  " + ", ".join(f"{word} {value:+.3f}" for word, value in scores), "dim")
    out.print(line, soft_wrap=True)


def _beginning(hit: Hit) -> str:
    """The beginning of an entry's text; nothing for other entries, whose keys are names of files."""
    text = hit.entry.layout.text
    return f" “{shorten(text, _BEGINNING, placeholder='…')}”" if text else ""


def _print_lead(lead: Lead) -> None:
    hits = (lead.first, lead.second)
    first, second = (hit.key + _beginning(hit) for hit in hits)
    out.print(lead.sentence((first, second)), soft_wrap=True)
    keys = [hit.key for hit in hits]
    titles = (
        ("by word of the query", "by word of the two") if lead.first.entry.layout.words else ("by word", "by region")
    )
    for title, parts in zip(titles, (lead.by_word, lead.by_region), strict=True):
        out.print(f"{title}, sum {lead.value:+.4f}:")
        for part in parts:
            place = part.name if part.entry is None else f"{part.name} of {keys[part.entry]}"
            # A column of zeros explains nothing; what is left out is below a unit of the last digit.
            if abs(part.value) >= 5e-5:
                out.print(f"  {part.value:+.4f} {place}", soft_wrap=True)


def _write_page(
    store: Store,
    dual: DualEncoder,
    hits: Sequence[Hit],
    query: str,
    ranks: tuple[int, int] | None,
    explain: int | None,
    data: str | None,
    out_file: Path | None,
) -> None:
    """The page of --explain or of --compare."""
    if out_file is None:
        return
    from secondsight.explanation import explain as explain_pair
    from secondsight.explanation import with_inputs

    if explain is not None:
        hit = _hit(hits, explain)
        raw = _read_entry(store, hit.key, data)
        # Of a query side and a document side that take the same kind, the left one is the query's.
        queries_first = dual.left.kind == dual.right.kind and dual.left.name != dual.right.name
        inputs = (query, raw) if queries_first else (raw, query)
        # The store has long texts cut as well.
        explain_pair(dual.fitting(*inputs), *inputs, truncate=True).save(out_file)
    elif ranks is not None:
        pair = [_hit(hits, rank) for rank in ranks]
        displays = tuple(_display(store, hit.key, data) for hit in pair)
        margin = pair[0].above(pair[1])
        about = {**margin.about, "model": dual.name, "method": store.facts["method"]["name"]}
        with_inputs(replace(margin, about=about), displays, query).save(out_file)
    print_written(out_file)


def _read_entry(store: Store, key: str, data: str | None) -> Any:
    """The input of that key: of `data`, or a file of that name."""
    from secondsight.scale import open_source

    if data is None:
        if Path(key).is_file():
            return key
        raise InputError(f"{key!r} is no file here: give --data with what the store was made of, such as photos:FOLDER")
    source = open_source(data, store.facts["side"])
    if key not in source.keys:
        raise InputError(f"--data {data!r} has no {key!r}: give what the store was made of")
    return source.read(list(source.keys).index(key))


def _display(store: Store, key: str, data: str | None) -> Any:
    from secondsight.inputs.images import open_image

    raw = _read_entry(store, key, data)
    return open_image(raw) if store.facts["side"] == "image" and isinstance(raw, (str, Path)) else raw


def _print_command(store: Store, hit: Hit, query: str, model: str, data: str) -> None:
    """How to look at the first hit."""
    raw = _read_entry(store, hit.key, data)
    if isinstance(raw, Path):
        command = ["secondsight", "explain", str(raw), query, "--model", model, "--out", "hit.html"]
    else:
        command = ["secondsight", "search", str(store.folder), query, "--model", model, "--data", data]
        command += ["--explain", "1", "--out", "hit.html"]
    err.print(f"explain the first: {shlex.join(command)}", soft_wrap=True)
