"""What a study keeps of choices, and the page and files that are made of it all."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from study_files import STUDY, finished, write

from activelabel import evaluate
from activelabel.baselines import BASELINES
from activelabel.data import Cohort
from activelabel.errors import DataError, SettingsError
from activelabel.evaluation import open_run
from activelabel.evaluation.audit import audit
from activelabel.evaluation.selections import collect
from activelabel.evaluation.study import Finished, read_study, run_study
from activelabel.evaluation.study.choices import AGAIN
from activelabel.evaluation.study_page import publish_study


def pictured(cohort: Cohort, **changes: object) -> Cohort:
    """The same cohort with small images of its own instead of features."""
    pixels = np.arange(len(cohort) * 36, dtype=np.uint8).reshape(len(cohort), 6, 6)
    return replace(cohort, features=None, images=pixels, **changes)


def small_study(folder: Path, cohort: Cohort, blobs: Cohort, **changes: object) -> Path:
    """Both environments, a trained and untrained strategies, one budget; one data set has images."""
    study = copy.deepcopy(STUDY) | {"seeds": [0]}
    study["grids"]["once"] |= {
        "data": [{"data": "cohort.npz", "images": "images.npz"}],
        "strategies": ["random", "kmedoids", "reinforce"],
        "k": [4],
        "audit": 3,
        **changes,
    }
    study["grids"]["episodes"] |= {"strategies": ["random", "ddqn"], "batch": [3]}
    if not (folder / "images.npz").exists():
        pictured(cohort).save(folder / "images.npz")
    return write(folder, study, cohort, blobs)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, cohort: Cohort, blobs: Cohort) -> Path:
    return small_study(tmp_path_factory.mktemp("study"), cohort, blobs)


@pytest.fixture(scope="module")
def done(path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Finished]:
    out = tmp_path_factory.mktemp("out")
    return out, run_study(read_study(str(path)), out, jobs=1, progress=False)


def test_choices_are_those_of_the_strategies(done: tuple[Path, Finished]) -> None:
    out, found = done
    once = [c for c in found.choices if c.keys["grid"] == "once"]
    names = ("random", AGAIN, "kmedoids", "reinforce")
    assert [(c.keys["conditions"], c.keys["strategy"]) for c in once] == [
        (conditions, name) for conditions in ("seen", "held-out") for name in names
    ]
    run = open_run(next(out.glob("runs/reinforce-0-*")), False)
    engine = run.test["held-out"]
    for one, strategy in zip(
        once[4:],
        (BASELINES["random"](4, 0), BASELINES["random"](4, 1), BASELINES["kmedoids"](4, 0), run.model()),
        strict=True,
    ):
        expected = collect(engine, strategy, 4, 3)
        for name in ("index", "pool", "pool_labels", "chosen"):
            np.testing.assert_array_equal(getattr(one.selections, name), getattr(expected, name))
        assert one.audit == audit(run.cohort, expected)
    assert not np.array_equal(once[0].selections.chosen, once[1].selections.chosen)
    episodes = [c for c in found.choices if c.keys["grid"] == "episodes"]
    assert [c.keys["strategy"] for c in episodes] == ["random", "ddqn"]
    assert [c.selections.chosen.shape for c in episodes] == [(5, 7)] * 2  # no more than there are test episodes


def test_nothing_is_kept_where_it_is_not_asked_for(tmp_path: Path, cohort: Cohort, blobs: Cohort) -> None:
    path = small_study(tmp_path, cohort, blobs, audit=0, strategies=["random"])
    found = run_study(read_study(str(path)), tmp_path / "out", jobs=1, progress=False)
    assert {c.keys["grid"] for c in found.choices} == {"episodes"}


def test_seconds_are_of_the_trainings(done: tuple[Path, Finished]) -> None:
    seconds = done[1].seconds
    assert set(seconds) == {("once", "cohort", "reinforce", 0, 0), ("episodes", "four blobs", "ddqn", 7, 3)}
    assert all(len(each) == 1 and each[0] > 0 for each in seconds.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.take(np.arange(50)), "50 images, but synthetic has 3000 rows"),
        (lambda c: replace(c, images=None, features=np.ones((len(c), 2), np.float32)), "holds no images"),
    ],
)
def test_images_of_other_rows_are_refused_first(
    change: object, message: str, tmp_path: Path, cohort: Cohort, blobs: Cohort
) -> None:
    change(pictured(cohort)).save(tmp_path / "images.npz")  # type: ignore[operator]
    path = small_study(tmp_path, cohort, blobs)
    with pytest.raises(DataError, match=rf"data 'cohort': .*images.npz: .*{message}"):
        run_study(read_study(str(path)), tmp_path / "out", jobs=1, progress=False)
    assert not finished(tmp_path / "out")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("about: a test", "paper: medselct", "paper: .*Did you mean 'medselect'"),
        ("images: images.npz", "images: imags.npz", r"data\[0\].images: .*imags.npz"),
        ("audit: 3", "audit: -1", "audit: -1 must be a whole number"),
    ],
)
def test_bad_entries_are_named(old: str, new: str, message: str, path: Path, tmp_path: Path) -> None:
    other = path.with_name("bad.yaml")
    other.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(SettingsError, match=message):
        read_study(str(other))


@pytest.mark.parametrize("paper", [None, "medselect", "slade2022"])
def test_page_and_files(paper: str | None, done: tuple[Path, Finished], tmp_path: Path) -> None:
    """Of a paper's study too, which a study of other data sets is: what is not there is not measured."""
    found = replace(done[1], study=replace(done[1].study, paper=paper))
    said, files = publish_study(found, done[0])
    names = {path.name for path in files if path.suffix != ".png"}
    figures = [path for path in files if path.suffix == ".png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in figures)
    assert bool(figures) == (paper == "medselect")  # the grids of the other have names that are not here
    assert names == {"report.html", "findings.json", "audits.json", *(["paper.txt"] if paper else [])}
    page = (done[0] / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 3 * 4  # what three strategies chose, seen and held out
    for text in ("K-Medoids", "held-out", "four blobs", found.study.about, "Where it comes from"):
        assert text in page
    assert len(json.loads((done[0] / "audits.json").read_text())) == len(found.choices)
    assert "better" in said or "not distinguishable" in said
    again = (done[0] / "report.html").read_bytes()
    publish_study(found, done[0])
    assert (done[0] / "report.html").read_bytes() == again


def test_command_says_where_the_page_is(
    path: Path, done: tuple[Path, Finished], capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main(["--study", str(path), "--out", str(done[0]), "--jobs", "1", "--no-progress"]) == 0
    assert str(done[0] / "report.html") in capsys.readouterr().out
