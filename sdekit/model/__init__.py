"""From a network, or a known law, to a prediction of the score at every time."""

from sdekit.model.exact import ExactScore
from sdekit.model.moments import Moments
from sdekit.model.networks import MLP
from sdekit.model.parametrization import Parametrization, convert
from sdekit.model.prediction import Prediction, Predictor
from sdekit.model.score_model import TIME_INPUTS, ScoreModel
from sdekit.model.thresholding import Thresholded

__all__ = [
    "MLP",
    "TIME_INPUTS",
    "ExactScore",
    "Moments",
    "Parametrization",
    "Prediction",
    "Predictor",
    "ScoreModel",
    "Thresholded",
    "convert",
]
