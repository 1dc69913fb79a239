"""Faithfulness and joint perturbation against enumeration of all masks; collages that name their objects."""

import dataclasses
import math
from itertools import combinations, product

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

import secondsight as ss
from captions import write_data
from models import small
from secondsight.data import GroundedCaption, Jsonl, Phrase, Region
from secondsight.data.grounded import ListedDataset
from secondsight.evaluation import evaluate, measures, settings
from secondsight.evaluation.experiments.collage import Collage, name_objects
from secondsight.evaluation.experiments.faithfulness import Faithfulness
from secondsight.evaluation.experiments.joint_perturbation import JointPerturbation, greedy_sets, kept_sets
from secondsight.evaluation.experiments.masking import (
    ExplainedGame,
    actual_similarities,
    explained_game,
    input_games,
)
from secondsight.methods.mask_regression import all_masks, banzhaf_weights, bernoulli_masks, fit_masks, shapley_masks

KERNELS = ("p=0.3", "p=0.5", "p=0.7", "shapley")


@pytest.fixture(scope="module")
def model():
    """Four patches and five words: 512 pairs of masks in all."""
    return small(16)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("captions"))


@pytest.fixture(scope="module")
def games(model, data):
    (setting,) = settings([("small", model)])
    return input_games(setting, Jsonl(data)[0], 0)


def every_mask(games):
    """All pairs of masks."""
    left, right = (all_masks(game.players) for game in games)
    return left.repeat_interleave(len(right), 0), right.repeat(len(left), 1)


def kernel_weight(kernel, joint):
    """A kernel's weight of one mask of both sides' players, from its formula."""
    n, k = len(joint), int(joint.sum())
    if kernel == "shapley":
        return 0.0 if k in (0, n) else 1 / (math.comb(n, k) * k * (n - k))
    p = float(kernel.removeprefix("p="))
    return p**k * (1 - p) ** (n - k)


def weighted_r_squared(predicted, actual, weights):
    """The definition, value by value."""
    total = sum(weights)
    mean = sum(w * a for w, a in zip(weights, actual, strict=True)) / total
    missed = sum(w * (a - p) ** 2 for w, a, p in zip(weights, actual, predicted, strict=True))
    return 1 - missed / sum(w * (a - mean) ** 2 for w, a in zip(weights, actual, strict=True))


def test_measures_on_arrays():
    actual, predicted = [1.0, 2.0, 4.0, 3.0], [1.5, 1.0, 5.0, 3.0]
    assert measures.r_squared(actual, actual) == 1
    assert measures.r_squared([2.5] * 4, actual) == 0
    assert measures.r_squared(predicted, actual) == pytest.approx(1 - 2.25 / 5)
    weights = [1.0, 2.0, 0.5, 3.0]
    assert measures.r_squared(predicted, actual, weights) == pytest.approx(
        weighted_r_squared(predicted, actual, weights), abs=1e-12
    )
    # Counting a value twice is giving it the weight 2.
    twice = measures.r_squared([*predicted, predicted[1]], [*actual, actual[1]])
    assert measures.r_squared(predicted, actual, [1, 2, 1, 1]) == pytest.approx(twice, abs=1e-12)
    # Raw predictions: a wrong scale costs R², and no correlation.
    assert measures.r_squared([10 * a for a in actual], actual) < -100
    assert measures.kendall_correlation([10 * a for a in actual], actual) == pytest.approx(1)
    ordered = [np.sign((a - b) * (c - d)) for (a, c), (b, d) in combinations(zip(predicted, actual, strict=True), 2)]
    assert measures.kendall_correlation(predicted, actual) == pytest.approx(sum(ordered) / 6)
    assert measures.rank_correlation(predicted, actual) == pytest.approx(stats.spearmanr(predicted, actual)[0])
    assert math.isnan(measures.r_squared(actual, [1.0] * 4))
    assert math.isnan(measures.kendall_correlation([1.0] * 4, actual))
    with pytest.raises(ss.InputError, match="same length"):
        measures.r_squared([1.0, 2.0], [1.0])


def test_shapley_masks_follow_the_kernel():
    masks = shapley_masks(6, 40_000, seed=1)
    assert masks.shape == (40_000, 6)
    assert torch.equal(masks[0::2], ~masks[1::2])
    sizes = torch.bincount(masks.sum(1), minlength=7).double() / len(masks)
    expected = torch.tensor([0, *(1 / (k * (6 - k)) for k in range(1, 6)), 0], dtype=torch.float64)
    assert torch.allclose(sizes, expected / expected.sum(), atol=0.01)
    # All subsets of a size are alike: of the fifteen pairs, each is a fifteenth.
    pairs = masks[masks.sum(1) == 2]
    counts = torch.tensor([float((pairs[:, i] & pairs[:, j]).double().mean()) for i, j in combinations(range(6), 2)])
    assert torch.allclose(counts, torch.full((15,), 1 / 15), atol=0.015)
    assert shapley_masks(6, 5, seed=1).shape == (5, 6)
    assert torch.equal(shapley_masks(6, 40_000, seed=1), masks)
    with pytest.raises(ss.InputError, match="two players or more, not 1"):
        shapley_masks(1, 4, seed=0)


def test_masks_are_antithetic_or_independent():
    pairs = bernoulli_masks(6, 4000, 0.5, seed=0)
    assert torch.equal(pairs[0::2], ~pairs[1::2])
    alone = bernoulli_masks(6, 4000, 0.3, seed=0, antithetic=False)
    assert torch.allclose(alone.double().mean(0), torch.full((6,), 0.3, dtype=torch.float64), atol=0.03)
    assert abs(np.corrcoef(alone[0::2, 0], alone[1::2, 0])[0, 1]) < 0.1


def test_least_squares_on_antithetic_masks_needs_twice_as_many():
    """Complementary masks share a direction: at two for each player, only independent ones determine the effects."""
    effects = torch.randn(12, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    errors = {}
    for antithetic in (True, False):
        masks = bernoulli_masks(12, 22, 0.5, seed=1, antithetic=antithetic).double()
        fit = fit_masks(masks, 0.3 + masks @ effects, ridge=0.0)
        errors[antithetic] = float((fit.effects - effects).norm())
    assert errors[False] < 1e-9
    assert errors[True] > 0.1


def test_measures_under_drawn_masks_are_those_of_all_masks_weighted_by_the_kernel(model, data, games):
    """The oracle encodes nothing twice over: it predicts and weighs all 2^players pairs of masks one by one."""
    example = Jsonl(data)[0]
    (setting,) = settings([("small", model)], [("occlusion", ss.Occlusion())])
    e = setting.explain(example)[0]
    masks = every_mask(games)
    actual = actual_similarities(games, masks).tolist()
    predicted = explained_game(e, games).similarities(masks).tolist()
    (record,) = Faithfulness(p=(0.5, 0.3, 0.7), masks=40_000).records(setting, example)
    for kernel in KERNELS:
        weights = [kernel_weight(kernel, joint) for joint in torch.cat(masks, 1)]
        exact = weighted_r_squared(predicted, actual, weights)
        assert measures.r_squared(predicted, actual, weights) == pytest.approx(exact, abs=1e-9)
        ending = "" if kernel == "p=0.5" else f" {kernel}"
        assert record[f"r2{ending}"] == pytest.approx(exact, rel=0.03, abs=0.03)
        covariance = np.cov(predicted, actual, aweights=weights, ddof=0)
        pearson = covariance[0, 1] / math.sqrt(covariance[0, 0] * covariance[1, 1])
        assert record[f"correlation{ending}"] == pytest.approx(pearson, abs=0.02)
    both = torch.cat(masks, 1)
    expected = torch.tensor([kernel_weight("p=0.3", joint) for joint in both])
    assert torch.allclose(banzhaf_weights(both, 0.3).float(), expected)


def test_masked_similarities_one_by_one(games):
    masks = tuple(torch.rand(7, g.players, generator=torch.Generator().manual_seed(2)) < 0.5 for g in games)
    for mask in masks:
        mask[3] = mask[0]
    together = actual_similarities(games, masks)
    for row in range(7):
        a, b = (game.values(mask[row : row + 1])[0] for game, mask in zip(games, masks, strict=True))
        assert float(together[row]) == pytest.approx(float(a @ b), abs=1e-12)
    assert together[3] == together[0]


def test_a_bilinear_game_explained_by_its_own_coefficients_has_r_squared_one():
    """Predictions of an additive and bilinear game are the game; any constant or scale in them lowers R² alone."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(n, generator=generator, dtype=torch.float64) for n in (4, 3))
    matrix = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    game = ExplainedGame(0.3, left, right, matrix)
    masks = all_masks(4).repeat_interleave(8, 0), all_masks(3).repeat(16, 1)
    actual = torch.stack(
        [0.3 + left[s].sum() + right[t].sum() + matrix[s][:, t].sum() for s, t in product(all_masks(4), all_masks(3))]
    )
    predicted = game.similarities(masks)
    assert torch.allclose(predicted, actual, atol=1e-12)
    for kernel in KERNELS:
        weights = [kernel_weight(kernel, joint) for joint in torch.cat(masks, 1)]
        assert measures.r_squared(predicted, actual, weights) == pytest.approx(1, abs=1e-12)
        assert measures.r_squared(predicted + 1, actual, weights) < 1 - 1e-3
    assert measures.correlation(2 * predicted + 1, actual) == pytest.approx(1)


def test_a_fit_on_all_masks_explains_most_where_it_was_fitted(model, data, games):
    """Weighted least squares maximises R² under its own weights: no other explanation of this form has more."""
    example = Jsonl(data)[0]
    masks = every_mask(games)
    actual = actual_similarities(games, masks)
    r2 = {}
    for p in (0.3, 0.7):
        (setting,) = settings([("small", model)], [("fit", ss.Banzhaf(p=p, budget=64))])
        predicted = explained_game(setting.explain(example)[0], games).similarities(masks)
        for q in (0.3, 0.7):
            r2[p, q] = measures.r_squared(predicted, actual, banzhaf_weights(torch.cat(masks, 1), q))
    assert r2[0.3, 0.3] > r2[0.7, 0.3]
    assert r2[0.7, 0.7] > r2[0.3, 0.7]


def test_tables_of_faithfulness(model, data, tmp_path):
    methods = [("fitted", ss.Banzhaf(budget=64)), ("tokens", ss.TokenEmbeddings())]
    tables = evaluate("faithfulness", data, [("small", model)], methods, out=tmp_path / "all")
    assert list(tables["overall"].setting) == ["fitted", "tokens"]
    kernels = tables["kernels"].set_index(["setting", "kernel"])
    assert {kernel for _, kernel in kernels.index} == set(KERNELS)
    assert kernels.loc[("fitted", "p=0.5"), "correlation"] == tables["overall"]["median"][0]
    assert (kernels.loc["fitted"].r2 > kernels.loc["tokens"].r2).all()
    assert (kernels.r2 <= 1).all()
    # Similarities are measured once for all methods; a method alone gets the same.
    alone = evaluate("faithfulness", data, [("small", model)], methods[1:], out=tmp_path / "one", p=0.5)
    assert alone["overall"]["median"].item() == tables["overall"]["median"][1]
    assert set(alone["kernels"].kernel) == {"p=0.5", "shapley"}
    with pytest.raises(ss.InputError, match=r"p=\(0.5, 1.0\) must be one or several numbers between 0 and 1"):
        Faithfulness(p=(0.5, 1.0))


# Joint perturbation --------------------------------------------------------------------------------------------------


def set_value(effects, pairs, members):
    return float(sum(effects[i] for i in members) + sum(pairs[i, j] for i, j in combinations(members, 2)))


def naive_greedy(effects, pairs):
    """The best set of every size that greedy growth from some player reaches."""
    n = len(effects)
    best = {0: ()}
    for start in range(n):
        members = [start]
        for size in range(1, n + 1):
            if size not in best or set_value(effects, pairs, members) > set_value(effects, pairs, best[size]):
                best[size] = tuple(members)
            rest = [i for i in range(n) if i not in members]
            if rest:
                members.append(max(rest, key=lambda i: effects[i] + sum(pairs[i, j] for j in members)))
    return best


@pytest.mark.parametrize("seed", range(3))
def test_greedy_sets_grow_by_what_adds_most(seed):
    generator = torch.Generator().manual_seed(seed)
    effects = torch.randn(7, generator=generator, dtype=torch.float64)
    pairs = torch.randn(7, 7, generator=generator, dtype=torch.float64)
    pairs = (pairs + pairs.T).fill_diagonal_(0)
    sets = greedy_sets(effects, pairs)
    expected = naive_greedy(effects, pairs)
    for size, mask in enumerate(sets):
        assert int(mask.sum()) == size
        members = mask.nonzero().flatten().tolist()
        assert set_value(effects, pairs, members) == pytest.approx(set_value(effects, pairs, expected[size]), abs=1e-9)
    # Without interactions, greedy is the order of the effects.
    order = effects.argsort(descending=True)
    alone = greedy_sets(effects, torch.zeros_like(pairs))
    assert all(set(mask.nonzero().flatten().tolist()) == set(order[:k].tolist()) for k, mask in enumerate(alone))


def test_kept_sets_rank_both_sides_together():
    explained = ExplainedGame(
        0.0,
        torch.tensor([1.0, 0.0], dtype=torch.float64),
        torch.tensor([0.5, -2.0], dtype=torch.float64),
        torch.tensor([[0.0, 1.0], [3.0, 0.0]], dtype=torch.float64),
    )
    # Values: 1 + ½, 0 + 3⁄2, ½ + 3⁄2, −2 + ½; equal ones keep their order.
    best, worst = kept_sets(explained, [0, 1, 2, 4], "summed")
    assert best.int().tolist() == [[0, 0, 0, 0], [0, 0, 1, 0], [1, 0, 1, 0], [1, 1, 1, 1]]
    assert worst.int().tolist() == [[0, 0, 0, 0], [0, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]]
    best, worst = kept_sets(explained, [1, 2, 3], "greedy")
    # The pair of 3 beats the sum of the largest effects.
    assert best.int().tolist() == [[1, 0, 0, 0], [0, 1, 1, 0], [1, 1, 1, 0]]
    assert worst.int().tolist() == [[0, 0, 0, 1], [0, 1, 0, 1], [1, 1, 0, 1]]


def test_joint_curves_are_similarities_of_the_kept_sets(model, data, games):
    example = Jsonl(data)[0]
    (setting,) = settings([("small", model)], [("fitted", ss.Banzhaf(budget=64))])
    explained = explained_game(setting.explain(example)[0], games)
    players = games[0].players + games[1].players
    for record in JointPerturbation(steps=players).records(setting, example):
        best, worst = kept_sets(explained, list(range(players + 1)), record["kind"])
        for name, masks in (("insertion", best), ("deletion", worst)):
            curve = [
                float(
                    games[0].values(mask[None, : games[0].players])[0]
                    @ games[1].values(mask[None, games[0].players :])[0]
                )
                for mask in masks
            ]
            assert record[f"{name} curve"] == pytest.approx(curve, abs=1e-9)
            assert record[name] == pytest.approx(np.trapezoid(curve) / players, abs=1e-9)
        assert record["aid"] == record["insertion"] - record["deletion"]
        made = record["insertion curve"][-1] - record["insertion curve"][0]
        assert record["share"] == (pytest.approx(record["aid"] / made) if made > 0 else None)


def test_faithful_explanations_have_a_larger_area_between_curves(model, data, tmp_path):
    methods = [("fitted", ss.Banzhaf(budget=64)), ("tokens", ss.TokenEmbeddings())]
    tables = evaluate("joint-perturbation", data, [("small", model)], methods, out=tmp_path)
    table = tables["overall"].set_index(["setting", "ranking"])
    assert list(table.index) == [(m, r) for m in ("fitted", "tokens") for r in ("summed", "greedy")]
    for ranking in ("summed", "greedy"):
        assert table.loc[("fitted", ranking), "AID"] > max(0, table.loc[("tokens", ranking), "AID"])
    with pytest.raises(ss.InputError, match="steps=0"):
        JointPerturbation(steps=0)


# Collages ------------------------------------------------------------------------------------------------------------

COLOURS = {"dog": (255, 0, 0), "owl": (0, 255, 0), "cat": (0, 0, 255), "bus": (255, 255, 0), "elk": (0, 255, 255)}


def coloured(names):
    """A data set of plain images, each of one object whose colour tells its class."""
    examples = []
    for name in names:
        image = Image.new("RGB", (32, 32), COLOURS[name])
        box = (0.0, 0.0, 32.0, 32.0)
        phrase, region = Phrase((0, len(name)), (box,), name), Region(name, box)
        examples.append(GroundedCaption(name, f"{name}.png", image, f"{name} here", (phrase,), (region,)))
    return ListedDataset("colours", examples)


def test_names_make_a_sentence():
    assert name_objects(["dog"]) == ("a photo of a dog", [(13, 16)])
    caption, spans = name_objects(["dog", "owl", "traffic light", "elk"])
    assert caption == "a photo of a dog, an owl, a traffic light and an elk"
    assert [caption[start:end] for start, end in spans] == ["dog", "owl", "traffic light", "elk"]


def testnamed_collages_show_each_object_in_its_own_quadrant(model):
    collage = Collage(named=(1, 2, 3, 4), size=64)
    positions = []
    for example in list(collage.examples(coloured(COLOURS))):
        captions = collage.named_collages(example)
        assert [len(c.phrases) for c in captions] == [1, 2, 3, 4]
        assert len({id(c.image) for c in captions}) == 1
        for c in captions:
            assert c.phrases[0].label == example.caption.split()[0]
            for phrase in c.phrases:
                ((x0, y0, x1, y1),) = phrase.boxes
                assert c.words(phrase) == phrase.label
                assert c.image.getpixel((int(x0 + x1) // 2, int(y0 + y1) // 2)) == COLOURS[phrase.label]
        positions.append(captions[-1].phrases[0].boxes[0])
    assert len(set(positions)) > 1
    few = Collage(named=2)
    with pytest.raises(ss.InputError, match="three other images"):
        few.named_collages(next(few.examples(coloured(["dog", "owl", "cat"]))))
    for wrong in (0, 5, (1, 5), ()):
        with pytest.raises(ss.InputError, match="1 … 4"):
            Collage(named=wrong)


def test_images_that_show_another_name_are_left_out():
    """A dog beside the cat: that image may not stand in a collage that names the dog."""
    data = coloured(COLOURS)
    cat = data.entries[2]
    data.entries[2] = dataclasses.replace(cat, regions=(*cat.regions, Region("dog", (0.0, 0.0, 9.0, 9.0))))
    collage = Collage(named=4, size=64)
    for example in list(collage.examples(data)):
        if example.caption.startswith("dog"):
            (named,) = collage.named_collages(example)
            assert {phrase.label for phrase in named.phrases} == {"dog", "owl", "bus", "elk"}


def test_recognition_counts_what_is_right_on_both_sides(model, tmp_path):
    """FIxLIP's share: positive attribution inside the quadrants and negative outside, over all, of all names together."""
    data = coloured(COLOURS)
    (setting,) = settings([("small", model)], [("occlusion", ss.Occlusion())])
    collage = Collage(named=(1, 3), size=64)
    example = next(collage.examples(data))
    records = collage.records(setting, example)
    assert [record["named"] for record in records] == [1, 3, 3, 3]
    for caption in collage.named_collages(example):
        right = total = 0.0
        for phrase in caption.phrases:
            e = setting.explain(caption)[0]
            grid = e[phrase.span].double()
            ((x0, y0, _, _),) = phrase.boxes
            for row, column in product(range(2), range(2)):
                value = float(grid[row, column])
                own = (column == int(x0 > 0)) and (row == int(y0 > 0))
                right += max(value, 0) if own else max(-value, 0)
                total += abs(value)
        found = [r["recognition"] for r in records if r["named"] == len(caption.phrases)]
        assert found == pytest.approx([right / total] * len(caption.phrases), abs=1e-6)
    tables = evaluate("collage", data, [("small", model)], [("occlusion", ss.Occlusion())], out=tmp_path, named=(1, 4))
    assert tables["overall"].named.tolist() == [1, 4]
    assert tables["overall"].phrases.tolist() == [5, 20]
    assert tables["overall"].recognition.between(0, 1).all()
