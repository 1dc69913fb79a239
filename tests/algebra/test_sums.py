"""The algebra by hand: sums and margins of contributions, lazy matrices, errors of sampling, what is saved and said."""

import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import secondsight as ss
from secondsight import Contributions, GridLayout, InputError, Interactions, JoinedLayout, Layout
from secondsight.algebra.factors import Factor
from secondsight.algebra.interactions import joint_facts, margin
from secondsight.support.files import save_record
from sides import image_layout, random_side, text_layout

A, B, C = (
    random_side(layout, s, torch.float64, exact=False)
    for layout, s in ((image_layout(), 1), (text_layout(), 2), (text_layout(), 3))
)


def sampled(c: Contributions, groups: int, seed: int) -> Contributions:
    g = torch.Generator().manual_seed(seed)
    return replace(c, deviations=torch.randn(groups, *c.vectors.shape, generator=g, dtype=torch.float64) / 10)


class Recorded(Factor):
    """A factor that remembers what was computed of it."""

    pull_cost, vectors_cost, closed_form = 1.0, 100.0, False

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.calls = tensor, []
        self.shape, self.dtype = tuple(tensor.shape), tensor.dtype

    def vectors(self) -> Tensor:
        self.calls.append("vectors")
        return self.tensor

    def total(self) -> Tensor:
        self.calls.append("total")
        return self.tensor.sum(0)

    def push(self, weights: Tensor) -> Tensor:
        self.calls.append("push")
        return weights @ self.tensor

    def pull(self, directions: Tensor) -> Tensor:
        self.calls.append(f"pull {len(directions)}")
        return directions @ self.tensor.T


def recorded(c: Contributions) -> tuple[Contributions, Recorded]:
    factor = Recorded(c.vectors)
    return replace(c, factor=factor), factor


def test_first_order_is_toward_the_other_embedding():
    wanted = A.vectors @ B.embedding * A.scale * B.scale
    assert torch.allclose(A.first_order(B), wanted, rtol=1e-12)
    assert torch.allclose((A * 3.0).first_order(B), 3 * wanted, rtol=1e-12)
    with pytest.raises(
        InputError, match=r"^joint spaces of 4 and 2 dimensions do not match: both must come from the same model$"
    ):
        A.first_order(random_side(text_layout(), 1, torch.float64, joint=2))


def test_arithmetic_of_sides():
    for made, factor in ((-A, -1), (A / 4, 0.25), (2 * A, 2), (A * 0.5, 0.5)):
        assert made.scale == pytest.approx(A.scale * factor)
        assert torch.equal(made.vectors, A.vectors)
    for wrong in (lambda: A * "x", lambda: A @ 3, lambda: A + 3, lambda: 3 + A, lambda: A - 3):
        with pytest.raises(TypeError):
            wrong()
    assert sum([A]) is A
    assert len(A) == 7


def test_a_sum_is_both_side_by_side():
    both = B * 2.0 + -C
    assert both.scale == 1.0
    assert torch.allclose(both.vectors, torch.cat([2 * B.scale * B.vectors, -C.scale * C.vectors]))
    assert torch.allclose(both.embedding, 2 * B.scale * B.embedding - C.scale * C.embedding)
    assert torch.allclose(
        both.reference_embedding, 2 * B.scale * B.reference_embedding - C.scale * C.reference_embedding
    )
    assert isinstance(both.layout, JoinedLayout)
    assert both.layout.signs == (1, -1)
    assert both.about["inputs"] == [{"seed": 2}, {"seed": 3}]
    assert both.deviations is None
    assert (A @ both).quantity == (both @ A).quantity == "margin"
    assert (A @ B).quantity == "similarity"
    assert torch.allclose((B - C).vectors, (B + -C).vectors)
    three = sum([B, C, -B])
    assert len(three) == 30
    assert (A @ three).similarity == pytest.approx((A @ C).similarity)


def test_errors_of_sampling():
    u, v = sampled(A, 5, 1), sampled(B, 3, 2)
    d = torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(A.standard_error(d), torch.zeros(2, 7, dtype=torch.float64))
    by_hand = torch.stack(
        [torch.stack([(u.deviations[:, f] @ one).square().sum().sqrt() for f in range(7)]) for one in d]
    )
    assert torch.allclose(u.standard_error(d), by_hand, rtol=1e-12)
    scale = abs(u.scale * v.scale)
    own = u.standard_error(v.vectors).T ** 2
    its = v.standard_error(u.vectors) ** 2
    assert torch.allclose((u @ v).standard_errors, (own + its).sqrt() * scale, rtol=1e-12)
    assert torch.allclose((u @ B).standard_errors, own.sqrt() * scale, rtol=1e-12)
    assert torch.allclose((A @ v).standard_errors, its.sqrt() * scale, rtol=1e-12)
    assert torch.allclose((-u @ v).standard_errors, (u @ v).standard_errors, rtol=1e-12)
    assert torch.equal((u @ v).T.standard_errors, (u @ v).standard_errors.T)
    assert (A @ B).standard_errors is None


@pytest.mark.parametrize("groups", [(3, 2), (3, None), (None, 2)])
def test_inputs_that_were_sampled_apart_err_apart(groups):
    parts = [c if g is None else sampled(c, g, 7) for c, g in zip((B, C), groups, strict=True)]
    both = parts[0] * 2.0 - parts[1]
    d = torch.randn(4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    wanted = torch.cat([2 * parts[0].scale * parts[0].standard_error(d), parts[1].scale * parts[1].standard_error(d)])
    assert both.deviations.dtype == torch.float64
    assert torch.allclose(both.standard_error(d), wanted, rtol=1e-12)
    assert len(both.deviations) == sum(g or 0 for g in groups)


def test_a_margin_of_two_pairs():
    first, second = A @ B, A @ C
    m = margin(first, second)
    assert m.similarity == pytest.approx(first.similarity - second.similarity)
    for term in ("base", "left", "right", "interaction"):
        assert getattr(m.terms, term) == pytest.approx(getattr(first.terms, term) - getattr(second.terms, term))
    assert torch.allclose(m.matrix, torch.cat([first.matrix, -second.matrix], 1))
    assert torch.allclose(m.left_effects, first.left_effects - second.left_effects)
    assert torch.allclose(m.right_effects, torch.cat([first.right_effects, -second.right_effects]))
    assert m.right_layout.signs == (1, -1)
    assert m.quantity == "margin"
    assert m.about["left"] == {"seed": 1}
    assert m.about["right"]["inputs"] == [{"seed": 2}, {"seed": 3}]
    assert m.standard_errors is None
    assert torch.allclose(m.matrix, (A @ (B - C)).matrix)
    with pytest.raises(InputError, match="^a margin needs the same left input twice$"):
        margin(first, B @ C)


def test_errors_of_a_margin():
    u = sampled(A, 4, 3)
    first, second = u @ B, u @ C
    assert torch.equal(
        margin(first, second).standard_errors, torch.cat([first.standard_errors, second.standard_errors], 1)
    )
    assert margin(first, A @ C).standard_errors is None
    assert margin(A @ C, first).standard_errors is None


def test_a_lazy_margin_computes_only_what_is_needed():
    left, factor = recorded(A)
    m = margin(left @ B, left @ C)
    matrix = torch.cat([(A @ B).matrix, -(A @ C).matrix], 1)
    factor.calls.clear()
    weights = torch.zeros(20, dtype=torch.float64)
    weights[13] = 2.0
    assert torch.allclose(m.attributions @ weights, matrix @ weights)
    assert factor.calls == ["pull 1"]
    assert torch.equal(m.attributions @ torch.zeros(20, dtype=torch.float64), torch.zeros(7, dtype=torch.float64))
    assert factor.calls == ["pull 1"]
    selection = torch.arange(7, dtype=torch.float64)
    assert torch.allclose(m.attributions.T @ selection, selection @ matrix)
    assert m.terms.interaction == pytest.approx(float(matrix.sum()))
    assert factor.calls == ["pull 1", "push", "total"]
    assert torch.allclose(m.T.toward_left((0, 0, 90, 60)), m.toward_right((0, 0, 90, 60)))
    assert torch.allclose(m.T.toward_right([1]), m.toward_left([1]))
    assert m.T.terms.interaction == pytest.approx(m.terms.interaction)
    assert torch.allclose(m.T.matrix, matrix.T)
    assert torch.allclose(m.matrix, matrix)
    # From now on the matrix is there, and the factor is not used again.
    calls = len(factor.calls)
    m.toward_left([1])
    assert torch.allclose(m.attributions.rows([2, 5]), matrix[[2, 5]])
    assert len(factor.calls) == calls


@pytest.mark.parametrize("cheap", ["left", "right"])
def test_the_side_where_vectors_cost_less_is_pulled_through_the_other(cheap):
    (left, u), (right, v) = recorded(A), recorded(B)
    (u if cheap == "left" else v).vectors_cost = 10.0
    e = left @ right
    assert torch.allclose(e.matrix, (A @ B).matrix)
    assert torch.allclose(e.left_effects, (A @ B).left_effects)
    assert torch.allclose(e.right_effects, (A @ B).right_effects)
    computed, pulled = (u, v) if cheap == "left" else (v, u)
    assert computed.calls == ["vectors"]
    assert pulled.calls[0] == "pull 1"
    assert "vectors" not in pulled.calls


def test_names_of_terms():
    e = A @ B
    assert [name for name, _ in e.terms.labels()] == ["base", "image alone", "text alone", "interaction"]
    assert repr(e.terms).startswith(f"Terms(base={e.terms.base:+.4f}, image_alone={e.terms.left:+.4f}, text_alone=")
    assert (e.terms.image_alone, e.terms.text_alone) == (e.terms.left, e.terms.right)
    assert [value for _, value in e.terms.labels()] == [e.terms.base, e.terms.left, e.terms.right, e.terms.interaction]
    assert (e.terms.image, e.terms.text) == (e.terms.left, e.terms.right)
    two = (B @ C).terms
    assert [name.split()[0] for name, _ in two.labels()][1:3] == ["left", "right"]
    with pytest.raises(AttributeError, match="terms have base, left, right, interaction, text, text; not 'text'"):
        _ = two.text
    with pytest.raises(AttributeError, match="terms have base, left, right, interaction, image, text; not 'sound'"):
        _ = e.terms.sound


def test_shares_of_special_features():
    e = A @ B
    size, special = e.matrix.abs(), (list(e.left_layout.special), list(e.right_layout.special))
    left, right = e.special_share()
    assert left == pytest.approx(float(size[special[0]].sum() / size.sum()))
    assert right == pytest.approx(float(size[:, special[1]].sum() / size.sum()))
    nothing = replace(e, attributions=torch.zeros_like(e.matrix))
    assert nothing.special_share() == (0.0, 0.0)


def test_maps_and_boxes():
    e = A @ B
    assert e.heatmap("dog").shape == (60, 90)
    assert torch.equal(e.heatmap(), e.left_layout.heatmap(e.toward_left(None)))
    assert torch.equal(e["dog"], e.left_layout.view(e.toward_left("dog")))
    scores = dict(e.box(0, 0, 30, 30))
    toward = e.toward_right((0, 0, 30, 30))
    assert scores["dog"] == pytest.approx(float(toward[2]))
    assert scores["frisbee"] == pytest.approx(float(toward[6] + toward[7]))
    assert dict(e.words)["dog"] == pytest.approx(float(e.toward_right(None)[2]))
    with pytest.raises(InputError, match="^a heatmap needs an image, not text$"):
        e.T.heatmap()
    with pytest.raises(InputError, match="^a box needs an image, not text$"):
        e.T.box(0, 0, 1, 1)
    two = A @ random_side(image_layout(), 5, torch.float64)
    with pytest.raises(InputError, match=r"^the right side is image, not text: use e.T\[box\] for its map$"):
        two.box(0, 0, 1, 1)


def test_facts_of_several_inputs():
    one, other = {"layer": 3, "steps": 4, "x": 1}, {"layer": 3, "steps": 8}
    assert joint_facts([one, other]) == {"layer": 3, "inputs": [one, other]}
    assert joint_facts([joint_facts([one, other]), one]) == {"layer": 3, "inputs": [one, other, one]}
    assert joint_facts([one]) == {**one, "inputs": [one]}


@pytest.mark.parametrize("suffix", ["npz", "json"])
def test_what_was_sampled_is_saved_with_its_errors(tmp_path, suffix):
    u = sampled(A, 3, 1)
    u.save(tmp_path / f"u.{suffix}")
    back = Contributions.load(tmp_path / f"u.{suffix}")
    assert torch.equal(back.deviations, u.deviations)
    assert (back.scale, back.about, back.layout) == (u.scale, u.about, u.layout)
    for name in ("vectors", "embedding", "reference_embedding"):
        assert torch.equal(getattr(back, name), getattr(u, name))
    A.save(tmp_path / f"a.{suffix}")
    assert Contributions.load(tmp_path / f"a.{suffix}").deviations is None
    e = u @ B
    e.save(tmp_path / f"e.{suffix}")
    again = Interactions.load(tmp_path / f"e.{suffix}")
    for name in ("matrix", "left_effects", "right_effects", "standard_errors"):
        assert torch.equal(getattr(again, name), getattr(e, name)), name
    assert (again.base, again.similarity) == (e.base, e.similarity)
    assert (again.left_layout, again.right_layout) == (e.left_layout, e.right_layout)
    assert again.about == e.about
    # One kind is not taken for the other.
    with pytest.raises(InputError, match="holds no contributions"):
        Contributions.load(tmp_path / f"e.{suffix}")
    with pytest.raises(InputError, match="holds no interactions"):
        Interactions.load(tmp_path / f"u.{suffix}")


def test_files_of_other_names(tmp_path):
    with pytest.raises(InputError, match=r"cannot save contributions as .*x.txt': the name must end in .npz or .json$"):
        A.save(tmp_path / "x.txt")
    with pytest.raises(InputError, match=r"cannot save interactions as .*x.txt': the name must end in .npz or .json$"):
        (A @ B).save(tmp_path / "x.txt")
    (A @ replace(B, about={"model": "ü☕"})).save(tmp_path / "x.json")
    raw = (tmp_path / "x.json").read_bytes()
    assert "ü☕".encode() in raw
    data = json.loads(raw)
    assert data["format"] == "secondsight-interactions-2"
    assert data["right"]["model"] == "ü☕"
    assert data["dtypes"] == dict.fromkeys(("attributions", "left_effects", "right_effects"), "float64")
    assert "standard_errors" not in data
    broken = replace(A @ B, similarity=float("nan"))
    with pytest.raises(ValueError, match="NaN|nan|JSON"):
        broken.save(tmp_path / "nan.json")
    assert not (tmp_path / "nan.json").exists()


def test_shapes_must_fit():
    with pytest.raises(
        InputError, match=r"^vectors \(7, 4\) fit neither the layout's 10 features nor the embedding \(4,\)$"
    ):
        replace(A, layout=text_layout())
    with pytest.raises(InputError, match=r"^effects of \(7, 10\) features do not fit layouts of \(7, 7\)$"):
        replace(A @ B, right_layout=image_layout())


def test_stores_of_other_makes_do_not_mix():
    one, same, other = (replace(c, space=s) for c, s in ((A, "x"), (B, "x"), (B, "y")))
    assert (one @ same).similarity == (A @ B).similarity
    assert (one @ B).similarity == (A @ B).similarity
    with pytest.raises(
        InputError, match=r"different models, methods or pairs \(x and y\): decompose both sides with the same"
    ):
        _ = one @ other


def test_precisions_meet_in_the_higher_one():
    low = Contributions(A.vectors.float(), A.embedding.float(), A.reference_embedding.float(), A.layout, A.scale)
    assert (low @ B).matrix.dtype == (low @ B).left_effects.dtype == (B @ low).right_effects.dtype == torch.float64
    assert (low @ low).matrix.dtype == torch.float32
    assert torch.allclose((low @ B).matrix, (A @ B).matrix, atol=1e-6)
    assert low.residual.dtype == torch.float32


def test_residuals():
    missed = A.embedding - A.reference_embedding - A.vectors.sum(0)
    assert torch.allclose(A.residual, missed)
    assert A.relative_residual == pytest.approx(float(missed.norm() / (A.embedding - A.reference_embedding).norm()))
    still = replace(A, embedding=A.reference_embedding, factor=torch.zeros_like(A.vectors))
    assert still.relative_residual == 0.0
    off = replace(still, factor=A.vectors)
    assert off.relative_residual == pytest.approx(float(A.vectors.sum(0).norm()))


def test_layouts_of_other_kinds_join():
    plain = Contributions(A.vectors, A.embedding, A.reference_embedding, Layout(7, {0: "special"}), A.scale)
    assert isinstance((plain + B).layout, JoinedLayout)
    assert isinstance((A @ B).left_layout, GridLayout)
    assert ss.Interactions is Interactions


@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_files_of_another_version_say_so(tmp_path, suffix):
    path = tmp_path / f"pair{suffix}"
    save_record(path, {"attributions": A.vectors}, {"format": "secondsight-interactions-1"})
    with pytest.raises(
        InputError, match="interactions-1 of another version of secondsight: compute and save them again"
    ):
        Interactions.load(path)
    with pytest.raises(InputError, match="holds no contributions"):
        Contributions.load(path)
