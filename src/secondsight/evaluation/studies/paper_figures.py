"""Every kind of figure that [M25] has, drawn from the records of `paper`, and one page with all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from secondsight.evaluation.experiments.approximation import difference_chart, error_chart
from secondsight.evaluation.experiments.failures import FAILED, FAILURE_LABEL, Failures
from secondsight.evaluation.experiments.perturbation import MEASURES
from secondsight.evaluation.experiments.pointing import Pointing, class_gains
from secondsight.evaluation.report import TEMPLATES, inline_svg, write_bytes
from secondsight.evaluation.run import slug
from secondsight.evaluation.studies.paper_records import Collected, replaced_objects
from secondsight.support.files import ensure_folder
from secondsight.visual import charts
from secondsight.visual.saving import encode_figure

PIXELS = 80
"""Pixels of an inch on the page."""

Figures = dict[str, Figure]
"""Figures by what tells them apart, such as the data and the model."""


@dataclass(frozen=True)
class Kind:
    """A kind of figure: its numbers in the paper, a title, one sentence on what it shows, and how it is drawn."""

    numbers: str
    title: str
    sentence: str
    draw: Callable[[Collected], Figures]

    @property
    def first(self) -> str:
        """The first of its numbers, which names it in links and files."""
        return self.numbers.partition(",")[0]


def _examples(number: str) -> Callable[[Collected], Figures]:
    """The figures of single pairs that have this number."""
    return lambda collected: dict(collected.examples.get(number, {}))


def _perturbation(collected: Collected, *, several: bool) -> Figures:
    records = collected.of("perturbation", several=several)
    if not len(records):
        return {}
    figures = {}
    for name, group in records.groupby(["data", "model"] if several else ["data"], sort=False):
        names = "setting" if several else ["model", "state"]
        panels = {
            f"{measure}: {about.partition(',')[0]}": {
                series: np.asarray(part["curve"].tolist())
                for series, part in group[group.kind == measure].groupby(names, sort=False)
            }
            for measure, about in MEASURES.items()
        }
        shares = [f"share {'inserted' if measure.endswith('I') else 'removed'}" for measure in MEASURES]
        dashes = None if several else charts.BEFORE_AND_AFTER
        label = " ".join([*name, group.state.iloc[-1]] if several else name)
        figures[label] = charts.curve_panels(panels, shares, "similarity", dashes)
    return figures


def energies_before_and_after(collected: Collected) -> Figures:
    """Cumulative PGE of all models by kind of data, dashed before and solid after fine-tuning ([M25] Fig. 5)."""
    figures = {}
    for kind, group in _by(collected.pointing_cases(), "data"):
        series = {name: part.energy.to_numpy() for name, part in group.groupby(["model", "state"], sort=False)}
        label = f"PGE on {kind}: positive attribution in the box"
        figures[kind] = charts.distributions(series, label, dashes=charts.BEFORE_AND_AFTER)
    return figures


def _energies_by_method(collected: Collected) -> Figures:
    records = collected.of("pointing", several=True)
    cases = records[records.kind == "case"] if len(records) else records
    figures = {}
    for kind, group in _by(cases, "data"):
        by_method = group.groupby(["model", "setting"], sort=False)
        series = {name: part.energy.to_numpy() for name, part in by_method}
        figures[kind] = charts.distributions(series, f"PGE on {kind}: positive attribution in the box")
    return figures


def _classes(collected: Collected) -> Figures:
    figures = {}
    for (kind, model), group in _by(collected.pointing_cases(), ["data", "model"]):
        table = Pointing.classes(group.assign(setting=group.state))
        gains = class_gains(group, "state").set_index("class")["standardised difference"].to_dict()
        if table["class"].nunique() > 1:
            figures[f"{kind} {model}"] = charts.class_bars(table, "mean PGE", "sd PGE", gains=gains)
    return figures


def _discrimination(collected: Collected) -> Figures:
    figures = {}
    for (kind, model, state), group in _by(collected.of("discrimination"), ["data", "model", "state"]):
        series = {"own box": group.own.to_numpy(), "other object's box": group.cross.to_numpy()}
        title = f"{model}, {state}"
        figures[f"{kind} {title}"] = charts.histograms(series, "attribution of a phrase to a box", title)
    return figures | _examples("7")(collected)


def _hard_negatives(collected: Collected) -> Figures:
    figures = {}
    for (kind, model, state), group in _by(collected.of("hard-negatives"), ["data", "model", "state"]):
        chosen = replaced_objects(group)
        change = chosen.delta_attribution.astype(float).dropna().to_numpy()
        series = {"δS, similarity": chosen.delta_similarity.to_numpy()}
        series |= {"δA, attribution to the box": change} if len(change) else {}
        title = f"{model}, {state}"
        figures[f"{kind} {title}"] = charts.histograms(series, "wrong caption less right caption", title)
    return figures | _examples("8")(collected)


def _failures(collected: Collected) -> Figures:
    figures = {}
    for kind, group in _by(collected.of("failures"), "data"):
        failed = group[group.energy < FAILED]
        counts = pd.DataFrame(
            {
                f"{model}, {state}": part.category.value_counts().reindex(list(Failures.categories), fill_value=0)
                for (model, state), part in failed.groupby(["model", "state"], sort=False)
            }
        ).T
        if len(counts):
            figures[kind] = charts.stacked_shares(counts, FAILURE_LABEL)
    for name, gallery in collected.failures.items():
        if gallery:
            figures[" ".join(name)] = charts.picture_rows(gallery)
    return figures


def _errors(collected: Collected) -> Figures:
    return {
        f"{kind} {model}": error_chart(group, f"{model} ({kind})")
        for (kind, model), group in _by(_last_state(collected.of("approximation")), ["data", "model"])
    }


def _references(collected: Collected) -> Figures:
    return _examples("21")(collected) | {
        f"{kind} {model}": difference_chart(group, f"{model} ({kind})")
        for (kind, model), group in _by(_last_state(collected.of("approximation")), ["data", "model"])
        if (group.kind == "difference").any()
    }


def _by(records: pd.DataFrame, names: str | list[str]) -> list[tuple[Any, pd.DataFrame]]:
    """Groups of records in their order; none of an empty table."""
    return list(records.groupby(names, sort=False)) if len(records) else []


def _last_state(records: pd.DataFrame) -> pd.DataFrame:
    """Those after fine-tuning where there are any."""
    return records[records.state == records.state.iloc[-1]] if len(records) else records


KINDS = (
    Kind("1", "What is selected, both ways",
         "A phrase selected in the caption shows where the image matches it; a box drawn on the image colours the words that "
         "match what is inside.", _examples("1")),
    Kind("2", "Two texts",
         "The same for two captions: the words of one that match a phrase selected in the other, and all words against all.",
         _examples("2")),
    Kind("3", "Conditional perturbation",
         "Mean similarity (± sd over pairs) while the most attributed features of one input are removed (CID, CTD: the sooner "
         "it falls the better) or inserted (CII, CTI), the other input unchanged; dashed before, solid after fine-tuning.",
         lambda collected: _perturbation(collected, several=False)),
    Kind("17, 18", "Conditional perturbation by method",
         "The same curves of one model for several methods.", lambda collected: _perturbation(collected, several=True)),
    Kind("5, 14, 15", "Cumulative PGE before and after fine-tuning",
         "Share of phrases with at most so much of the positive attribution in the object's box, dashed for unmodified and "
         "solid for fine-tuned models: the further right, the better.", energies_before_and_after),
    Kind("16", "Cumulative PGE by method",
         "The same for several methods on each model, the first solid, the next ones dashed and dotted.",
         _energies_by_method),
    Kind("6, 19", "Grounding by class",
         "Mean PGE ± sd of every class before and after fine-tuning, in the order of the unmodified model; d is the "
         "standardised mean difference.", _classes),
    Kind("7", "Two objects in one image",
         "Attributions of a phrase to its own object's box and to another object's, which should be negative; below them "
         "examples, the own box white and the other one orange.", _discrimination),
    Kind("8", "One wrong word",
         "Change of the similarity (δS) and of the attribution to the object's box (δA) when one object in the caption is "
         "replaced: both should be negative; below them examples.", _hard_negatives),
    Kind("9, 13", "Where grounding fails",
         "Phrases with PGE < 0.2 by proposed category for each model, and the clearest examples of each category.", _failures),
    Kind("11", "Two images",
         "A box in one image and what matches it in another image.", _examples("11")),
    Kind("12", "Methods and phrases",
         "One pair explained by every method (columns) for several phrases (rows), each map on a scale of its own.",
         _examples("12")),
    Kind("20", "Error over the number of steps",
         "|f(a, b) − f(r_a, b) − f(a, r_b) + f(r_a, r_b) − Σ A| over the number of steps for four combinations of references, "
         "mean ± sd over pairs.", _errors),
    Kind("21", "References",
         "Maps of the same phrases under four combinations of references, and the mean absolute difference of attributions "
         "between black with padding and noise with an empty text over the number of steps.", _references),
)  # fmt: skip
"""All kinds, in the page's order."""


def write_figures(folder: Path, collected: Collected, about: str) -> Path:
    """Write figures.html, with every kind that the records allow, and each figure as SVG and PNG under figures/."""
    place = ensure_folder(folder / "figures")
    sections, missing = [], []
    for kind in KINDS:
        drawings = []
        for name, figure in kind.draw(collected).items():
            file = f"{int(kind.first):02d}-{slug(name)}"
            svg = encode_figure(figure, "svg")
            write_bytes(place / f"{file}.svg", svg)
            write_bytes(place / f"{file}.png", encode_figure(figure, "png", 160))
            width = round(PIXELS * float(figure.get_size_inches()[0]))
            drawings.append({"name": name, "file": f"figures/{file}", "svg": inline_svg(svg), "width": width})
        if drawings:
            sections.append({"kind": kind, "drawings": drawings})
        else:
            missing.append(f"{kind.numbers} ({kind.title})")
    page = TEMPLATES.get_template("figures.html.j2").render(
        title="the paper's figures", about=about, sections=sections, missing=missing
    )
    write_bytes(folder / "figures.html", page.encode())
    return folder / "figures.html"
