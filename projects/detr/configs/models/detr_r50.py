"""DETR with a ResNet-50."""

from detrex.config import get_config

model = get_config("common/models/detr.py").model
