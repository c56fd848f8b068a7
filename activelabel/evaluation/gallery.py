"""What strategies chose in a task, to be looked at: the images, and where they are in the pool."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from activelabel.data import Cohort
from activelabel.envs.drawing import Points, as_map, class_colour, principal_components, to_uint8
from activelabel.errors import SettingsError
from activelabel.evaluation.page import Element, Lines, Mosaic, Picture, Tile
from activelabel.evaluation.selections import Selections, check_cohort

NUMBERED = 60
"""Choices that are numbered on a map, at most; more are marked without their numbers."""

SHOWN = 100
"""Images in a mosaic, at most."""

COLUMNS = 3
"""Maps side by side."""


def selection_elements(cohort: Cohort, selections: Selections, name: str, task: int = 0) -> list[Element]:
    """Return what one strategy chose in a task; see :func:`compare_selections_elements`."""
    return compare_selections_elements(cohort, {name: selections}, task)


def compare_selections_elements(cohort: Cohort, selections: Mapping[str, Selections], task: int = 0) -> list[Element]:
    """Return a map of the task's pool with what each strategy chose, and mosaics of the images where there are any.

    The maps show the first two principal components of the pool, which are the same for all strategies. An image that
    was chosen again is shown once.

    Parameters
    ----------
    cohort: the one that the selections are of.
    selections: of strategies that played the same tasks, by the name that is shown.
    task: the place of the task in the selections, from 0.

    Raises
    ------
    SettingsError: if there is no strategy or no such task, the selections are not of the cohort, nothing was selected,
        or the strategies had other pools to choose from.
    """
    first = _check(cohort, selections, task)
    points = next((s.points for s in selections.values() if s.points is not None), cohort.features)
    found: list[Element] = []
    if points is None:
        found.append(Lines(["There are no features, so the pool cannot be shown as a map."]))
    else:
        found.append(_map(principal_components(points[first.pool[task]]), selections, task))
    if cohort.images is not None:
        found += [_mosaic(cohort, chosen, name, task) for name, chosen in selections.items()]
    return found


def _check(cohort: Cohort, selections: Mapping[str, Selections], task: int) -> Selections:
    if not selections:
        raise SettingsError("no strategy, so there is nothing to show.")
    first = next(iter(selections.values()))
    for name, other in selections.items():
        check_cohort(cohort, other)
        if not 0 <= task < len(other):
            raise SettingsError(f"task {task} of '{name}'; its {len(other)} tasks count from 0.")
        same = other.classes == first.classes and np.array_equal(other.pool[task], first.pool[task])
        if not same or not np.array_equal(other.pool_labels[task], first.pool_labels[task]):
            raise SettingsError(f"'{name}' and '{next(iter(selections))}' chose from other pools in task {task}.")
    return first


# -- the map -------------------------------------------------------------------------------------------------------


def _map(components: tuple[Points, tuple[float, float]], selections: Mapping[str, Selections], task: int) -> Picture:
    places, shares = components
    columns = min(COLUMNS, len(selections))
    rows = math.ceil(len(selections) / columns)
    width = 5.6 if columns == 1 else 3.6 * columns
    figure = Figure(figsize=(width, (4.4 if columns == 1 else 3.4) * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axis, (name, chosen) in zip(grid, selections.items(), strict=False):
        axis.set_title(name, fontsize=10, parse_math=False)
        _panel(axis, places, chosen, task)
    for axis in grid[len(selections) :]:
        axis.remove()
    first = next(iter(selections.values()))
    present = np.unique(first.pool_labels[task])
    handles = [
        figure.gca().scatter([], [], s=36, color=class_colour(label), label=first.classes[label]) for label in present
    ]
    legend = figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_parse_math(False)
    caption = (
        f"The pool of task {first.index[task]}: {len(places)} images by their first two principal components "
        f"({shares[0]:.0%} of the variance across, {shares[1]:.0%} up). Rings: what was chosen; numbers: the order."
    )
    return Picture(figure, caption)


def _panel(axis: Axes, places: Points, chosen: Selections, task: int) -> None:
    labels, picks = chosen.pool_labels[task], _picks(chosen, task)
    for label in np.unique(labels):
        x, y = places[labels == label].T
        axis.scatter(x, y, s=9, color=class_colour(label), alpha=0.4, linewidths=0)
    rings = [class_colour(labels[pick]) for pick in picks.values()]
    if len(picks) > NUMBERED:
        x, y = places[list(picks.values())].T
        axis.scatter(x, y, s=30, facecolors="white", edgecolors=rings, linewidths=1.2)
    else:
        for (order, pick), ring in reversed(list(zip(picks.items(), rings, strict=True))):  # the first on top
            x, y = places[pick]
            axis.scatter(x, y, s=110, facecolors="white", edgecolors=[ring], linewidths=1.6, zorder=3)
            axis.text(x, y, str(order), fontsize=7, ha="center", va="center_baseline", zorder=3)
    as_map(axis)
    axis.margins(0.06)


def _picks(chosen: Selections, task: int) -> dict[int, int]:
    """Return what was chosen in a task, indices into the pool, by its place in the order from 1; repeats left out."""
    places = np.flatnonzero(chosen.new[task])
    return {int(place) + 1: int(chosen.chosen[task, place]) for place in places}


# -- the images ----------------------------------------------------------------------------------------------------


def _mosaic(cohort: Cohort, chosen: Selections, name: str, task: int) -> Mosaic:
    assert cohort.images is not None
    clinical, tiles = cohort.clinical_matrix(), []
    picks = _picks(chosen, task)
    for order, pick in list(picks.items())[:SHOWN]:
        row = int(chosen.pool[task, pick])
        text = ", ".join([f"no. {order}", *_patient(clinical[row])])
        tiles.append(Tile(to_uint8(cohort.images[row]), text, chosen.classes[chosen.pool_labels[task, pick]]))
    caption = f"What {name} chose in task {chosen.index[task]}, in order"
    if len(picks) > SHOWN:
        caption += f": the first {SHOWN} of {len(picks)} images"
    spent = chosen.chosen.shape[1] - len(picks)
    if spent:
        caption += f"; {spent} of {chosen.chosen.shape[1]} labels were spent on nothing new"
    return Mosaic(tiles, caption + ".", chosen.classes)


def _patient(clinical: NDArray[np.float32]) -> list[str]:
    age, female, frontal = (None if np.isnan(value) else float(value) for value in clinical)
    words = [] if age is None else [f"{age:.0f} years"]
    words += [] if female is None else ["female" if female else "male"]
    return words + ([] if frontal is None else ["frontal" if frontal else "not frontal"])
