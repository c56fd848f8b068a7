"""What ``render_mode`` shows of both environments: scenes, frames, windows and films."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import finetune_play
import gymnasium as gym
import matplotlib
import numpy as np
import pytest
from gymnasium.wrappers import RecordVideo
from matplotlib import pyplot
from matplotlib.backend_bases import FigureManagerBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from numpy.typing import NDArray

from activelabel.data import Cohort
from activelabel.envs.active import ActiveLabelEnv, ActiveLabelVectorEnv
from activelabel.envs.drawing import FRAME, GAP, LARGEST, Plane, class_colour, mosaic, principal_components
from activelabel.envs.rendering import FPS, SHOWN, Bars, Curve, Scene
from activelabel.envs.selective import SelectiveLabelEnv, SelectiveLabelVectorEnv
from activelabel.errors import SettingsError

Make = Callable[..., Any]


@pytest.fixture(autouse=True)
def agg() -> Iterator[None]:
    """No window is opened, wherever the tests run."""
    before = matplotlib.get_backend()
    pyplot.switch_backend("Agg")
    yield
    pyplot.close("all")
    pyplot.switch_backend(before)


@pytest.fixture
def pictured(blobs: Cohort) -> Cohort:
    """The cohort of blobs with an image each, whose greys tell which it is."""
    images = np.zeros((len(blobs), 4, 6), np.uint8)
    images[:, :2], images[:, 2:] = (part[:, None, None] for part in np.divmod(np.arange(len(blobs)), 256))
    return replace(blobs, images=images)


def actions(env: Any, n: int) -> list[NDArray[np.int64]]:
    env.action_space.seed(0)
    return [env.action_space.sample() for _ in range(n)]


def scene(env: Any, *which: int) -> Scene:
    return env.unwrapped._scene(*which)  # type: ignore[no-any-return]


# -- scenes of ActiveLabel-v0 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("candidates", [None, 9])
def test_scenes_of_an_episode(make_active: Make, pictured: Cohort, candidates: int | None) -> None:
    env = make_active(cohort=pictured, candidates=candidates)
    _, info = env.reset(seed=0)
    rows = env.engine.sampler.rows["pool"][env.episodes.pool[0].numpy()]
    truth = env.engine.sampler.labels["pool"][env.episodes.pool[0].numpy()]
    known, curve, fresh = set(info["initial_ids"]), [info["reward_accuracy"]], list(info["initial_ids"])
    # An index twice, one that is labelled already, and a last step that the budget cuts short.
    for action in ([3, 3, 5, 7, 0], [3, 8, 1, 2, 6], [4, 4, 4, 4, 4]):
        shown = scene(env)
        assert shown.classes.tolist() == [c if row in known else -1 for row, c in zip(rows, truth, strict=True)]
        assert rows[shown.fresh].tolist() == fresh
        assert shown.images is not None
        assert [256 * int(image[0, 0]) + int(image[2, 0]) for image in shown.images] == fresh
        assert shown.panel == Curve(
            tuple(range(0, 11, 5))[: len(curve)], tuple(curve), 12, "accuracy on the reward set"
        )
        assert shown.names == ("A", "B", "C", "D")
        assert f"{len(curve) * 5 - 5} of 12 labels spent, accuracy {curve[-1]:.3f}" in shown.status
        *_, info = env.step(np.array(action))
        fresh = info["ids"][info["ids"] >= 0].tolist()
        known |= set(fresh)
        curve.append(info["reward_accuracy"])
    assert rows[scene(env).fresh].tolist() == fresh
    panel = scene(env).panel
    assert isinstance(panel, Curve)
    assert panel.labels == (0, 5, 10, 12)


def test_what_is_on_the_test_set_is_not_shown(make_active: Make) -> None:
    env = make_active(render_mode="rgb_array")
    env.reset(seed=0)
    for action in actions(env, 3):
        env.step(action)
    before = env.render()
    env.episodes.curves[0] = [(spent, reward, 1 - test) for spent, reward, test in env.episodes.curves[0]]
    np.testing.assert_array_equal(env.render(), before)
    env.episodes.curves[0] = [(spent, 1 - reward, test) for spent, reward, test in env.episodes.curves[0]]
    assert (env.render() != before).any()


def test_the_map_is_fitted_once(make_active: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    env = make_active(render_mode="rgb_array")
    fitted: list[int] = []
    fit = Plane.fit
    monkeypatch.setattr(Plane, "fit", lambda points: fitted.append(len(points)) or fit(points))
    bounds = set()
    for seed in (0, 1):
        env.reset(seed=seed)
        for action in actions(env, 2):
            env.step(action)
            env.render()
        expected = principal_components(env.engine.points.numpy())[0][env.episodes.pool[0].numpy()]
        np.testing.assert_allclose(scene(env).places, expected, atol=1e-6)
        bounds.add(scene(env).bounds)
    part = len(env.engine.points)
    assert fitted == [part] * 3, "once for the frames; twice for what is expected"
    (limits,) = np.array(list(bounds))
    assert (limits[:, 0] < expected.min(axis=0)).all()
    assert (limits[:, 1] > expected.max(axis=0)).all()


def test_maps_of_learners_of_images() -> None:
    env = finetune_play.make()
    env.reset(seed=0)
    rows = env.engine.sampler.rows["pool"]
    images = np.asarray(finetune_play.CORNERS.images)[rows].astype(np.float64)
    # 8 x 8 pixels, made 16 x 16: each stands four times.
    expected = 2 * principal_components(images.reshape(len(rows), -1))[0][env.episodes.pool[0].numpy()]
    np.testing.assert_allclose(scene(env).places, expected, atol=1e-2)
    features = np.random.default_rng(0).standard_normal((300, 4)).astype(np.float32)
    env = finetune_play.make(cohort=replace(finetune_play.CORNERS, features=features))
    env.reset(seed=0)
    expected = principal_components(features[rows])[0][env.episodes.pool[0].numpy()]
    np.testing.assert_allclose(scene(env).places, expected, atol=1e-5)


# -- scenes of SelectiveLabel-v0 -----------------------------------------------------------------------------------


def test_before_and_after_the_step(make_env: Make, cohort: Cohort) -> None:
    env = make_env(split="val")
    _, info = env.reset(seed=0, options={"task": 5})
    before = scene(env)
    assert (before.classes == -1).all()
    assert not len(before.fresh)
    assert before.panel == Bars({"chosen": None, "random": None}, "AUROC on the query set")
    assert before.names == ("No Finding", info["condition"])
    assert info["condition"] in before.title
    assert before.images is None
    action = np.array([7, 2, 7, 11])
    _, reward, *_, info = env.step(action)
    action[:] = 0
    after = scene(env)
    assert after.fresh.tolist() == [7, 2, 11]
    assert after.classes[[7, 2, 7, 11]].tolist() == info["labels"].tolist()
    assert (after.classes >= 0).sum() == 3
    assert after.panel == Bars({"chosen": reward, "random": info["random_reward"]}, "AUROC on the query set")
    rows = env.engine.splits.val
    expected = principal_components(env.engine.features.numpy()[rows])[0]
    pool = env._tasks.pool[0]
    np.testing.assert_allclose(after.places, expected[np.searchsorted(rows, pool)], atol=1e-5)
    np.testing.assert_array_equal(after.places, before.places)
    env.reset(seed=1)
    assert not len(scene(env).fresh)
    assert scene(env).bounds == before.bounds


# -- frames --------------------------------------------------------------------------------------------------------


def test_the_same_state_gives_the_same_pixels(make_active: Make, pictured: Cohort) -> None:
    env, other = (make_active(cohort=pictured, render_mode="rgb_array") for _ in range(2))
    frames = []
    for again in (env, other):
        again.reset(seed=3)
        for action in actions(env, 3):
            if again is env:
                frames.append(env.render())
            again.step(action)
    last = other.render()
    assert last.shape == (540, 960, 3)
    assert last.shape[0] % 2 == last.shape[1] % 2 == 0, "as video codecs want it"
    assert last.dtype == np.uint8
    np.testing.assert_array_equal(env.render(), last)
    np.testing.assert_array_equal(env.render(), last)
    assert all((frame != last).any() for frame in frames)
    state = env.state_dict()
    env.reset(seed=4)
    env.render()
    env.load_state_dict(state)
    np.testing.assert_array_equal(env.render(), last)
    env.close()
    np.testing.assert_array_equal(env.render(), last)


def test_what_was_shown_before_leaves_no_trace(make_env: Make) -> None:
    env, other = (make_env(render_mode="rgb_array") for _ in range(2))
    tasks = {env.reset(options={"task": task})[1]["condition"]: task for task in range(9)}
    first, second, *_ = tasks.values()
    env.reset(options={"task": first})
    before = env.render()
    kept = before.copy()
    env.step(np.arange(4))
    assert (env.render() != before).any()
    np.testing.assert_array_equal(before, kept)
    for again in (env, other):
        again.reset(options={"task": second})
    np.testing.assert_array_equal(env.render(), other.render())


@pytest.mark.parametrize("form", ["make_env", "make_active"])
def test_lists_of_frames(form: str, request: pytest.FixtureRequest) -> None:
    env = request.getfixturevalue(form)()
    assert env.metadata["render_fps"] == FPS
    listed = gym.make(env.spec, render_mode="rgb_array_list")
    listed.reset(seed=0)
    listed.step(actions(listed, 1)[0])
    frames: Any = listed.render()
    assert [frame.shape for frame in frames] == [(540, 960, 3)] * 2


@pytest.mark.skipif(find_spec("moviepy") is None, reason='moviepy is not installed: pip install "gymnasium[other]"')
def test_a_film_of_an_episode(make_active: Make, pictured: Cohort, tmp_path: Path) -> None:
    env = RecordVideo(make_active(cohort=pictured, render_mode="rgb_array"), str(tmp_path / "films"))
    env.reset(seed=0)
    for action in actions(env, 3):
        env.step(action)
    env.close()
    (film,) = (tmp_path / "films").glob("*.mp4")
    assert film.stat().st_size > 1000


@pytest.mark.parametrize("name", ["A", "mucosa", "debris and mucus", "Enlarged Cardiomediastinum", "W" * 40, "$x$"])
def test_names_of_classes_stay_below_the_map(make_active: Make, blobs: Cohort, name: str) -> None:
    env = make_active(render_mode="rgb_array")
    env.reset(seed=0)
    screen = env._renderer.screen
    screen.frame(replace(scene(env), names=tuple(f"{name} {i}" for i in range(10))))
    (legend,) = filter(None, (axis.get_legend() for axis in screen.figure.axes))
    box, shown = legend.get_window_extent(), [text.get_text() for text in legend.get_texts()]
    assert box.y0 >= 0
    assert box.x1 <= (550 if "W" not in name else 960)
    assert shown[:2] == ["unlabelled", "just labelled"]
    assert [text.rstrip("…") in f"{name} {i}" for i, text in enumerate(shown[2:])] == [True] * 10


# -- modes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("single", [ActiveLabelEnv, SelectiveLabelEnv])
def test_unknown_modes_are_refused_before_anything_is_loaded(single: Any) -> None:
    with pytest.raises(SettingsError, match=r"render_mode='rgb' of .*Label-v0 must be 'human', 'rgb_array' or None"):
        single("no such cohort", render_mode="rgb")


@pytest.mark.parametrize("vector", [ActiveLabelVectorEnv, SelectiveLabelVectorEnv])
def test_vector_envs_have_no_window(vector: Any) -> None:
    assert vector.metadata["render_modes"] == ["rgb_array"]
    with pytest.raises(SettingsError, match=r"must be 'rgb_array' or None\. Windows are of single environments"):
        vector(2, "no such cohort", render_mode="human")


@pytest.mark.parametrize("form", ["make_env", "make_active", "make_vec", "make_active_vec"])
def test_without_a_mode_nothing_is_drawn(form: str, request: pytest.FixtureRequest) -> None:
    env = request.getfixturevalue(form)()
    env.reset(seed=0)
    env.step(actions(env, 1)[0])
    with pytest.warns(UserWarning, match="made without a render_mode"):
        assert env.render() is None
    assert env._renderer._screen is None
    assert not {"map", "rows"} & set(vars(env._scenes))
    env.close()


@pytest.mark.parametrize("form", ["make_env", "make_active", "make_vec", "make_active_vec"])
def test_before_the_first_reset_there_is_nothing_to_show(form: str, request: pytest.FixtureRequest) -> None:
    with pytest.raises(RuntimeError, match=r"reset\(\)"):
        request.getfixturevalue(form)(render_mode="rgb_array").render()


# -- windows -------------------------------------------------------------------------------------------------------


def test_human_without_a_display_is_no_error(make_active: Make) -> None:
    env = make_active(render_mode="human")
    env.reset(seed=0)
    (number,) = pyplot.get_fignums()
    env.step(actions(env, 1)[0])
    drawn = np.asarray(pyplot.figure(number).canvas.buffer_rgba())[:, :, :3].copy()
    assert env.render() is None
    same = make_active(render_mode="rgb_array")
    same.reset(seed=0)
    same.step(actions(env, 1)[0])
    np.testing.assert_array_equal(drawn, same.render())
    assert pyplot.get_fignums() == [number]
    env.close()
    assert pyplot.get_fignums() == []
    env.close()


@pytest.fixture
def windows() -> Iterator[list[Any]]:
    """A backend with windows that only count how often they are shown, and for how long."""
    seen: list[Any] = []

    class Manager(FigureManagerBase):
        def show(self) -> None:
            seen.append("shown")

    class Canvas(FigureCanvasAgg):
        manager_class = Manager

        def start_event_loop(self, timeout: float = 0) -> None:
            seen.append(timeout)

    module: Any = types.ModuleType("backend_of_the_test")
    module.FigureCanvas, module.FigureManager = Canvas, Manager
    sys.modules[module.__name__] = module
    pyplot.switch_backend(f"module://{module.__name__}")
    yield seen
    del sys.modules[module.__name__]


def test_a_window_follows_the_episode(make_env: Make, windows: list[Any]) -> None:
    env = make_env(render_mode="human")
    env.reset(seed=0)
    assert windows == ["shown", 1 / FPS]
    env.step(np.arange(4))
    assert windows == ["shown", 1 / FPS] * 2
    pyplot.close("all")  # by hand
    env.reset(seed=1)
    assert windows == ["shown", 1 / FPS] * 2
    env.close()


# -- vector envs ---------------------------------------------------------------------------------------------------


def test_frames_of_a_vector_env(make_active: Make, make_active_vec: Make) -> None:
    envs = make_active_vec(2, render_mode="rgb_array")
    envs.reset(seed=5)
    chosen = actions(envs, 1)[0]
    envs.step(chosen)
    frames = envs.render()
    assert isinstance(frames, tuple)
    for i, frame in enumerate(frames):
        env = make_active(render_mode="rgb_array")
        env.reset(seed=5 + i)
        env.step(chosen[i])
        np.testing.assert_array_equal(frame, env.render())
    envs.close()
    assert envs._renderer._screen is None


@pytest.mark.parametrize(("mode", "fresh"), [("SameStep", 0), ("NextStep", 4), ("Disabled", 4)])
def test_tasks_of_a_vector_env(make_vec: Make, mode: str, fresh: int) -> None:
    envs = make_vec(2, render_mode="rgb_array", autoreset_mode=mode)
    envs.reset(seed=0)
    envs.step(np.tile(np.arange(4), (2, 1)))
    assert [len(scene(envs, i).fresh) for i in range(2)] == [fresh] * 2
    if mode == "Disabled":
        envs.reset(options={"reset_mask": np.array([True, False])})
        assert [len(scene(envs, i).fresh) for i in range(2)] == [0, 4]
    assert len(envs.render()) == 2


# -- images side by side -------------------------------------------------------------------------------------------


def test_mosaic() -> None:
    wide, tall = np.array([[200, 100] * 2] * 2, np.uint8), np.full((4, 2, 3), (1, 2, 3), np.uint8)
    sheet = mosaic([wide, tall], [1, 0], 300, 100)
    assert sheet.shape == (100, 300, 3)
    side = 100 - GAP
    for place, (label, grey) in enumerate([(1, [200, 200, 200]), (0, [1, 2, 3])]):
        tile = sheet[:side, place * 100 :][:, :side]
        assert tile[0, 0].tolist() == [round(255 * part) for part in class_colour(label)]
        assert tile[side // 2, side // 2].tolist() == grey
    inner = side - 2 * FRAME
    for value in (200, 100):
        assert (sheet[:side, :side] == value).all(axis=2).sum() == inner * inner // 4, "in proportion, and not blurred"
    assert (sheet[side:] == 255).all()
    assert (mosaic([], [], 30, 20) == 255).all()
    assert (mosaic([wide], [0], 900, 900)[LARGEST:] == 255).all()


def test_more_images_than_there_is_room_for(make_active: Make, pictured: Cohort) -> None:
    env = make_active(cohort=pictured, budget=20, batch=20, pool=90, render_mode="rgb_array")
    env.reset(seed=0)
    env.step(np.flatnonzero(env.episodes.mask[0].numpy())[:20])
    shown = scene(env)
    assert (len(shown.fresh), len(shown.images or [])) == (20, SHOWN)
    env.render()
    texts = [text.get_text() for text in env._renderer.screen.figure.texts]
    assert f"Just labelled: 20, the first {SHOWN}" in texts
