"""Group DETR on Conditional DETR with a ResNet-50: training has eleven groups of queries, inference one.

The groups are as the published code has them, see `projects/group_detr/decoder.py`. The paper's, which do not
see one another, are `model.decoder.query_init.see_other_groups=false` with
`model.decoder.layers._target_=detrex.modeling.ConditionalDecoderLayers` and without `num_groups` there.
"""

from detrex.config import LazyCall as L
from detrex.config import get_config
from projects.group_detr.decoder import MixedGroupsLayers

model = get_config("common/models/conditional_detr.py").model
model.decoder.query_init.num_groups = 11
model.decoder.query_init.see_other_groups = True
model.decoder.layers = L(MixedGroupsLayers)(
    num_groups="${..query_init.num_groups}", hidden_dim="${...encoder.hidden_dim}", dropout=0.1
)
