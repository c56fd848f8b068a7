"""A conformance kit: checks that the author of an agent, baseline, learner, backbone or data set runs on it.

Each function raises a :class:`ConformanceError` that says in plain words what is wrong, all at once, and returns
nothing where all is well::

    from activelabel.testing import check_baseline

    def test_my_baseline() -> None:
        check_baseline(MyBaseline)

A check that is not meant to hold is left out by name: ``check_agent(PPO, ..., skip=("labelled images",))``.
"""

from __future__ import annotations

from activelabel.testing.agents import AGENT_CHECKS, check_agent
from activelabel.testing.baselines import BASELINE_CHECKS, POOL_BASELINE_CHECKS, check_baseline
from activelabel.testing.data import BACKBONE_CHECKS, COHORT_CHECKS, check_backbone, check_cohort
from activelabel.testing.learners import LEARNER_CHECKS, check_learner
from activelabel.testing.shared import ConformanceError

__all__ = [
    "AGENT_CHECKS",
    "BACKBONE_CHECKS",
    "BASELINE_CHECKS",
    "COHORT_CHECKS",
    "LEARNER_CHECKS",
    "POOL_BASELINE_CHECKS",
    "ConformanceError",
    "check_agent",
    "check_backbone",
    "check_baseline",
    "check_cohort",
    "check_learner",
]
