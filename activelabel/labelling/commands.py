"""Selecting images to label, and going on from the labels: what the two commands do."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from activelabel.data.backbones import Backbone
from activelabel.envs.learners import make_learner
from activelabel.errors import SettingsError
from activelabel.files import write_text
from activelabel.labelling.choosing import Chooser, make_chooser
from activelabel.labelling.files import Reading, files_of, read_labels, write_batch
from activelabel.labelling.judging import Judgement, cross_validate
from activelabel.labelling.pool import Pool, read_pool
from activelabel.labelling.project import Added, Batch, Item, Project, ProjectSettings
from activelabel.labelling.seeing import View, latent
from activelabel.seeding import stream

UNREADABLE = "unreadable.txt"
"""The file in a project's folder that lists what the last command could not read."""

_SHOWN = 10


@dataclass(frozen=True, eq=False)
class Result:
    """What a command did.

    Parameters
    ----------
    batch: that is to be labelled now; None where all images are labelled.
    lines: the report, in words.
    judgement: of the labels, where there are some.
    """

    batch: Batch | None
    lines: tuple[str, ...]
    judgement: Judgement | None = None


def select(
    folder: Path, out: Path, settings: ProjectSettings, backbone: Backbone, device: str = "auto", progress: bool = False
) -> Result:
    """Choose images of a folder and write them to ``out``, ``out.tasks.json`` and, with classes, ``out.config.xml``.

    The same call again, after an interruption at any point or without one, ends at the same files; no image is given
    out twice. A file that exists is never written over.

    Parameters
    ----------
    folder: of the project, made if it is not there.
    out: the CSV file.
    settings: of the project. One that exists keeps its images and backbone, and takes the rest.
    backbone: what ``settings`` name.
    device: that a model runs on.
    progress: show a bar.

    Raises
    ------
    SettingsError: if the project is of other images or another backbone, a file is in the way, or the strategy cannot
        choose here.
    DataError: if there are no images, or the project is damaged.
    """
    _check_out(out)
    with closing(Project(folder, create=True)) as project:
        _check_same(project.settings, settings, folder)
        batches = project.batches()
        known = next((batch for batch in batches if batch.out == out.resolve()), None)
        if known is not None:
            written = write_batch(known, project.settings or settings)
            return Result(known, (_given_out(known), *(_written(written) or ["nothing to do: its files are there."])))
        _check_free(out, settings)
        chooser = make_chooser(settings, len(batches) + 1, device)
        chooser.check(settings.backbone, backbone.dim)
        if chooser.needs_labels:
            _check_labels(project, chooser)
        pool = _pool(project, settings, backbone, progress)
        return _next(project, settings, pool, chooser, out, _about(pool, folder))


def update(
    project: Project,
    labels: Sequence[Path],
    settings: ProjectSettings,
    backbone: Backbone,
    out: Path | None = None,
    more: bool = False,
    device: str = "auto",
    progress: bool = False,
) -> Result:
    """Read labels, judge the classifier that they make, and give out the next batch once the last is labelled.

    The same call again says that there is nothing new. Labels are kept before anything else is done.

    Parameters
    ----------
    project: that gave the images out.
    labels: files; see :func:`~activelabel.labelling.files.read_labels`.
    settings: as the project's, or with changes to how the next batch is chosen.
    backbone: what ``settings`` name.
    out: of the next batch; by default that of the first with a number.
    more: give out the next batch though images of the last have no label yet.
    device, progress: see :func:`select`.

    Raises
    ------
    SettingsError, DataError: see :func:`select`; also if a file of labels cannot be read.
    """
    chooser = make_chooser(settings, len(project.batches()) + 1, device)
    chooser.check(settings.backbone, backbone.dim)
    reading = read_labels(labels, project.paths(), settings)
    added = project.add(reading.statements)
    project.keep_images({}, reading.patients)
    pool = _pool(project, settings, backbone, progress)
    lines = [*_read(project, reading, added), *_about(pool, project.folder)]
    judgement = _judge(project, settings, pool)
    lines += judgement.lines()
    batches, answers = project.batches(), project.answers()
    here = {pool.keys[row] for row in pool.present}
    answered = answers.labels.keys() | answers.skipped
    waiting = sum(item.key in here and item.key not in answered for batch in batches for item in batch.items)
    last = batches[-1] if batches else None
    nothing_new = last is not None and project.seen() <= last.seen
    if last is not None and waiting and (nothing_new or not more):
        hint = "" if nothing_new else " The next batch follows when they are labelled, or at once with --next."
        lines.append(f"{waiting} images that were given out have no label yet.{hint}")
        return Result(last, (*lines, _given_out(last), *_written(write_batch(last, settings))), judgement)
    if chooser.needs_labels:
        _check_labels(project, chooser)
    out = _next_out(batches, project) if out is None else out
    _check_out(out)
    _check_free(out, settings)
    return _next(project, settings, pool, chooser, out, lines, judgement)


# -- the steps --------------------------------------------------------------------------------------------------------


def _pool(project: Project, settings: ProjectSettings, backbone: Backbone, progress: bool) -> Pool:
    pool = read_pool(
        Path(settings.images), backbone, project.folder, project.paths(), project.answers().labels, progress
    )
    patients = pool.patients(settings.patient)
    project.keep(settings)  # not before: a folder without images is a slip, which no project has to remember
    project.keep_images(pool.paths, patients)
    if pool.unreadable:
        write_text(project.folder / UNREADABLE, "".join(f"{line}\n" for line in pool.unreadable))
    return pool


def _view(project: Project, settings: ProjectSettings, pool: Pool, batch: int) -> View:
    labels, row = project.answers().labels, pool.row
    allowed = settings.classes or labels.values()
    known = {row[key]: label for key, label in sorted(labels.items()) if key in row and label in allowed}
    names = settings.classes or sorted(set(known.values()))
    classes = tuple(name for name in names if name in set(known.values()))
    given = {item.key for each in project.batches() for item in each.items} | set(labels)
    free = np.array([row for row in pool.present if pool.keys[row] not in given], dtype=np.int64)
    order = stream(settings.seed, "labelling order", batch).permutation(free)[: settings.candidates]
    numbers = np.array([classes.index(label) for label in known.values()], dtype=np.int64)
    rows = np.array(list(known), dtype=np.int64)
    return View(pool.cohort(), order, rows, numbers, classes, make_learner(settings.learner))


def _next(
    project: Project,
    settings: ProjectSettings,
    pool: Pool,
    chooser: Chooser,
    out: Path,
    lines: Sequence[str],
    judgement: Judgement | None = None,
) -> Result:
    """Choose, record, write: in this order, so that an interruption loses nothing and repeats nothing."""
    seen = project.seen()
    view = _view(project, settings, pool, len(project.batches()) + 1)
    m = len(view.candidates)
    if not m:
        return Result(None, (*lines, "nothing left: every image was given out or is labelled."), judgement)
    k = min(settings.k, m)
    notes = [] if k == settings.k else [f"only {k} images are left."]
    if m == settings.candidates:
        notes.append(f"{m} images, drawn at random, are considered (--candidates).")
    chosen = chooser.choose(view, k)
    items = [
        Item(pool.keys[row], pool.names[row], rank, score, why)
        for rank, (row, score, why) in enumerate(chosen, start=1)
    ]
    batch = project.give_out(out, chooser.name, items, seen)
    written = write_batch(batch, settings)
    return Result(batch, (*lines, *notes, *chooser.notes(m), _given_out(batch), *_written(written)), judgement)


def _judge(project: Project, settings: ProjectSettings, pool: Pool) -> Judgement:
    view, patients = _view(project, settings, pool, 0), project.patients()
    keys = [pool.keys[row] for row in view.labelled]
    groups = np.array([patients.get(key, key) for key in keys]) if any(key in patients for key in keys) else None
    _, space = latent(view.cohort)
    return cross_validate(space[view.labelled], view.labels, view.classes, groups, view.learner, settings.seed)


# -- what is checked and told -----------------------------------------------------------------------------------------


def _check_out(out: Path) -> None:
    if out.suffix.lower() != ".csv":
        raise SettingsError(f"{out}: the file of images to label ends in .csv.")


def _check_same(old: ProjectSettings | None, new: ProjectSettings, folder: Path) -> None:
    for name, what in (("images", "the folder"), ("identity", "the backbone")):
        if old is not None and getattr(old, name) != getattr(new, name):
            raise SettingsError(
                f"{folder}: this project has {what} {getattr(old, name)}, not {getattr(new, name)}. Take another "
                "--out, which makes a project of its own, or another --project."
            )


def _check_free(out: Path, settings: ProjectSettings) -> None:
    for path in files_of(out, settings.classes).values():
        if path.exists():
            raise SettingsError(
                f"{path} exists and is not of this project; it is not written over. Take another --out."
            )


def _check_labels(project: Project, chooser: Chooser) -> None:
    classes = len(set(project.answers().labels.values()))
    if classes < 2:
        raise SettingsError(
            f"'{chooser.name}' asks a classifier, which needs labels of two classes; there are labels of {classes}. "
            "Start with --strategy kmedoids, typiclust, k-center or random, or with a run of SelectiveLabel-v0."
        )


def _next_out(batches: Sequence[Batch], project: Project) -> Path:
    if not batches:
        raise SettingsError(f"{project.folder}: nothing was given out yet; say where the batch goes with --out.")
    first = batches[0].out
    return first.with_name(f"{first.stem}-{len(batches) + 1}.csv")


def _given_out(batch: Batch) -> str:
    return f"batch {batch.number}: {len(batch.items)} images chosen by {batch.strategy}, in {batch.out}"


def _written(files: Sequence[Path]) -> list[str]:
    return [f"written: {', '.join(str(file) for file in files)}"] if files else []


def _some(lines: Sequence[str]) -> list[str]:
    more = [f"  ... and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return [f"  {line}" for line in lines[:_SHOWN]] + more


def _about(pool: Pool, folder: Path) -> list[str]:
    copies = f"; {pool.copies} files hold the same as another and count once" if pool.copies else ""
    lines = [f"{len(pool.present)} images{copies}"]
    if pool.unreadable:
        left_out = f"{len(pool.unreadable)} files or folders cannot be used and are left out"
        lines.append(f"{left_out} (listed in {folder / UNREADABLE}):")
    return lines + _some(pool.unreadable)


def _read(project: Project, reading: Reading, added: Added) -> list[str]:
    answers, names = project.answers(), {key: path for path, key in project.paths().items()}
    counts = f"{added.new} new labels, {len(answers.labels)} in all; {len(answers.skipped)} images skipped"
    lines = [f"{counts}; {reading.empty} without a label in these files"]
    if added.changed:
        lines.append(f"{len(added.changed)} labels are others now than before:")
        lines += _some([f"{names[key]}: {old}, now {new}" for key, (old, new) in sorted(added.changed.items())])
    if answers.conflicts:
        lines.append(f"{len(answers.conflicts)} images have several labels and count as unlabelled until they agree:")
        lines += _some([f"{names[key]}: {', '.join(found)}" for key, found in sorted(answers.conflicts.items())])
    if reading.problems:
        lines.append(f"{len(reading.problems)} labels could not be taken; mend them and give the command again:")
        lines += _some(reading.problems)
    return lines
