"""DINO with a ResNet-50 and four levels (4scale)."""

from detrex.config import get_config

model = get_config("common/models/dino_r50.py").model
