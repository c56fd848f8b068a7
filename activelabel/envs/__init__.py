"""How labelling is played: the environments, their engines and predictors."""

from activelabel.envs.predictors import PREDICTORS, auroc
from activelabel.envs.selective import SelectiveLabelEnv, SelectiveLabelVectorEnv
from activelabel.envs.selective_engine import Outcome, SelectiveLabelEngine, SelectiveLabelSettings

__all__ = [
    "PREDICTORS",
    "Outcome",
    "SelectiveLabelEngine",
    "SelectiveLabelEnv",
    "SelectiveLabelSettings",
    "SelectiveLabelVectorEnv",
    "auroc",
]
