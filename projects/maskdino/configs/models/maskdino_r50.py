"""Mask DINO with a ResNet-50, four levels and 300 queries: the model of the published COCO results."""

from detrex.config import get_config

model = get_config("common/models/maskdino_r50.py").model
