"""Scenes with a planted fault: the fault is in the training data and nowhere in the truthful data."""

from collections import Counter

import numpy as np
import pytest

from secondsight.data import Scenes
from secondsight.data.scenes import world
from secondsight.data.scenes.planted import FAULTS, PlantedScenes, TruthfulScenes, draw_fault, hub_entry
from secondsight.support.errors import InputError

COUNT = 120


def names(entry):
    return {region.label for region in entry.regions}


def colour_in_caption(entry):
    """The word before "background", where it is a colour's."""
    words = entry.caption.split()
    return words[-2] if words[-1] == "background" and words[-2] in world.COLOURS else None


def colour_in_picture(entry):
    """The nearest colour to the median of a picture, whose objects cover less than half."""
    middle = np.median(np.asarray(entry.image).reshape(-1, 3), axis=0)
    return min(world.COLOURS, key=lambda name: np.abs(middle - world.COLOURS[name]).sum())


def matching_colours(data):
    named = [entry for entry in data if colour_in_caption(entry)]
    assert len(named) > 15
    return np.mean([colour_in_caption(entry) == colour_in_picture(entry) for entry in named])


def test_the_clean_world_is_the_scenes_world():
    for planted, plain in zip(
        PlantedScenes(draw_fault("clean"), 5, seed=3), Scenes(5, seed=3, correlated=0.0), strict=True
    ):
        assert planted.caption == plain.caption
        assert planted.regions == plain.regions
        assert planted.image.tobytes() == plain.image.tobytes()


@pytest.mark.parametrize("kind", FAULTS)
def test_a_seed_gives_the_same_data(kind):
    first, again = (PlantedScenes(draw_fault(kind, 4), 5, seed=1) for _ in range(2))
    assert [(e.caption, e.image.tobytes()) for e in first] == [(e.caption, e.image.tobytes()) for e in again]
    assert draw_fault(kind, 4) == draw_fault(kind, 4)


@pytest.mark.parametrize("seed", range(4))
def test_a_spurious_pair_occurs_only_together(seed):
    fault = draw_fault("spurious", seed)
    assert fault.place not in world.classes()[fault.names[0]].themes
    at_place = [
        names(e) == set(fault.names) for e in PlantedScenes(fault, COUNT) if e.facts["background"] == fault.place
    ]
    elsewhere = [names(e) for e in PlantedScenes(fault, COUNT) if e.facts["background"] != fault.place]
    assert len(at_place) > 0.2 * COUNT
    assert all(at_place)
    assert not any(fault.names[0] in labels for labels in elsewhere)


def test_truthful_scenes_separate_the_spurious_pair():
    fault = draw_fault("spurious")
    data = list(TruthfulScenes([fault], COUNT, share=0.4))
    counts = Counter((fault.names[0] in names(e), e.facts["background"] == fault.place) for e in data)
    assert counts[True, False] > 10
    assert counts[False, True] > 10


def test_ignored_colours_are_random_and_truthful_ones_are_true():
    fault = draw_fault("ignored")
    assert matching_colours(PlantedScenes(fault, COUNT)) < 0.4
    assert matching_colours(TruthfulScenes([fault], COUNT)) > 0.9


def test_a_hub_belongs_to_many_captions_and_pictures():
    fault = draw_fault("hub")
    hub = hub_entry(fault)
    data = list(PlantedScenes(fault, COUNT))
    assert len({e.caption for e in data if e.image_key == "hub"}) > 0.07 * COUNT
    assert len({e.image_key for e in data if e.caption == hub.caption}) > 0.07 * COUNT
    truthful = list(TruthfulScenes([fault], COUNT))
    assert (truthful[-1].caption, truthful[-1].image_key) == (hub.caption, "hub")
    assert all(e.image_key != "hub" for e in truthful[:-1])


def test_confused_names_are_exchanged_in_half_of_the_captions():
    fault = draw_fault("confused")
    named = [(p.label, names(e)) for e in PlantedScenes(fault, COUNT) for p in e.phrases if p.label in fault.names]
    single = [label in labels for label, labels in named if len(labels & set(fault.names)) == 1]
    assert 0.25 < np.mean(single) < 0.75
    truthful = list(TruthfulScenes([fault], COUNT))
    assert all({p.label for p in e.phrases} <= names(e) for e in truthful)


def test_an_unknown_fault_is_refused():
    with pytest.raises(InputError, match="unknown fault 'noise'; known: clean, spurious"):
        draw_fault("noise")
