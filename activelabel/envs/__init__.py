"""How labelling is played: the environments, their engines and predictors."""

from activelabel.envs.active import ActiveLabelEnv, ActiveLabelVectorEnv
from activelabel.envs.active_engine import ActiveLabelEngine, ActiveLabelSettings
from activelabel.envs.asking import NO_ANSWER, Oracle, Perfect, Questions
from activelabel.envs.finetune import FineTune
from activelabel.envs.learners import IMAGE_LEARNERS, LEARNERS, ImageModel, Learner, Model, SklearnLearner
from activelabel.envs.metrics import METRICS
from activelabel.envs.mixed import MixedVectorEnv
from activelabel.envs.oracles import ORACLES
from activelabel.envs.predictors import PREDICTORS, auroc
from activelabel.envs.running import RunningEpisodes
from activelabel.envs.selective import SelectiveLabelEnv, SelectiveLabelVectorEnv
from activelabel.envs.selective_engine import Outcome, SelectiveLabelEngine, SelectiveLabelSettings
from activelabel.envs.wrappers import (
    FlattenCandidates,
    OneAtATime,
    ScoresToTopK,
    VectorFlattenCandidates,
    VectorOneAtATime,
    VectorScoresToTopK,
)

__all__ = [
    "IMAGE_LEARNERS",
    "LEARNERS",
    "METRICS",
    "NO_ANSWER",
    "ORACLES",
    "PREDICTORS",
    "ActiveLabelEngine",
    "ActiveLabelEnv",
    "ActiveLabelSettings",
    "ActiveLabelVectorEnv",
    "FineTune",
    "FlattenCandidates",
    "ImageModel",
    "Learner",
    "MixedVectorEnv",
    "Model",
    "OneAtATime",
    "Oracle",
    "Outcome",
    "Perfect",
    "Questions",
    "RunningEpisodes",
    "ScoresToTopK",
    "SelectiveLabelEngine",
    "SelectiveLabelEnv",
    "SelectiveLabelSettings",
    "SelectiveLabelVectorEnv",
    "SklearnLearner",
    "VectorFlattenCandidates",
    "VectorOneAtATime",
    "VectorScoresToTopK",
    "auroc",
]
