"""DAB-Deformable-DETR with a ResNet-50."""

from detrex.config import get_config

model = get_config("common/models/dab_deformable_detr.py").model
