"""What strategies chose, as images and as maps of the pool."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hand_made import hand_chosen, hand_made
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from activelabel.errors import DataError, SettingsError
from activelabel.evaluation.gallery import (
    NUMBERED,
    SHOWN,
    compare_selections_elements,
    principal_components,
    selection_elements,
    to_uint8,
)
from activelabel.evaluation.inline import cycle_colour
from activelabel.evaluation.page import Lines, Mosaic, Picture, Section, write_page
from activelabel.evaluation.selections import Selections

IMAGES = np.arange(8, dtype=np.uint8)[:, None, None] * np.ones((8, 3, 3), dtype=np.uint8)


def numbers(figure: Figure) -> list[dict[str, tuple[float, float]]]:
    """Where the numbers stand in each panel."""
    return [{text.get_text(): text.get_position() for text in axis.texts} for axis in figure.axes]


def test_mosaic_in_order_with_what_is_known() -> None:
    chosen = hand_chosen([[2, 0, -1], [3, 3, 1]])
    clinical = {
        "age": np.array([20, 30, 40, 50, 60, 70, 80, np.nan], dtype=np.float32),
        "frontal": np.array([1, 1, 0, 0, 1, 1, 1, 0], dtype=np.float32),
        "female": np.array([1, 0, 1, 0, 1, np.nan, 0, 0], dtype=np.float32),
    }
    cohort = hand_made(images=IMAGES, clinical=clinical)
    drawn, mosaic = selection_elements(cohort, chosen, "mine")
    assert isinstance(drawn, Picture)
    assert isinstance(mosaic, Mosaic)
    assert [(int(tile.image[0, 0]), tile.text, tile.mark) for tile in mosaic.tiles] == [
        (2, "no. 1, 40 years, female, not frontal", "positive"),
        (0, "no. 2, 20 years, female, frontal", "positive"),
    ]
    assert mosaic.marks == ("negative", "positive")
    assert mosaic.caption == "What mine chose in task 0, in order; 1 of 3 labels were spent on nothing new."
    _, mosaic = selection_elements(cohort, chosen, "mine", task=1)
    assert isinstance(mosaic, Mosaic)
    assert [(int(tile.image[0, 0]), tile.text, tile.mark) for tile in mosaic.tiles] == [
        (7, "no. 1, male, not frontal", "negative"),
        (5, "no. 3, 70 years, frontal", "negative"),
    ]


def test_only_chosen_images_are_read() -> None:
    class Lazy(list[Any]):
        def __getitem__(self, index: Any) -> Any:
            read.append(index)
            return super().__getitem__(index)

    read: list[int] = []
    selection_elements(hand_made(images=Lazy(IMAGES)), hand_chosen([[2, 0], [3, 1]]), "mine", task=1)
    assert read == [7, 5]


def test_map_of_the_pool() -> None:
    cohort = hand_made()
    (drawn,) = selection_elements(cohort, hand_chosen([[2, 0], [3, 1]]), "mine $x")
    assert isinstance(drawn, Picture)
    places, shares = principal_components(cohort.embedded()[:4])
    (panel,) = drawn.figure.axes
    assert panel.get_title() == "mine $x"
    (found,) = numbers(drawn.figure)
    assert found == {"1": tuple(places[2]), "2": tuple(places[0])}
    pools = [np.asarray(dots.get_offsets()) for dots in panel.collections[:2]]
    np.testing.assert_array_equal(pools[0], places[[1, 3]])  # negative
    np.testing.assert_array_equal(pools[1], places[[0, 2]])
    # The colours of the classes are those of their marks in the mosaics.
    for label, dots in enumerate(panel.collections[:2]):
        assert to_hex(dots.get_facecolor()[0]) in cycle_colour(label)
    assert f"4 images by their first two principal components ({shares[0]:.0%} of" in drawn.caption
    assert [text.get_text() for text in drawn.figure.legends[0].get_texts()] == ["negative", "positive"]


def test_strategies_side_by_side_have_the_same_axes(tmp_path: Any) -> None:
    cohort = hand_made(images=IMAGES)
    first, second = hand_chosen([[2, 0], [3, 1]]), hand_chosen([[1, 2], [0, 1]])
    nothing = hand_chosen([[-1, -1], [0, 1]])
    # Four panels leave two places of six empty.
    given = {"a": first, "b": second, "none": nothing, "again": first}
    drawn, *mosaics = compare_selections_elements(cohort, given, 0)
    assert isinstance(drawn, Picture)
    assert [axis.get_title() for axis in drawn.figure.axes] == ["a", "b", "none", "again"]
    found = numbers(drawn.figure)
    assert found[0]["1"] == found[1]["2"]
    assert found[2] == {}
    assert found[3] == found[0]
    assert len({axis.get_xlim() + axis.get_ylim() for axis in drawn.figure.axes}) == 1
    assert [len(mosaic.tiles) for mosaic in mosaics if isinstance(mosaic, Mosaic)] == [2, 2, 0, 2]
    write_page(tmp_path / "a.html", "heading", "", [Section("part", [drawn, *mosaics])])


def test_points_of_the_strategies_are_mapped() -> None:
    points = np.full((8, 3), np.nan, dtype=np.float32)  # only those in pools are known
    points[:4] = np.random.default_rng(0).standard_normal((4, 3))
    given = {"a": hand_chosen([[2, 0], [3, 1]]), "b": hand_chosen([[1, 2], [3, 1]], points=points)}
    (drawn,) = compare_selections_elements(hand_made(), given, 0)
    assert isinstance(drawn, Picture)
    assert numbers(drawn.figure)[0]["1"] == tuple(principal_components(points[:4])[0][2])
    without, mosaic = selection_elements(hand_made(features=None, images=IMAGES), given["a"], "a")
    assert isinstance(without, Lines)
    assert isinstance(mosaic, Mosaic)


def test_many_choices_have_no_numbers() -> None:
    n, k = 130, SHOWN + 1
    labels = np.ones((n, 1), dtype=np.int8)
    features = np.random.default_rng(0).standard_normal((n, 3)).astype(np.float32)
    cohort = hand_made(
        labels=labels, classes=("one",), features=features, clinical={}, images=np.zeros((n, 2, 2), "u1")
    )
    chosen = Selections(np.array([4]), np.arange(n)[None], np.zeros((1, n), np.int64), np.arange(k)[None], ("one",))
    drawn, mosaic = selection_elements(cohort, chosen, "mine")
    assert isinstance(drawn, Picture)
    assert isinstance(mosaic, Mosaic)
    assert numbers(drawn.figure) == [{}]
    assert len(drawn.figure.axes[0].collections[1].get_offsets()) == k
    assert len(mosaic.tiles) == SHOWN
    assert mosaic.caption == f"What mine chose in task 4, in order: the first {SHOWN} of {k} images."
    drawn, _ = selection_elements(cohort, replace(chosen, chosen=chosen.chosen[:, :NUMBERED]), "mine")
    assert isinstance(drawn, Picture)
    assert len(numbers(drawn.figure)[0]) == NUMBERED


def test_principal_components() -> None:
    rng = np.random.default_rng(0)
    points = (rng.standard_normal((50, 4)) * [1, 5, 2, 0.1]).astype(np.float32)
    shown, shares = principal_components(points)
    covariance = np.cov(points.astype(np.float64).T)
    values, vectors = np.linalg.eigh(covariance)
    for i in range(2):
        axis = vectors[:, -1 - i] * np.sign(vectors[np.abs(vectors[:, -1 - i]).argmax(), -1 - i])
        np.testing.assert_allclose(shown[:, i], (points - points.mean(axis=0)) @ axis, atol=1e-4)
        assert shares[i] == pytest.approx(values[-1 - i] / values.sum())
    np.testing.assert_allclose(principal_components(-points)[0], -shown, atol=1e-4)  # no sign is left to chance
    line, shares = principal_components(points[:, :1])
    np.testing.assert_allclose(line[:, 0], points[:, 0] - points[:, 0].mean(), atol=1e-5)
    assert not line[:, 1].any()
    assert shares == (1, 0)
    same, shares = principal_components(np.ones((5, 3)))
    assert not same.any()
    assert shares == (0, 0)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (np.array([[0, 7]], np.uint8), [[0, 7]]),
        (np.array([[[1, 2, 3]]], np.uint8), [[[1, 2, 3]]]),
        (np.array([[[7]]], np.uint8), [[7]]),
        (np.array([[[1, 2, 3, 255]]], np.uint8), [[[1, 2, 3]]]),
        (np.array([[[1, 2]]], np.uint8), [[2]]),
        (np.array([[0.2, 1.0]]), [[51, 255]]),
        (np.array([[True, False]]), [[255, 0]]),
        (np.array([[-1.0, 0.0, 3.0]], np.float32), [[0, 64, 255]]),
        (np.array([[100, 4195, 300]], np.uint16), [[0, 255, 12]]),
        (np.array([[0.0, np.nan, np.inf, 1.0]]), [[0, 0, 0, 255]]),
        (np.array([[7, 7]]), [[0, 0]]),
    ],
)
def test_images_to_look_at(image: Any, expected: Any) -> None:
    shown = to_uint8(image)
    assert shown.dtype == np.uint8
    np.testing.assert_array_equal(shown, expected)


@pytest.mark.parametrize("image", [np.zeros(3), np.zeros((2, 0)), np.zeros((1, 2, 3, 4))])
def test_what_is_no_image(image: Any) -> None:
    with pytest.raises(DataError, match=r"expected \(H, W\)"):
        to_uint8(image)


def test_what_is_refused() -> None:
    cohort, chosen = hand_made(), hand_chosen([[2, 0], [3, 1]])
    with pytest.raises(SettingsError, match="nothing to show"):
        compare_selections_elements(cohort, {})
    for task in (2, -1):
        with pytest.raises(SettingsError, match=f"task {task} of 'mine'; its 2 tasks"):
            selection_elements(cohort, chosen, "mine", task)
    other = hand_chosen([[2, 0], [3, 1]], pool=np.array([[0, 1, 2, 4], [4, 5, 6, 7]]))
    with pytest.raises(SettingsError, match="'b' and 'a' chose from other pools in task 0"):
        compare_selections_elements(cohort, {"a": chosen, "b": other}, 0)
    assert compare_selections_elements(cohort, {"a": chosen, "b": other}, 1)
    with pytest.raises(SettingsError, match="not of this cohort"):
        selection_elements(cohort, replace(chosen, pool=chosen.pool + 1), "mine")
