"""Every reader reads or refuses files that are almost right; and the campaign sees every kind of fault."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from activelabel.errors import DataError
from benchmarks.fuzz import Settings, main
from benchmarks.fuzzing import READERS, campaign
from benchmarks.fuzzing.archives import ARRAY_NAMES, members, zipped
from benchmarks.fuzzing.campaign import Campaign, inputs
from benchmarks.fuzzing.targets import TARGETS, Target

RUNS = 150

_campaigns: dict[str, Campaign] = {}


@pytest.fixture(scope="module")
def campaign_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Campaign]:
    """Makes the campaign of a reader, once."""

    def of(name: str) -> Campaign:
        if name not in _campaigns:
            folder = tmp_path_factory.mktemp(name)
            _campaigns[name] = Campaign(TARGETS[name](folder), folder, folder / "faults")
        return _campaigns[name]

    yield of  # type: ignore[misc]
    _campaigns.clear()


@pytest.mark.parametrize("name", READERS)
def test_changed_files_are_read_or_refused(name: str, campaign_of: Callable[[str], Campaign]) -> None:
    one = campaign_of(name)
    one.target.hostile = ()  # they take seconds to be made; test_safe_formats.py has smaller ones
    drawn = inputs(one.target, seed=0)
    for _ in range(RUNS):
        one.feed(next(drawn))
    assert one.outcome.faults == {}
    assert one.outcome.inputs == RUNS
    assert one.outcome.accepted
    assert one.outcome.refused


def fed(one: Campaign, data: bytes) -> None:
    assert one.feed(data), one.outcome.faults


PLAIN = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20))
TREES = st.recursive(
    PLAIN, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=9), inner, max_size=4))
)


@given(st.one_of(st.binary(max_size=300), st.text(max_size=300).map(str.encode)))
@pytest.mark.parametrize("name", READERS)
def test_any_bytes_are_read_or_refused(name: str, campaign_of: Callable[[str], Campaign], data: bytes) -> None:
    fed(campaign_of(name), data)


@given(values=st.data())
@pytest.mark.parametrize("name", ["config", "study", "export"])
def test_any_tree_in_the_place_of_a_value_is_read_or_refused(
    name: str, campaign_of: Callable[[str], Campaign], values: st.DataObject
) -> None:
    one = campaign_of(name)
    tree = json.loads(values.draw(st.sampled_from([data for data in one.target.valid if data[:1] in b"{["])))
    holder = tree
    while True:
        key = values.draw(st.sampled_from(sorted(holder) if isinstance(holder, dict) else range(len(holder))))
        if not isinstance(holder[key], (dict, list)) or not holder[key] or values.draw(st.booleans()):
            break
        holder = holder[key]
    holder[key] = values.draw(TREES)
    fed(one, json.dumps(tree).encode())


CELLS = st.one_of(
    st.text(max_size=12), st.sampled_from(("", "1", "-1", "cat", "a.png", "s/0.png", "nan", "1e999", "train"))
)


@given(rows=st.lists(st.lists(CELLS, min_size=1, max_size=8), max_size=5), columns=st.booleans())
@pytest.mark.parametrize("name", ["table", "labels", "oracle"])
def test_any_cells_are_read_or_refused(
    name: str, campaign_of: Callable[[str], Campaign], rows: list[list[str]], columns: bool
) -> None:
    one, stream = campaign_of(name), io.StringIO()
    head = one.target.valid[0].decode("utf-8-sig").partition("\n")[0]
    csv.writer(stream).writerows([head.split(","), *rows] if columns else rows)
    fed(one, stream.getvalue().encode())


ARRAYS = st.one_of(
    st.lists(st.integers(-2, 3), max_size=6).map(np.array),
    st.lists(st.floats(), max_size=6).map(np.array),
    st.lists(st.text(max_size=3), max_size=6).map(lambda texts: np.array(texts, dtype=np.str_)),
    st.lists(st.binary(max_size=3), max_size=6).map(lambda texts: np.array(texts, dtype=np.bytes_)),
    st.text(max_size=20).map(np.array),
    st.sampled_from([(6, 2), (6, 2, 2), (2, 6), (0, 3), (6, 0)]).map(lambda shape: np.zeros(shape, np.int8)),
)


@given(arrays=st.dictionaries(st.sampled_from(ARRAY_NAMES), ARRAYS, max_size=4))
def test_any_arrays_are_read_or_refused(campaign_of: Callable[[str], Campaign], arrays: dict[str, Any]) -> None:
    one, stream = campaign_of("npz"), io.BytesIO()
    np.savez(stream, **arrays)
    changed = members(stream.getvalue()) if arrays else {}
    fed(one, zipped({**members(one.target.valid[0]), **changed}))


@given(values=st.data())
@pytest.mark.parametrize("name", ["reinforce", "ddqn"])
def test_any_value_in_a_header_is_read_or_refused(
    name: str, campaign_of: Callable[[str], Campaign], values: st.DataObject
) -> None:
    one = campaign_of(name)
    parts = members(one.target.valid[0])
    header = json.loads(parts["header.json"])
    holder, key = header, values.draw(st.sampled_from(sorted(header)))
    if isinstance(header[key], dict) and header[key] and values.draw(st.booleans()):
        holder, key = header[key], values.draw(st.sampled_from(sorted(header[key])))
    holder[key] = values.draw(TREES)
    fed(one, zipped({**parts, "header.json": json.dumps(header).encode()}))


# -- the campaign itself ----------------------------------------------------------------------------------------------


def crashes(path: Path) -> None:
    raise KeyError(path)


def hangs(path: Path) -> None:
    time.sleep(60)


def forgets_the_file(path: Path) -> None:
    raise DataError("something is wrong with it")


def says_nothing(path: Path) -> None:
    raise DataError(str(path))


def warns(path: Path) -> None:
    np.float32(1e39) * np.ones(1, np.float32) * np.float32("inf") - np.float32("inf")


def takes_memory(path: Path) -> None:
    np.ones(2**24)


@pytest.mark.parametrize(
    ("read", "fault"),
    [
        (crashes, "KeyError at test_fuzz.py"),
        (hangs, "Hang at"),
        (forgets_the_file, "a message without the file: something is wrong"),
        (says_nothing, "a message too short"),
        (warns, "RuntimeWarning at"),
        (takes_memory, "memory"),
    ],
)
def test_every_kind_of_fault_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], None], fault: str
) -> None:
    # Where other programs run, anything else may take a second too.
    monkeypatch.setattr(campaign, "HANG", 1.0 if read is hangs else 60.0)
    monkeypatch.setattr(campaign, "MEMORY", 2**25)
    faulty = Target(
        "x.csv", [b"good"], lambda path: read(path) if path.read_bytes() == b"bad" else None, lambda d, _: d
    )
    one = Campaign(faulty, tmp_path, tmp_path / "kept")
    assert one.feed(b"good")
    assert not one.feed(b"bad")
    ((found, (kept, count)),) = one.outcome.faults.items()
    assert found.startswith(fault)
    assert kept.read_bytes() == b"bad"
    assert count == 1
    assert one.feed(b"good")
    assert (one.outcome.accepted, one.outcome.inputs) == (2, 3)


def test_inputs_depend_on_seed_and_number_alone(tmp_path: Path) -> None:
    target = TARGETS["oracle"](tmp_path)
    first = inputs(target, seed=3)
    some = [next(first) for _ in range(20)]
    assert next(inputs(target, seed=3, start=15)) == some[15]
    assert next(inputs(target, seed=4)) != some[0]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(Settings(readers=("oracle",), runs=20, kept=tmp_path)) == 0
    assert "oracle: 20 inputs" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"unknown reader 'orcale'\. Known: npz"):
        main(Settings(readers=("orcale",)))


def test_the_engine_that_coverage_guides(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("atheris")
    command = [sys.executable, "-m", "benchmarks.fuzz", "--engine", "atheris", "--readers", "oracle", "--runs", "300"]
    done = subprocess.run([*command, "--kept", str(tmp_path)], cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "oracle: 300 inputs" in done.stdout
    assert list(tmp_path.iterdir()) == []
