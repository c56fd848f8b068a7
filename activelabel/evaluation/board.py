"""What TensorBoard shows of a run besides its training: learning curves of the test, the outcome, what was selected.

``evaluation/{strategy}`` in the run's directory has the learning curves, one run of TensorBoard for each strategy, so
that it draws them over each other. ``outcome`` has the settings and the outcome (the HParams tab), the mosaic of what
the agent selected in the first test task, and the pool of that task (the projector). Both are written anew by every
evaluation of the run.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from stable_baselines3.common.logger import Logger, TensorBoardOutputFormat
from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
from tensorboard.plugins.hparams import metadata, plugin_data_pb2  # type: ignore[import-untyped]
from tensorboard.plugins.hparams.api_pb2 import STATUS_SUCCESS  # type: ignore[import-untyped]
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig  # type: ignore[import-untyped]
from torch.utils.tensorboard import SummaryWriter

from activelabel.data import Cohort
from activelabel.data.cohort import FloatArray
from activelabel.data.images import Pixels, fit
from activelabel.envs.drawing import to_uint8
from activelabel.evaluation.selections import Selections
from activelabel.settings import RunSettings

CURVES = "evaluation"
"""Folder of the learning curves in a run's directory."""

OUTCOME = "outcome"
"""Folder of the outcome, the mosaic and the projector in a run's directory."""

TILE = 96
"""Pixels a side of an image in the mosaic."""

MOST = 400
"""Images in the mosaic at most: the first that were selected."""

_TEXT = 15
_SPRITE = 32
_LARGEST_SPRITE = 8192  # what browsers take
_AXES = 64  # the projector reads every run's points when it is opened, as text


@dataclass(frozen=True, eq=False)
class Views:
    """What is shown of an evaluation.

    Parameters
    ----------
    curves: by strategy and tag, points ``(labels, mean)``.
    outcome: figures that say how good the run is, by name.
    selections: what the agent chose in the first test task or episode.
    """

    curves: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]]
    outcome: Mapping[str, float]
    selections: Selections


def training_logger(folder: Path, done: int) -> Logger:
    """Return a logger to TensorBoard for a training that has ``done`` steps behind it.

    What an interrupted training logged after its last checkpoint is withdrawn, since it will be logged again.
    """
    output = TensorBoardOutputFormat(str(folder))
    start = Event(step=done + 1, session_log=SessionLog(status=SessionLog.START))
    cast(Any, output.writer.file_writer).add_event(start, done + 1)
    return Logger(str(folder), [output])


def write_views(folder: Path, settings: RunSettings, cohort: Cohort, views: Views) -> None:
    """Write what is shown of an evaluation to a run's directory, in place of what was there of an earlier one.

    Parameters
    ----------
    folder: the run's directory.
    settings: of the run.
    cohort: that the selections are of; the mosaic is of its images, where it has them.
    views: what to write.
    """
    for name in (CURVES, OUTCOME):
        if (folder / name).exists():
            shutil.rmtree(folder / name)
    for strategy, curves in views.curves.items():
        with _writer(folder / CURVES / re.sub(r"[^\w .()-]", "-", strategy)) as writer:
            for tag, points in curves.items():
                for labels, value in points:
                    writer.add_scalar(tag, value, labels)
    with _writer(folder / OUTCOME) as writer:
        for summary in _session(settings):
            writer.file_writer.add_summary(summary)
        for name, value in views.outcome.items():
            writer.add_scalar(f"outcome/{name}", value, 0)
        if cohort.images is not None:
            writer.add_image("selected", _mosaic(cohort.images, views.selections), 0, dataformats="HWC")
    _write_projector(folder / OUTCOME, cohort, views.selections)


def _writer(folder: Path) -> Any:
    return cast(Any, SummaryWriter)(str(folder))


def _session(settings: RunSettings) -> list[Summary]:
    """Return the settings as the HParams tab reads them.

    Without a summary of the experiment, which lists what there is to compare: TensorBoard takes that of one run for all
    in a folder, and shows nothing that another run has besides.
    """
    start = plugin_data_pb2.SessionStartInfo()
    for name, value in asdict(settings).items():
        if isinstance(value, bool):  # first: it is an int too
            start.hparams[name].bool_value = value
        elif isinstance(value, int | float):
            start.hparams[name].number_value = value
        elif isinstance(value, str | dict):
            start.hparams[name].string_value = value if isinstance(value, str) else json.dumps(value)
        elif value is not None:
            start.hparams[name].string_value = " ".join(map(str, value))
    end = plugin_data_pb2.SessionEndInfo(status=STATUS_SUCCESS)
    contents = {
        metadata.SESSION_START_INFO_TAG: plugin_data_pb2.HParamsPluginData(session_start_info=start),
        metadata.SESSION_END_INFO_TAG: plugin_data_pb2.HParamsPluginData(session_end_info=end),
    }
    return [
        Summary(
            value=[
                Summary.Value(tag=tag, metadata=metadata.create_summary_metadata(content), tensor=metadata.NULL_TENSOR)
            ]
        )
        for tag, content in contents.items()
    ]


# -- what was selected in the first task ------------------------------------------------------------------------------


def _mosaic(images: Any, selections: Selections) -> Pixels:
    """Return what was selected in the first task in the order of choice, each with its number and label below."""
    new = np.flatnonzero(selections.new[0])[:MOST]
    columns = max(10, math.ceil(math.sqrt(len(new))))
    canvas = Image.new("RGB", (columns * TILE, math.ceil(len(new) / columns) * (TILE + _TEXT) or 1), "white")
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), 11)
    for place, order in enumerate(map(int, new)):
        x, y = place % columns * TILE, place // columns * (TILE + _TEXT)
        canvas.paste(Image.fromarray(fit(to_uint8(images[int(selections.rows[0, order])]), TILE)), (x, y))
        text = f"{order + 1} {selections.classes[selections.labels[0, order]]}"
        while font.getlength(text) > TILE - 4:
            text = text[:-1]
        draw.text((x + 2, y + TILE), text, fill="black", font=font)
    return np.asarray(canvas)


def _write_projector(folder: Path, cohort: Cohort, selections: Selections) -> None:
    """Write the pool of the first task for the projector, with class and order of choice; not without features."""
    rows, labels = selections.pool[0], selections.pool_labels[0]
    points = cohort.features if selections.points is None else selections.points
    if points is None:
        return
    order = ["-"] * len(rows)
    for turn in np.flatnonzero(selections.new[0]):
        order[selections.chosen[0, turn]] = str(turn + 1)
    names = rows if cohort.names is None else cohort.names[rows]
    classes = [selections.classes[label] for label in labels]
    selected = ["no" if number == "-" else "yes" for number in order]  # colours go by 50 values at most, order has more
    lines = zip(("image", *names), ("class", *classes), ("selected", *selected), ("order", *order), strict=True)
    text = ["\t".join(re.sub(r"\s", " ", str(value)) for value in line) for line in lines]
    (folder / "metadata.tsv").write_text("\n".join(text) + "\n", encoding="utf-8")
    shown = _narrow(np.asarray(points[rows]))
    np.savetxt(folder / "tensors.tsv", shown, fmt="%.5g", delimiter="\t")
    config = ProjectorConfig()
    pool = config.embeddings.add(
        tensor_name="pool", tensor_path="tensors.tsv", metadata_path="metadata.tsv", tensor_shape=shown.shape
    )
    if cohort.images is not None:
        side = math.ceil(math.sqrt(len(rows)))
        size = min(_SPRITE, _LARGEST_SPRITE // side)
        sprite = Image.new("RGB", (side * size, side * size))
        for place, row in enumerate(map(int, rows)):
            tile = Image.fromarray(fit(to_uint8(cohort.images[row]), size))
            sprite.paste(tile, (place % side * size, place // side * size))
        sprite.save(folder / "sprite.png")
        pool.sprite.image_path = "sprite.png"
        pool.sprite.single_image_dim.extend([size, size])
    (folder / "projector_config.pbtxt").write_text(str(config), encoding="utf-8")


def _narrow(points: FloatArray) -> NDArray[Any]:
    """Return points of at most 64 numbers: of wider ones the principal components."""
    if points.shape[1] <= _AXES:
        return points
    u, s, _ = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    narrow: NDArray[Any] = (u * s)[:, :_AXES]
    return narrow
