"""The tables of MedSelect from a study's results, on hand-made ones whose outcome is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hand_made import hand_chosen, hand_made
from numpy.typing import NDArray

from activelabel.errors import SettingsError
from activelabel.evaluation import mean_interval
from activelabel.evaluation.medselect import PAPER, PAPER_SHIFT, compare_selections, shift_from_random
from activelabel.evaluation.page import Lines, Picture, Section, Sheet
from activelabel.evaluation.papers import Outcome, sections, text
from activelabel.evaluation.papers.medselect import PAPER_AUROC, PAPER_GAIN
from activelabel.evaluation.statistics import hierarchical_difference
from activelabel.evaluation.study.results import Block
from activelabel.seeding import stream

TASKS = 40
GAINS = {("seen", 10): 0.05, ("seen", 20): -0.03, ("held-out", 10): 0.0, ("held-out", 20): 0.002}
"""Of REINFORCE over clustering: as in the paper, opposite, nothing, and too little to tell."""


def block(strategy: str, conditions: str, k: int, mean: float, seed: int | None = None, **keys: Any) -> Block:
    noise = stream(seed or 0, f"{strategy} {conditions}", k).normal(0, 0.02, TASKS)
    noise -= noise.mean()
    own = {"study": "made", "grid": "g", "data": "Made", "env": "SelectiveLabel-v0", "conditions": conditions}
    own |= {"strategy": strategy, "preset": "", "seed": seed, "k": k, "labels": None, "batch": None, "metric": "auroc"}
    return Block(own | keys, mean + noise, np.zeros(TASKS, dtype=np.bool_))


def study(seeds: tuple[int, ...] = (0, 1, 2)) -> list[Block]:
    found = []
    for (conditions, k), gain in GAINS.items():
        found += [block("random", conditions, k, 0.75), block("kmedoids", conditions, k, 0.8)]
        found += [block("reinforce", conditions, k, 0.8 + gain, seed) for seed in seeds]
    return found


def outcome(blocks: list[Block], **selections: Any) -> Outcome:
    return Outcome(blocks, {}, selections.get("selections", {}))


def sheet(found: list[Section], caption: str) -> Sheet:
    (one,) = [e for s in found for e in s.elements if isinstance(e, Sheet) and e.caption.startswith(caption)]
    return one


def rows(found: list[Section], caption: str) -> list[dict[str, Any]]:
    one = sheet(found, caption)
    return [dict(zip(one.columns, row, strict=True)) for row in one.rows]


def claims(found: list[Section]) -> list[str]:
    return [line for s in found for e in s.elements if isinstance(e, Lines) and e.kind == "verdict" for line in e.lines]


def claim(found: list[Section], *words: str) -> str:
    (one,) = [line for line in claims(found) if all(word in line for word in words)]
    return one


def scores(blocks: list[Block], strategy: str, conditions: str, k: int) -> NDArray[np.float64]:
    wanted = (strategy, conditions, k)
    return np.stack([b.value for b in blocks if (b.keys["strategy"], b.keys["conditions"], b.keys["k"]) == wanted])


def test_the_direction_of_each_improvement_is_that_of_its_interval() -> None:
    blocks = study()
    found = rows(sections("medselect", outcome(blocks)), "Improvement")
    shown = {(row["conditions"], row["K"]): row for row in found}
    assert shown["seen", 10]["direction"] == "as in the paper"
    assert shown["seen", 20]["direction"] == "opposite"
    assert shown["held-out", 10]["direction"] == shown["held-out", 20]["direction"] == "not distinguishable"
    assert shown["seen", 400]["direction"] == "not measured here"
    for (conditions, k), gain in GAINS.items():
        a, b = (scores(blocks, name, conditions, k) for name in ("reinforce", "kmedoids"))
        expected = hierarchical_difference(a, b[0])
        row = shown[conditions, k]
        assert (row["minus clustering"], row["low"], row["high"]) == (expected.mean, expected.low, expected.high)
        assert row["minus clustering"] == pytest.approx(gain, abs=1e-12)


def test_the_paper_stands_beside_it() -> None:
    found = sections("medselect", outcome(study()))
    gains = {(r["conditions"], r["K"]): (r["paper"], r["paper low"], r["paper high"]) for r in rows(found, "Improve")}
    assert {key: numbers for key, numbers in gains.items() if numbers[0] is not None} == PAPER_GAIN
    names = {"random": "random", "K-Medoids": "kmedoids", "clinical": "clinical"}
    printed = {
        (row["conditions"], row["K"], names[row["strategy"]]): row["paper (CheXpert)"]
        for row in rows(found, "AUROC")
        if row["paper (CheXpert)"] is not None
    }
    assert printed == PAPER_AUROC


def test_auroc_has_an_interval_over_tasks_and_seeds() -> None:
    blocks = study()
    found = {(r["conditions"], r["K"], r["strategy"]): r for r in rows(sections("medselect", outcome(blocks)), "AUROC")}
    row, values = found["seen", 20, "REINFORCE"], scores(blocks, "reinforce", "seen", 20)
    expected = hierarchical_difference(values, np.zeros(TASKS))
    assert (row["AUROC"], row["low"], row["high"]) == (expected.mean, expected.low, expected.high)
    assert (row["tasks"], row["seeds"]) == (TASKS, 3)
    row = found["seen", 20, "random"]
    alone = mean_interval(scores(blocks, "random", "seen", 20)[0])
    assert (row["low"], row["high"], row["seeds"]) == (alone.low, alone.high, None)


def test_claims_say_what_was_found() -> None:
    found = sections("medselect", outcome(study()))
    line = claim(found, "above clustering", "seen conditions")
    assert (
        line.index("Reproduced: K = 10 (+0.050") < line.index("Opposite: K = 20 (-0.030") < line.index("Not measured")
    )
    assert line.endswith("Not measured here: K = 40; K = 80; K = 200; K = 400.")
    assert "Not distinguishable: K = 10" in claim(found, "MedSelect is above clustering", "held-out")
    assert claim(found, "MedSelect is above clinical", "seen").endswith("conditions. Not measured here.")
    assert "Reproduced: than at K = 20 (+0.080" in claim(found, "largest at K = 10")
    smaller = claim(found, "smaller on held-out")
    assert "Reproduced: K = 10 (+0.050" in smaller
    assert "Opposite: K = 20 (-0.032" in smaller


def test_one_seed_and_missing_parts_are_no_trouble() -> None:
    single = sections("medselect", outcome(study(seeds=(7,))))
    row = next(row for row in rows(single, "Improvement") if (row["conditions"], row["K"]) == ("seen", 10))
    assert row["direction"] == "as in the paper"
    for dropped in ("reinforce", "kmedoids", "random"):
        blocks = [b for b in study() if b.keys["strategy"] != dropped]
        assert "not measured here" in text("medselect", outcome(blocks)).lower()
    half = [b for b in study() if (b.keys["strategy"], b.keys["seed"], b.keys["k"]) != ("reinforce", 2, 20)]
    assert "Reproduced: than at K = 20 (+0.080" in claim(sections("medselect", outcome(half)), "largest at K = 10")
    one_task = [replace(b, value=b.value[:1], one_class=b.one_class[:1]) for b in study() if b.one_class is not None]
    assert "no interval" in text("medselect", outcome(one_task))


def test_an_empty_study_shows_the_paper_alone() -> None:
    found = sections("medselect", Outcome([], {}, {}))
    assert not [e for s in found for e in s.elements if isinstance(e, Picture)]
    assert all(line.count("ot measured here") == 1 for line in claims(found))
    assert {row["direction"] for row in rows(found, "Improvement")} == {"not measured here"}


@pytest.mark.parametrize("full", [True, False])
def test_the_text_has_every_number_of_the_paper(full: bool) -> None:
    shown = text("medselect", outcome(study() if full else []))
    for number in PAPER_AUROC.values():
        assert f"{number:.3f}" in shown
    for numbers in PAPER_GAIN.values():
        assert all(f"{number:+.3f}" in shown for number in numbers)
    for name, numbers in [*PAPER.items(), *PAPER_SHIFT.items()]:
        scale = 100 if name in ("frontal", "female") else 1
        assert all(f"{scale * number:.2f}" in shown for number in numbers)


def test_every_trained_selector_is_compared_with_clustering() -> None:
    blocks = [
        *study(),
        *(block("printed", "seen", 10, 0.7, seed) for seed in (0, 1)),
        block("clinical", "seen", 10, 1, 0),
    ]
    found = [row["strategy"] for row in rows(sections("medselect", outcome(blocks)), "Improvement")]
    assert found.count("printed") == 1
    assert "clinical" not in found


def test_choices_are_compared_by_the_analyses_of_section_4_2() -> None:
    cohort = hand_made()
    chosen = {"reinforce": hand_chosen([[0, 1], [0, 1]]), "kmedoids": hand_chosen([[0, 2], [0, 0]])}
    chosen |= {"random": hand_chosen([[2, 3], [2, 3]]), "random, again": hand_chosen([[0, 3], [1, 3]])}
    kept = {("g", "Made", "seen", name): (cohort, one) for name, one in chosen.items()}
    found = sections("medselect", outcome(study(), selections=kept))
    a, b = chosen["reinforce"], chosen["kmedoids"]
    for expected, shown in (
        (compare_selections(cohort, a, b).rows, rows(found, "§4.2")),
        (shift_from_random(cohort, a, b, chosen["random"], chosen["random, again"]).rows, rows(found, "Figure 3")),
    ):
        for row, own in zip(expected, shown, strict=True):
            scale = 100 if row["unit"] == "share" else 1
            assert own["REINFORCE"] == (None if row["a"] is None else pytest.approx(scale * row["a"]))
            assert own["paper: MedSelect"] == scale * row["paper_a"]
            assert own["direction"].removesuffix(" here") == row["direction"]
    assert rows(found, "Figure 3")[1]["random again"] == 7.5
    assert [e.caption for s in found for e in s.elements if isinstance(e, Picture)][-1].startswith("Figure 3, Made")
    without = {key: one for key, one in kept.items() if key[-1] != "random, again"}
    found = sections("medselect", outcome(study(), selections=without))
    assert rows(found, "§4.2")[2]["REINFORCE"] is not None
    assert {row["direction"] for row in rows(found, "Figure 3")} == {"not measured here"}


def test_each_data_set_has_its_own_sections() -> None:
    blocks = study()
    other = [replace(b, keys=b.keys | {"grid": "h", "data": "Other"}) for b in blocks]
    titles = [section.title for section in sections("medselect", outcome([*blocks, *other]))]
    assert [title.rpartition(": ")[2] for title in titles] == ["Made"] * 3 + ["Other"] * 3
    assert len(set(titles)) == 6


def test_an_unknown_paper_has_a_closest_match() -> None:
    with pytest.raises(SettingsError, match=r"'medselct'\. Did you mean 'medselect'"):
        sections("medselct", Outcome([], {}, {}))
