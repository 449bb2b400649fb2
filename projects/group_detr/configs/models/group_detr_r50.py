"""Group DETR on Conditional DETR with a ResNet-50: training has eleven groups of queries, inference one."""

from detrex.config import get_config

model = get_config("common/models/conditional_detr.py").model
model.decoder.query_init.num_groups = 11
