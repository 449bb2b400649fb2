"""Group DETR on Conditional DETR with a ResNet-50: training has eleven groups of queries, inference one.

The groups are as the published code has them, see `projects/group_detr/decoder.py`; the paper's are
`model.decoder._target_=detrex.modeling.ConditionalDecoder`.
"""

from detrex.config import get_config
from projects.group_detr.decoder import MixedGroupsDecoder

model = get_config("common/models/conditional_detr.py").model
model.decoder._target_ = f"{MixedGroupsDecoder.__module__}.{MixedGroupsDecoder.__qualname__}"
model.decoder.query_init.num_groups = 11
