"""Under the null hypothesis: intervals miss as often as they say, and "better" is rarely said."""

from __future__ import annotations

import pytest

from activelabel.errors import SettingsError
from benchmarks.coverage import simulate

STUDIES = 2000


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
@pytest.mark.parametrize("tasks", [50, 200])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_of_seeds_and_tasks(seeds: int, tasks: int, share: float) -> None:
    found = simulate(STUDIES, seeds, tasks, share, 0.3, "normal")["crossed"]
    assert 0.03 <= found.misses <= 0.07
    assert found.better <= 0.05


@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize("seeds", [3, 10])
def test_heavy_tails_make_it_careful(seeds: int, share: float) -> None:
    found = simulate(STUDIES, seeds, 50, share, 0.3, "heavy")["crossed"]
    assert 0.02 <= found.misses <= 0.07
    assert found.better <= 0.05


@pytest.mark.parametrize(("share", "noise"), [(0.01, 0.0), (0.02, 1.0), (0.05, 0.5)])
def test_where_seeds_and_tasks_matter_alike(share: float, noise: float) -> None:
    found = simulate(STUDIES, 3, 100, share, noise, "normal")["crossed"]
    assert 0.015 <= found.misses <= 0.085
    assert found.better <= 0.05


def test_what_it_replaces_claims_too_much() -> None:
    found = simulate(500, 3, 50, 0.3, 0.3, "normal", n_boot=300)
    assert found["bootstrap"].misses > 0.12
    assert found["over tasks"].misses > 0.3
    assert found["one seed"].better > 0.15


def test_unknown_tails() -> None:
    with pytest.raises(SettingsError, match="Did you mean 'heavy'"):
        simulate(10, 3, 5, 0.0, 0.3, "heavvy")
