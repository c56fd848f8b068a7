"""Every reader of files: what reads it, and a few small valid files to start from."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import yaml
from torch import nn

from activelabel.agents import DDQN, Reinforce
from activelabel.data import Cohort, Source
from activelabel.data.encoder import load_encoder
from activelabel.data.networks import read_weights
from activelabel.data.npz import load_npz
from activelabel.data.pretrain import read_settings
from activelabel.data.pretrain_settings import PretrainSettings
from activelabel.data.pretraining import CHECKPOINT, ENCODER, Pretraining
from activelabel.data.readers.table import read_table
from activelabel.envs.oracles import Human
from activelabel.evaluation.study.reading import read_study
from activelabel.labelling.files import read_labels, table_text, tasks_text
from activelabel.labelling.project import STATE, Batch, Item, Project, ProjectSettings, Statement
from activelabel.settings.presets import preset, read_config
from benchmarks.fuzzing import READERS
from benchmarks.fuzzing.archives import change_model, change_npz, change_torch, npy, torch_bytes, zip_bomb
from benchmarks.fuzzing.mutation import Random, change_bytes, change_csv, change_json, change_yaml

Change = Callable[[bytes, Random], bytes]


@dataclass
class Target:
    """A reader.

    Parameters
    ----------
    file: the name of the file that it reads.
    valid: files that it accepts.
    read: reads the file of a path.
    change: makes another file of one.
    hostile: makers of files that it must refuse, besides.
    """

    file: str
    valid: list[bytes]
    read: Callable[[Path], object]
    change: Change
    hostile: Sequence[Callable[[], bytes]] = ()


def _npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def npz(folder: Path) -> Target:
    """An npz cohort."""
    features = np.arange(18, dtype=np.float32).reshape(6, 3)
    full = _npz(
        features=features,
        labels=np.array([0, 1, 0, 1, 2, 2]),
        label_names=np.array(["normal", "b", "c"]),
        age=np.array([50, 60, np.nan, 70, 80, 20]),
        sex=np.array(["F", "M", "", "f", "m", "F"]),
        view=np.array(["PA", "AP", "lateral", "", "PA", "AP"]),
        patient_id=np.arange(6),
        split=np.array([0, 0, 1, 1, 2, 2]),
        split_names=np.array(["train", "val", "test"]),
        filename=np.array([f"{i}.png" for i in range(6)]),
        source=np.array(json.dumps({"name": "small", "licence": "none"})),
    )
    images = _npz(
        images=np.arange(96, dtype=np.uint8).reshape(6, 4, 4),
        labels=np.array([[1, 0], [0, 1], [-1, 0], [0, 0], [1, 1], [0, 1]], np.int8),
        no_finding=np.array([0, 0, 1, 0, 1, 0]),
        female=np.array([0, 1, 1, 0, 0, 1]),
        split=np.array(["train"] * 6),
    )
    texts = _npz(embeddings=features, labels=np.array([b"x", b"y", b"x", b"z", b"y", b"x"]), normal=np.array("x"))
    bombs = [
        partial(zip_bomb, f"{name}.npy", npy(kind, shape, b""))
        for name, kind, shape in (
            ("features", "<f4", "(6, 60000000)"),
            ("labels", "|i1", "(1400000000,)"),
            ("label_names", "<U1", "(350000000,)"),
        )
    ]
    return Target("cohort.npz", [full, images, texts], load_npz, change_npz, bombs)


def table(folder: Path) -> Target:
    """A CSV file of paths and labels."""
    for name in ("a.png", "b.png", "c.png"):
        (folder / name).write_bytes(b"")
    rows = ("a.png,x,p1,50,F,PA,train,1", "b.png,y,p1,,m,lateral,val,0", "c.png,x,p2,70,female,,test,-1")
    header = "path,label,patient,age,sex,view,split,Edema"

    def read(path: Path) -> object:
        with path.open("rb") as stream:
            first = stream.readline(500)
        named = {name: name for name in ("patient", "age", "sex", "view", "split") if name.encode() in first}
        several = {"labels": ["Edema"]} if b"label" not in first else {}
        return read_table(path, missing="skip", **named, **several)  # type: ignore[arg-type]

    text = "\n".join([header, *rows, ""]).encode()
    small = b"path,Edema\na.png,1\nb.png,0\n"
    return Target("table.csv", [text, small, b"path,label\na.png,x\nb.png,y\n"], read, change_csv)


_CLASSES = ("cat", "dog")
_KEYS = ("00" * 8, "11" * 8, "22" * 8)


def _labelling(folder: Path) -> tuple[ProjectSettings, dict[str, str], Batch]:
    settings = ProjectSettings(str(folder / "images"), "pixels", None, None, "x", _CLASSES)
    paths = {f"s/{i}.png": key for i, key in enumerate(_KEYS)}
    items = tuple(Item(key, path, i + 1, 0.5, "far") for i, (path, key) in enumerate(paths.items()))
    return settings, paths, Batch(1, folder / "to_label.csv", "kmedoids", 0, items)


def _update(folder: Path, file: str, valid: list[bytes], change: Change) -> Target:
    """A file of labels, read into a project as ``update`` does it."""
    settings, paths, _ = _labelling(folder)
    place, reads = folder / "labels.project", 0

    def read(path: Path) -> object:
        nonlocal reads
        reads += 1
        found = read_labels([path], paths, settings)
        "\n".join(found.problems).encode()
        if reads % 200 == 0:  # every label that was ever read is looked at again
            (place / STATE).unlink(missing_ok=True)
        if reads % 4 == 0 or len(valid) == 1:
            with closing(Project(place, create=True)) as project:
                project.add(found.statements)
        return found

    return Target(file, valid, read, change)


def labels(folder: Path) -> Target:
    """A CSV file of labels, as ``update`` reads it."""
    _, _, batch = _labelling(folder)
    filled = table_text(batch).replace("png,,", "png,cat,").encode()
    plain = b"image,label,patient\ns/0.png,cat,p1\ns/1.png,dog,p2\ns/2.png,,p2\n"
    return _update(folder, "labels.csv", [filled, plain], change_csv)


def export(folder: Path) -> Target:
    """An export of Label Studio, as ``update`` reads it."""
    settings, _, batch = _labelling(folder)
    tasks = json.loads(tasks_text(batch, settings))
    done: list[dict[str, Any]] = [
        {"id": 1, **tasks[0], "annotations": [{"result": [_choice("cat")]}, {"result": [], "was_cancelled": True}]},
        {"id": 2, **tasks[1], "annotations": [{"result": [_choice("dog")], "was_cancelled": False}]},
        {"id": 3, **tasks[2], "completions": []},
    ]
    short = [
        {**task["data"], "label": label} for task, label in zip(tasks, ("cat", {"choices": ["dog"]}, ""), strict=True)
    ]
    return _update(folder, "export.json", [json.dumps(done).encode(), json.dumps(short).encode()], change_json)


def _choice(name: str) -> dict[str, Any]:
    return {"type": "choices", "from_name": "label", "to_name": "image", "value": {"choices": [name]}}


def oracle(folder: Path) -> Target:
    """The CSV file that a human oracle reads."""
    cohort = Cohort(labels=np.eye(2, dtype=np.int8), classes=_CLASSES, features=np.zeros((2, 1), np.float32))
    text = b"image,label\n0,cat\n1,dog\nx.png,\n"
    return Target("answers.csv", [text], lambda path: Human(path).check(cohort, _CLASSES), change_csv)


def config(folder: Path) -> Target:
    """The ``config.yaml`` of a run."""
    names = ("env", "agent", "data", "held_out", "fractions", "k", "pool", "learning_rate", "inputs", "seed")
    selective = {name: value for name, value in yaml.safe_load(preset("default").to_yaml()).items() if name in names}
    active = {
        "env": "ActiveLabel-v0",
        "agent": "ddqn",
        "budget": 20,
        "oracle": "noisy",
        "oracle_rate": 0.1,
        "hidden": [8],
    }
    own = {"env": "ActiveLabel-v0", "agent": "my.module:Agent", "agent_options": {"rate": 0.1, "sizes": [1, 2]}}
    valid = [json.dumps(values).encode() for values in (selective, active, own)]
    return Target("config.yaml", [*valid, yaml.safe_dump(selective).encode()], _read_config, change_yaml)


def _read_config(path: Path) -> object:
    return read_config(path).to_yaml().encode()


def study(folder: Path) -> Target:
    """A study file."""
    one = {
        "about": "a study",
        "seeds": [0, 1],
        "grids": {
            "g": {
                "env": "SelectiveLabel-v0",
                "data": ["synthetic", {"data": "digits", "name": "d", "settings": {"pool": 40, "held_out": ["8"]}}],
                "strategies": ["random", "kmedoids", {"agent": "reinforce", "name": "r", "settings": {"updates": 3}}],
                "k": [5, 10],
                "tasks": 20,
                "settings": {"pool": 50},
            }
        },
    }
    two = {
        "grids": {
            "a": {
                "env": "ActiveLabel-v0",
                "data": ["digits"],
                "strategies": ["margin", "ddqn"],
                "labels": [10],
                "batch": [1],
            }
        }
    }
    valid = [json.dumps(one).encode(), json.dumps(two).encode(), yaml.safe_dump(two).encode()]
    return Target("study.yaml", valid, lambda path: read_study(str(path)), change_yaml)


def _two_classes() -> Cohort:
    labels = np.eye(2, dtype=np.int8)[np.arange(200) % 2]
    features = (labels[:, :1] + np.random.default_rng(0).normal(size=(200, 4))).astype(np.float32)
    return Cohort(labels=labels, classes=("a", "normal"), features=features, normal=1)


def reinforce(folder: Path) -> Target:
    """A model file of REINFORCE, and its checkpoint with an env."""
    cohort = _two_classes()
    env = gym.make_vec("SelectiveLabel-v0", num_envs=2, cohort=cohort, k=2, pool=8, query=6, device="cpu")
    valid = []
    for policy, steps in (("BiLSTMPolicy", 0), ("MLPPolicy", 4), ("AnchoredPolicy", 0)):
        model = Reinforce(policy, env, batch_size=2, n_samples=2, policy_kwargs={"hidden": 2}, seed=0, device="cpu")
        if steps:  # only then the file has an optimizer's state, which makes reading twice as slow
            model.learn(steps)
        model.save(folder / "model.zip")
        valid.append((folder / "model.zip").read_bytes())
    return _agent(Reinforce, valid, env)


def ddqn(folder: Path) -> Target:
    """A model file of DDQN, and its checkpoint with an env."""
    cohort = _two_classes()
    small: dict[str, Any] = {"pool": 12, "budget": 2, "batch": 2, "state_images": 5, "learner_arguments": {"epochs": 2}}
    env = gym.make_vec("ActiveLabel-v0", num_envs=2, cohort=cohort, device="cpu", **small)
    settings: dict[str, Any] = {"buffer_size": 8, "warm_start_episodes": 1, "batch_size": 2, "gradient_steps": 1}
    model = DDQN(env=env, policy_kwargs={"hidden": [3, 2]}, seed=0, device="cpu", **settings).learn(4)
    model.save(folder / "model.zip")
    whole = (folder / "model.zip").read_bytes()
    model.save(folder / "model.zip", exclude=["replay"])
    return _agent(DDQN, [whole, (folder / "model.zip").read_bytes()], env)


def _agent(cls: Any, valid: list[bytes], env: Any) -> Target:
    reads = 0

    def read(path: Path) -> object:
        nonlocal reads
        reads += 1
        goes_on = {"env": env, "force_reset": False} if reads % 4 == 0 else {}
        return cls.load(path, device="cpu", **goes_on)

    bombs = [partial(zip_bomb, "header.json", b"["), partial(zip_bomb, "tensors.pt", b"")]
    return Target("model.zip", valid, read, change_model, bombs)


def small_net() -> nn.Module:
    """A network of a user's own."""
    return nn.Sequential(nn.Conv2d(3, 2, 3, 2), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(18, 2))


_OWN = "benchmarks.fuzzing.targets:small_net"


def _pretrained(folder: Path) -> Pretraining:
    images = np.random.default_rng(0).integers(0, 256, (16, 8, 8)).astype(np.uint8)
    labels = np.eye(2, dtype=np.int8)[np.arange(16) % 2]
    cohort = Cohort(labels=labels, classes=("a", "b"), images=images, source=Source(name="tiny"))
    sizes: dict[str, Any] = {
        "size": 8,
        "dim": 4,
        "batch_size": 8,
        "bn_splits": 2,
        "queue": 8,
        "epochs": 1,
        "workers": 1,
    }
    settings = PretrainSettings(network=_OWN, momentum=0.9, knn_k=2, **sizes)
    training = Pretraining(cohort, settings, folder, torch.device("cpu"), progress=False)
    training.run(None)
    return training


def moco(folder: Path) -> Target:
    """The checkpoint of a contrastive pretraining."""
    training = _pretrained(folder)

    def read(path: Path) -> None:
        training.restore(path)
        read_settings(path.parent)

    bombs = [partial(zip_bomb, "archive/data.pkl", b"\x80\x02")]
    return Target(CHECKPOINT, [(folder / CHECKPOINT).read_bytes()], read, change_torch, bombs)


def encoder(folder: Path) -> Target:
    """The file of a pretrained encoder."""
    _pretrained(folder)
    return Target(ENCODER, [(folder / ENCODER).read_bytes()], lambda path: load_encoder(path, _OWN), change_torch)


def weights(folder: Path) -> Target:
    """A state dict of somebody else's."""
    state = {"module.a": torch.zeros(2, 3), "b": torch.ones(4, dtype=torch.int64)}
    old = io.BytesIO()
    torch.save(state, old, _use_new_zipfile_serialization=False)
    return Target("w.pth", [torch_bytes({"state_dict": state}), old.getvalue()], read_weights, change_torch)


def project(folder: Path) -> Target:
    """The file of a labelling project."""
    settings, paths, batch = _labelling(folder)
    started = Project(folder, create=True)
    started.keep(settings)
    started.keep_images(paths, dict.fromkeys(_KEYS, "p1"))
    started.give_out(batch.out, batch.strategy, batch.items, 0)
    started.add([Statement(_KEYS[0], "cat", "x"), Statement(_KEYS[1], None, "x")])
    started.close()

    def read(path: Path) -> object:
        opened = Project(path.parent)
        try:
            found = (
                opened.settings,
                opened.paths(),
                opened.patients(),
                opened.batches(),
                opened.answers(),
                opened.seen(),
            )
            return None if found[0] is None else replace(found[0], k=3)
        finally:
            opened.close()

    return Target(STATE, [(folder / STATE).read_bytes()], read, change_bytes)


TARGETS: dict[str, Callable[[Path], Target]] = {name: globals()[name] for name in READERS}
"""Every reader by name; called with an empty folder."""
