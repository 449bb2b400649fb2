"""Prediction in one call: ``load(...)`` returns a :class:`Predictor`, its ``predict`` a :class:`Result`.

from detrex.predict import load

model = load("output/mine")
result = model.predict("photo.jpg", score_threshold=0.5)
result.save("found.png")
"""

from detrex.predict.files import find_files
from detrex.predict.loading import load
from detrex.predict.predictor import Precision, Predictor
from detrex.predict.result import Detection, Result

__all__ = ["Detection", "Precision", "Predictor", "Result", "find_files", "load"]
