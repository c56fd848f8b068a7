"""Files of strangers: nothing in them is executed, and a small one takes neither much memory nor much time."""

from __future__ import annotations

import ast
import json
import os
import pickle
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from activelabel.agents import Reinforce
from activelabel.data.encoder import load_encoder
from activelabel.data.images import UnreadableImage, content_of, read_image
from activelabel.data.networks import read_weights
from activelabel.data.npz import load_npz
from activelabel.data.readers.table import read_table
from activelabel.envs.oracles import Human
from activelabel.errors import ActiveLabelError, CheckpointError, DataError, SettingsError
from activelabel.evaluation.study.reading import read_study
from activelabel.labelling.files import read_labels
from activelabel.labelling.project import STATE, Project, ProjectSettings
from activelabel.reading import YAML_BYTES, read_yaml
from activelabel.settings.presets import read_config
from benchmarks.fuzzing.archives import npy, zip_bomb, zipped
from benchmarks.fuzzing.mutation import Random, yaml_bomb

PACKAGE = Path(__file__).resolve().parents[1] / "activelabel"


class Dangerous:
    """Makes a folder where it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("was-run",)


def refused(read: Callable[[Path], Any], path: Path, data: bytes | None = None) -> str:
    """Return the message with which a file is refused."""
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ActiveLabelError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


# -- the package's own calls ------------------------------------------------------------------------------------------


def unsafe_calls(source: str) -> list[str]:
    """Return the calls that can run code from a file."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = {word.arg: ast.unparse(word.value) for word in node.keywords}
        unsafe = (
            re.fullmatch(
                r"(pickle|cPickle|dill|cloudpickle|joblib|marshal|shelve)\.(load|loads|open|Unpickler)", called
            )
            or re.fullmatch(r"yaml\.(load|load_all|full_load|unsafe_load)", called)
            or called in ("eval", "exec", "np.fromfile", "pd.read_pickle", "numpy.fromfile")
            or (called in ("torch.load", "torch.jit.load") and given.get("weights_only") != "True")
            or (re.fullmatch(r"(np|numpy)\.load", called) and given.get("allow_pickle") != "False")
            or re.search(r"\.(extractall|extract)$", called)
        )
        if unsafe:
            found.append(ast.unparse(node))
    return found


def test_no_call_of_the_package_unpickles() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 100
    assert {str(path): calls for path in files if (calls := unsafe_calls(path.read_text("utf-8")))} == {}


@pytest.mark.parametrize(
    "call",
    [
        *("pickle.load(f)", "pickle.loads(b)", "joblib.load(p)", "torch.load(f)", "torch.load(f, weights_only=False)"),
        *(
            "np.load(f)",
            "np.load(f, allow_pickle=True)",
            "yaml.load(f, yaml.Loader)",
            "archive.extractall(p)",
            "eval(t)",
        ),
    ],
)
def test_unsafe_calls_are_seen(call: str) -> None:
    assert unsafe_calls(f"def f():\n    return {call}\n")


# -- YAML -------------------------------------------------------------------------------------------------------------

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{b}: &{b} {{<<: [{','.join([f'*{a}'] * 9)}], {b}: 1}}\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "more than 50000 values"),
        (MERGES, "more than 50000 values"),
        ("a: &a [*a]", "contains itself"),
        ("a: " + "[" * 60 + "]" * 60, "more than 50 levels"),
        ("a: " + "[" * 500, "more than 50 levels"),
        ("a: " + "9" * 30, "whole number of 100 bits"),
        ("a: 0x" + "f" * 9000, "whole number of 36000 bits"),
        ("a: " + "9" * 5000, "not readable as YAML"),
        ("a: .nan", "nan is not finite"),
        ("a: -.inf", "-inf is not finite"),
        ("a: 2020-01-31", "a date; put text in quotes"),
        ("a: 2020-99-99", "month must be in"),
        ("a: !!timestamp x", "not of its type"),
        ("a: !!int ''", "not of its type"),
        ("a: !!bool x", "not of its type"),
        ("a: !!binary eA==", "a bytes"),
        ("a: !!python/object/apply:os.mkdir [was-run]", "could not determine a constructor"),
        ('a: "\\ud800"', "half of a surrogate pair"),
        ("a: '" + "x" * YAML_BYTES + "'", f"longer than {YAML_BYTES} bytes"),
        ("a: b: c", "not readable as YAML"),
    ],
)
@pytest.mark.parametrize("read", [read_config, lambda path: read_study(str(path))], ids=["config", "study"])
def test_yaml_that_is_no_plain_values_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], Any], text: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    message = refused(read, tmp_path / "file.yaml", text.encode())
    assert said in message
    assert "\n" not in message
    assert not (tmp_path / "was-run").exists()


def test_aliases_within_reason_are_read(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("a: &a {k: 1}\nb: {<<: *a, l: [*a, *a]}\n")
    assert read_yaml(tmp_path / "x.yaml")[1] == {"a": {"k": 1}, "b": {"k": 1, "l": [{"k": 1}, {"k": 1}]}}


def test_a_study_of_millions_of_cells_is_refused(tmp_path: Path) -> None:
    many = {"labels": list(range(1, 4000)), "batch": list(range(1, 4000))}
    grid: dict[str, Any] = {"env": "ActiveLabel-v0", "data": ["digits"], "strategies": ["margin"], **many}
    text = json.dumps({"grids": {"g": grid}}).encode()
    assert "15992001 budgets" in refused(lambda path: read_study(str(path)), tmp_path / "s.yaml", text)
    names = {"data": [{"data": "digits", "name": str(i)} for i in range(80)]}
    names["strategies"] = [{"agent": "ddqn", "name": str(i)} for i in range(80)]
    text = json.dumps({"grids": {"g": {"env": "ActiveLabel-v0", **names}}}).encode()
    assert "6480 pairs" in refused(lambda path: read_study(str(path)), tmp_path / "s.yaml", text)


def test_every_bomb_is_refused(tmp_path: Path) -> None:
    for number in range(30):
        text = yaml_bomb(Random(number))
        if text.count(b"\n") > 6:
            refused(read_config, tmp_path / "config.yaml", text)


# -- npz and CSV ------------------------------------------------------------------------------------------------------

LABELS = npy("|i1", "(6,)", bytes(6))


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"labels.npy": npy("|i1", "(10000000000000,)", b"")}, "not a readable npz file"),
        ({"labels.npy": npy("<U0", "(10000000000000,)", b"")}, "10000000000000 values of no bytes"),
        ({"labels.npy": npy("|i1", "(0, 1000000000000)", b"")}, "labels is empty: (0, 1000000000000)"),
        ({"labels.npy": npy("|i1", "(1000000000000, 0)", b"")}, "labels is empty"),
        ({"labels.npy": npy("|O", "(6,)", pickle.dumps(Dangerous()))}, "not a readable npz file"),
        ({"labels.npy": b"\x93NUMPY\x09\x00" + bytes(20)}, "not a readable npz file"),
        ({"labels.npy": b"no array"}, "a member is no array"),
        ({"labels.npy": npy("|i1", "(6,)" + "(" * 4000, bytes(6))}, "not a readable npz file"),
        ({"labels.npy": LABELS, "label_names.npy": npy("<U1", "(1,)", b"\xff\xff\xff\x00")}, "do not exist"),
        ({"labels.npy": LABELS, "label_names.npy": npy(">U1", "(1,)", b"\x00\x00\xd8\x00")}, "do not exist"),
        ({"labels.npy": LABELS, "features.npy": npy("<f8", "(6, 1)", b"\xff" * 48)}, "6 values that are NaN"),
        ({"labels.npy": LABELS, "features.npy": npy("|i1", f"(0, 0, {2**62})", b"")}, "an empty array of shape"),
    ],
)
def test_npz_headers_that_lie_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: dict[str, bytes], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    default = {"features.npy": npy("<f4", "(6, 1)", bytes(24))}
    assert said in refused(load_npz, tmp_path / "c.npz", zipped({**default, **parts}))
    assert not (tmp_path / "was-run").exists()


def test_headers_of_python_2_are_read_without_a_warning(tmp_path: Path) -> None:
    parts = {"features.npy": npy("<f4", "(6L, 1L)", bytes(24)), "labels.npy": LABELS}
    (tmp_path / "c.npz").write_bytes(zipped(parts))
    assert load_npz(tmp_path / "c.npz").embedded().shape == (6, 1)


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, '{"name": "\\ud800"}', "3"])
def test_a_source_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.npz"
    np.savez(path, features=np.zeros((2, 1)), labels=[0, 1], source=np.array(text))
    assert "source is not the JSON text" in refused(load_npz, path)


def test_archives_that_unpack_to_far_more_are_refused_before_they_do(tmp_path: Path) -> None:
    size = 40_000_000
    assert "unpack to" in refused(
        load_npz, tmp_path / "c.npz", zip_bomb("labels.npy", npy("|i1", f"({size},)", b""), size)
    )
    for member in ("header.json", "tensors.pt"):
        bomb = zip_bomb(member, b"", size)
        assert "unpack to" in refused(Reinforce.load, tmp_path / "m.zip", bomb)
    bomb = zip_bomb("archive/data.pkl", b"\x80\x02", size)
    assert "unpack to" in refused(load_encoder, tmp_path / "encoder.pt", bomb)
    assert "unpack to" in refused(read_weights, tmp_path / "w.pth", bomb)


def test_ordinary_compressed_cohorts_are_read(tmp_path: Path) -> None:
    images = np.zeros((64, 256, 256), np.uint8)  # 4 MB that take 5 kB
    np.savez_compressed(tmp_path / "c.npz", images=images, labels=np.arange(64) % 2)
    assert len(load_npz(tmp_path / "c.npz")) == 64


def test_a_column_of_names_is_no_column_of_classes(tmp_path: Path) -> None:
    n = 6000
    names = np.array([f"{i}" for i in range(n)])
    np.savez(tmp_path / "c.npz", features=np.zeros((n, 1), np.float32), labels=names)
    assert f"labels: {n} classes in {n} rows" in refused(load_npz, tmp_path / "c.npz")
    (tmp_path / "x.png").write_bytes(b"")
    rows = "".join(f"x.png,{name}\n" for name in names)
    assert f"'label': {n} classes in {n} rows" in refused(
        read_table, tmp_path / "t.csv", f"path,label\n{rows}".encode()
    )


def test_numbers_beyond_float32_are_refused_without_a_warning(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"")
    read = lambda path: read_table(path, age="age")  # noqa: E731
    assert "'1e300' is not finite" in refused(read, tmp_path / "t.csv", b"path,label,age\nx.png,a,1e300\n")
    np.savez(tmp_path / "c.npz", features=np.zeros((2, 1)), labels=[0, 1], age=[1e300, 1])
    assert "age has infinite values" in refused(load_npz, tmp_path / "c.npz")


@pytest.mark.parametrize(
    "text", ["image,label\na,\x00\n", "image\na\n", "", "image,label\na,cat\na,dog\n", "image,label\na\n"]
)
def test_an_oracles_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    def read(path: Path) -> None:
        Human(path).check(None, ("cat", "dog"))  # type: ignore[arg-type]

    refused(read, tmp_path / "a.csv", text.encode())


@pytest.mark.parametrize(
    "task",
    [
        {"data": {"key": []}},
        {"data": {"key": "k"}, "annotations": [{"result": 5}]},
        {"data": {"key": "k"}, "annotations": [{"result": [{"type": "choices", "value": {"choices": [[["cat"]]]}}]}]},
        {"key": "k", "label": "\ud800"},
        {"id": [[]], "image": {"a": [1]}},
        {"id": "\ud800", "image": "\udfff"},
    ],
)
def test_an_export_with_odd_values_is_told_or_passed_over(tmp_path: Path, task: dict[str, Any]) -> None:
    path = tmp_path / "export.json"
    good = {"key": "k", "label": "cat"}
    path.write_text(json.dumps([task, good]))
    found = read_labels([path], {"a.png": "k"}, ProjectSettings(str(tmp_path), "pixels", None, None, "x"))
    assert [statement.label for statement in found.statements] == ["cat"]
    "".join(found.problems).encode()
    assert found.problems or found.empty


def test_a_damaged_project_is_refused_and_closed(tmp_path: Path) -> None:
    Project(tmp_path, create=True).close()
    path = tmp_path / STATE
    whole = path.read_bytes()
    refused(lambda path: Project(path.parent), path, b"no database" + bytes(4000))
    refused(lambda path: Project(path.parent), path, whole[:100] + b"\xff" * 200 + whole[300:])
    path.write_bytes(whole)
    with sqlite3.connect(path) as base:
        base.execute("INSERT INTO settings VALUES ('settings', ?)", ("[" * 10_000,))
    base.close()
    opened = Project(tmp_path)
    assert "damaged settings" in refused(lambda _: opened.settings, path)
    opened.close()


@pytest.mark.parametrize("place", ["a\0b", b"a"])
def test_a_project_with_values_of_other_types_is_refused(tmp_path: Path, place: object) -> None:
    Project(tmp_path, create=True).close()
    with sqlite3.connect(tmp_path / STATE) as base:
        base.execute("INSERT INTO batches VALUES (1, ?, 'x', 0)", (place,))
        base.execute("INSERT INTO statements VALUES (1, 1, 'k', ?, 's', 't')", (b"cat",))
    base.close()
    opened = Project(tmp_path)
    assert "damaged" in refused(lambda _: opened.batches(), tmp_path / STATE)
    assert "damaged" in refused(lambda _: opened.answers(), tmp_path / STATE)
    opened.close()


def test_pipes_and_devices_are_no_images(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UnreadableImage, match=r"pipe\.png: no file of an image"):
        read_image(tmp_path / "pipe.png")
    assert content_of(np.zeros(1))


# -- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("normal: 3", "normal must be str, got 3"),
        ("held_out: [a, 3]", "held_out[1] must be str, got 3"),
        ("fractions: [0.7, x, 0.1]", "fractions[1] must be float, got 'x'"),
        ("eval_k: [true]", "eval_k[0] must be int, got True"),
        ("val_pool: 3.5", "val_pool must be int, got 3.5"),
        ("learning_rate: 1" + "0" * 18, "learning_rate"),
        ("agent_options: [1]", "agent_options must be dict"),
    ],
)
def test_values_of_another_type_are_refused_where_they_stand(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    if "10000" in text:
        assert read_config(path).learning_rate == 1e18  # type: ignore[attr-defined]
    else:
        assert said in refused(read_config, path)


def test_errors_are_of_their_kind(tmp_path: Path) -> None:
    for read, kind in ((load_npz, DataError), (read_config, SettingsError), (Reinforce.load, CheckpointError)):
        with pytest.raises(kind):
            read(tmp_path / "nowhere.zip")  # type: ignore[operator]
