"""``SelectiveLabel-v0`` whose labels are wrong, missing or dear, against a slow reference and each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import torch
from active_reference import ask, listed
from oracle_play import three_annotators
from torch import Tensor

from activelabel.baselines import BASELINES
from activelabel.data import Cohort
from activelabel.envs import SelectiveLabelEngine, SelectiveLabelSettings
from activelabel.envs.asking import Perfect, Questions
from activelabel.envs.oracles import Human
from activelabel.envs.rendering import Bars
from activelabel.errors import SettingsError
from activelabel.evaluation.protocol import play
from activelabel.seeding import stream
from activelabel.settings import SelectiveRunSettings

Make = Callable[..., Any]

CONFUSION = [[0.9, 0.1], [0.5, 0.5]]

GAMES: dict[str, dict[str, Any]] = {
    "noisy": {"oracle": "noisy", "oracle_arguments": {"rate": 0.4}},
    "confusion": {"oracle": "noisy", "oracle_arguments": {"confusion": CONFUSION}, "duplicates": "repeat"},
    "always wrong": {"oracle": "noisy", "oracle_arguments": {"rate": 1.0}, "predictor": "mean-cosine"},
    "abstaining": {"oracle": "abstaining", "oracle_arguments": {"rate": 0.5}, "duplicates": "repeat"},
    "never an answer": {"oracle": "abstaining", "oracle_arguments": {"rate": 1.0}},
    "costs": {"oracle": "annotators", "oracle_arguments": {"errors": [0.3, 0.0], "costs": [1, 3]}},
    "all at once": {**three_annotators(CONFUSION), "duplicates": "repeat"},
}


def engine_of(cohort: Cohort, **changes: Any) -> SelectiveLabelEngine:
    return SelectiveLabelEngine(cohort, SelectiveLabelSettings.make(k=6, pool=20, query=12, **changes), device="cpu")


def slow(engine: SelectiveLabelEngine, task: int, selection: list[int]) -> tuple[float, list[int]]:
    """The reward of a selection, and what the oracle said of each index: one image after the other."""
    s, tasks = engine.settings, engine.tasks([task])
    draws = stream(s.task_seed, s.split, "oracle", task).random((s.pool, 4)).tolist()
    left, said, known = len(selection), [], set()
    for index in selection:
        cost, answer = ask(s.oracle, s.oracle_arguments, draws[index], int(tasks.pool_labels[0][index]), 2)
        left -= 1 if index in known else cost
        said.append(answer if left >= 0 else -1)
        known.add(index)
    heard = [place for place, answer in enumerate(said) if answer >= 0]
    rows, labels = tasks.pool[0][selection][heard], np.array(said)[heard] == 1
    features, query = engine.features.numpy(), (tasks.query[0], tasks.query_labels[0])
    return reference.reward(s.predictor, features, rows, labels, *query, once=s.duplicates == "once"), said  # type: ignore[arg-type]


@pytest.mark.parametrize("name", GAMES)
def test_rewards_and_labels_equal_the_slow_reference(make_env: Make, name: str) -> None:
    env = make_env(k=6, **GAMES[name])
    rng = np.random.default_rng(0)
    strange = 0
    for task in range(8):
        env.reset(options={"task": task})
        # Of few images, so that some repeat; side by side, and more of them than the pool.
        for tried in (2, 5):
            selections = rng.integers(9, size=(tried, 6))
            expected = [slow(env.engine, task, each.tolist())[0] for each in selections]
            np.testing.assert_allclose(env.score_selections(selections), expected, rtol=0, atol=1e-9)
        action = selections[0]
        _, reward, *_, info = env.step(action)
        expected_reward, said = slow(env.engine, task, action.tolist())
        assert reward == pytest.approx(expected_reward, abs=1e-9)
        assert info["labels"].tolist() == said
        assert info["labels"].dtype == np.int8
        tasks = env.engine.tasks([task])
        assert info["ids"].tolist() == tasks.pool[0][action].tolist()
        answers = dict(zip(action[::-1].tolist(), said[::-1], strict=True))
        heard = [answer for answer in answers.values() if answer >= 0]
        assert (info["n_labelled"], info["positives"]) == (len(heard), sum(heard))
        assert info["one_class"] == (sum(heard) in (0, len(heard)))
        random = env.engine.random_selections(tasks, 6)[0].tolist()
        assert info["random_reward"] == pytest.approx(slow(env.engine, task, random)[0], abs=1e-9)
        strange += sum(a != b for a, b in zip(said, tasks.pool_labels[0][action].tolist(), strict=True))
    assert strange > 2


@pytest.mark.parametrize("name", GAMES)
def test_a_vector_env_equals_single_envs(make_env: Make, make_vec: Make, name: str) -> None:
    vector, env = make_vec(5, autoreset_mode="Disabled", **GAMES[name]), make_env(**GAMES[name])
    _, started = vector.reset(seed=3)
    assert len(set(started["condition"])) > 1
    actions = np.random.default_rng(0).integers(8, size=(5, 4))
    _, rewards, *_, infos = vector.step(actions)
    for i in range(5):
        env.reset(options={"task": int(started["task"][i])})
        _, reward, *_, info = env.step(actions[i])
        assert reward == rewards[i]
        for key, value in info.items():
            np.testing.assert_array_equal(infos[key][i], value, err_msg=key)


@pytest.mark.parametrize(
    "change",
    [
        {"oracle": "noisy", "oracle_arguments": {"rate": 0.0}},
        {"oracle": "noisy", "oracle_arguments": {"confusion": [1, 0, 0, 1]}},
        {"oracle": "abstaining", "oracle_arguments": {"rate": 0.0}},
        {"oracle": "annotators", "oracle_arguments": {"errors": [0, 0], "shares": [0.9, 0.1]}},
        {"oracle": Perfect()},
    ],
)
def test_an_oracle_without_errors_is_the_perfect_one_to_the_last_bit(make_env: Make, change: dict[str, Any]) -> None:
    played = []
    for env in (make_env(), make_env(**change)):
        env.reset(seed=1)
        env.action_space.seed(0)
        played.append(listed([env.score_selections([[3, 3, 1], [1, 2, 3]]), env.step(env.action_space.sample())]))
    np.testing.assert_equal(played[0], played[1])


def test_the_same_image_is_answered_alike_by_whomever_it_is_asked_for(cohort: Cohort) -> None:
    engine = engine_of(cohort, oracle="annotators", oracle_arguments={"errors": [0.5, 0.2], "abstain": [0.3, 0.0]})
    everyone = np.arange(20)
    forward = engine.score(engine.tasks([4, 7]), np.stack([everyone[None]] * 2)).answers[:, 0]
    backward = engine.score(engine.tasks([7]), everyone[None, None, ::-1]).answers[0, 0, ::-1]
    np.testing.assert_array_equal(forward[1], backward)
    assert {-1, 0, 1} == set(backward.tolist())
    alone = engine.sibling(k=1).score(engine.tasks([7]), everyone[None, :, None]).answers[0, :, 0]
    np.testing.assert_array_equal(alone, backward)
    # Another task of the same images is another draw.
    other = engine.sibling(task_seed=1)
    assert (forward[0] != other.score(engine.tasks([4]), everyone[None, None]).answers[0, 0]).any()


def test_errors_are_nested_by_rate_and_do_harm(cohort: Cohort) -> None:
    wrong, reached = [], []
    for rate in (0.0, 0.1, 0.3, 0.5):
        engine = engine_of(cohort, oracle="noisy", oracle_arguments={"rate": rate})
        tasks = engine.tasks(range(20))
        said = engine.score(tasks, np.tile(np.arange(20), (20, 1, 1))).answers[:, 0]
        wrong.append(set(np.flatnonzero(said != tasks.pool_labels).tolist()))
        scores = play(engine, BASELINES["kmedoids"](6), [6], 60)[6]
        reached.append(scores.reward.mean())
    assert wrong[0] == set()
    assert wrong[0] < wrong[1] < wrong[2] < wrong[3]
    assert reached[0] > reached[1] > reached[2] > reached[3]


def test_the_truth_goes_into_nothing_but_the_answers(cohort: Cohort) -> None:
    fixed: Tensor = torch.from_numpy(stream(0, "fixed").integers(0, 2, len(cohort)))

    class Fixed(Perfect):
        def answers(self, questions: Questions) -> Tensor:
            return fixed[torch.from_numpy(questions.rows)]

    engine = engine_of(cohort, oracle=Fixed())
    played = []
    for flipped in (False, True):
        tasks = engine.tasks([1, 2])
        tasks.pool_labels[:] ^= flipped
        played.append(listed(engine.play(tasks, np.array([[0, 1, 2, 2], [5, 6, 7, 8]]))))
    np.testing.assert_equal(played[0], played[1])


def test_a_question_names_its_classes(cohort: Cohort) -> None:
    heard: set[tuple[str, ...]] = set()

    class Listening(Perfect):
        def answers(self, questions: Questions) -> Tensor:
            heard.add(questions.classes)
            return questions.truth

    engine = engine_of(cohort, oracle=Listening())
    tasks = engine.tasks(range(10))
    outcome = engine.score(tasks, np.zeros((10, 1, 1), dtype=np.int64))
    np.testing.assert_array_equal(outcome.answers[:, 0, 0], tasks.pool_labels[:, 0])
    assert heard == {("No Finding", cohort.classes[condition]) for condition in tasks.condition}
    assert len(heard) > 1


def test_labels_are_paid_in_the_order_of_the_action(make_env: Make) -> None:
    env = make_env(k=7, oracle="annotators", oracle_arguments={"errors": [0.0], "costs": [3]})
    env.reset(options={"task": 0})
    *_, info = env.step(np.array([4, 4, 5, 6, 4, 7, 8]))
    # 3 and 1 for the index again, 3: all that there is.
    said = env.engine.tasks([0]).pool_labels[0][[4, 4, 5]].astype(int).tolist()
    assert info["labels"].tolist() == [*said, -1, -1, -1, -1]
    assert info["n_labelled"] == 2


def test_scenes_show_the_answers(make_env: Make) -> None:
    env = make_env(k=6, oracle="annotators", oracle_arguments={"errors": [0.6], "abstain": [0.2], "costs": [2]})
    numbers = set()
    for task in range(9):
        env.reset(options={"task": task})
        # The last of the repeated ones is not paid.
        action = np.array([9, 3, 3, 4, 9, 9])
        _, reward, *_, info = env.step(action)
        scene = env._scene()
        said = {i: a for i, a in zip(action.tolist(), info["labels"].tolist(), strict=True) if a >= 0}
        numbers.add(len(said))
        assert {int(i): int(scene.classes[i]) for i in np.flatnonzero(scene.classes >= 0)} == said
        assert sorted(scene.fresh.tolist()) == sorted(said)
        assert f"{len(said)} of 20 images labelled" in scene.status
        assert scene.panel == Bars({"chosen": reward, "random": info["random_reward"]}, "AUROC on the query set")
    assert numbers >= {1, 2}


def test_a_person_answers(make_env: Make, make_vec: Make, cohort: Cohort, tmp_path: Path) -> None:
    shown: list[str] = []

    def said(text: str) -> str:
        shown.append(text)
        return ("Edema", "No Finding", "")[len(shown) % 3]

    env = make_env(conditions=["Edema"], oracle=Human(ask=said))
    env.reset(options={"task": 1})
    *_, info = env.step(np.array([6, 2, 9, 2]))
    assert len(shown) == 3
    rows = env.engine.tasks([1]).pool[0]
    assert shown[0].startswith(f"{rows[6]}: No Finding, Edema, or nothing")
    assert info["labels"].tolist() == [0, -1, 1, -1]
    assert np.isnan(info["random_reward"])
    assert env._scene().panel.values["random"] is None
    file = tmp_path / "labels.csv"
    file.write_text("image,label\n" + "".join(f"{row},Edema\n" for row in rows[:3]))
    change = {"oracle": "human", "oracle_arguments": {"file": str(file)}}
    env = make_env(conditions=["Edema"], **change)
    env.reset(options={"task": 1})
    assert env.step(np.array([0, 1, 2, 2]))[-1]["labels"].tolist() == [1, 1, 1, 1]
    env.reset(options={"task": 1})
    with pytest.raises(SettingsError, match=rf"no row of image '{rows[3]}'"):
        env.step(np.array([0, 1, 2, 3]))
    with pytest.raises(SettingsError, match="unknown class 'Edema'"):
        make_env(**change)
    with pytest.raises(SettingsError, match="one episode or task at a time, not in 3"):
        make_vec(3, conditions=["Edema"], **change)
    with pytest.raises(SettingsError, match="at a time, not in 2"):
        env.engine.score(env.engine.tasks([0, 1]), np.zeros((2, 1, 1), dtype=np.int64))


def test_each_condition_is_a_question_of_its_own_to_a_person(cohort: Cohort) -> None:
    asked: list[str] = []
    human = Human(ask=lambda text: asked.append(text) or "No Finding")  # type: ignore[func-returns-value]
    both = torch.ones(1, 1, dtype=torch.bool)
    for condition in ("Edema", "Fracture", "Edema"):
        question = Questions(cohort, ("No Finding", condition), np.zeros((1, 1), int), both.long(), both, both.double())
        assert human.answers(question).item() == 0
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"oracle": "noisi"}, "unknown oracle 'noisi'. Did you mean 'noisy'"),
        ({"oracle": "noisy", "oracle_arguments": {"confusion": np.eye(3)}}, "of 3 classes does not go with 2: No Find"),
        ({"oracle_arguments": 3}, "oracle_arguments=3 must be names and values"),
    ],
)
def test_impossible_oracles_are_refused(cohort: Cohort, change: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        engine_of(cohort, **change)


def test_siblings_keep_the_oracle_or_get_another(cohort: Cohort) -> None:
    engine = engine_of(cohort, oracle="noisy", oracle_arguments={"rate": 0.4})
    assert engine.sibling(split="test").oracle is engine.oracle
    assert engine.sibling(oracle="perfect", oracle_arguments={}).oracle is not engine.oracle


def test_the_settings_of_a_run_name_an_oracle() -> None:
    s = SelectiveRunSettings(oracle="noisy", oracle_confusion=(0.9, 0.1, 0.2, 0.8))
    made = SelectiveLabelSettings.make(**s.env_arguments())
    assert (made.oracle, made.oracle_arguments) == ("noisy", {"confusion": (0.9, 0.1, 0.2, 0.8)})
    with pytest.raises(SettingsError, match=r"oracle_rate=0\.1 does not go with the oracle 'perfect'"):
        SelectiveRunSettings(oracle_rate=0.1)
    with pytest.raises(SettingsError, match="one episode at a time only"):
        SelectiveRunSettings(oracle="human")
