"""AdamW as published for Mask DINO: a tenth of the learning rate in the backbone, no decay on norms and
embeddings but those of the encoder's levels.

`optimizer.lr_factors` maps parts of the model (prefixes or patterns of parameter names) to factors on
`optimizer.lr`. `optimizer.layer_decay`, such as `{backbone: 0.8}`, lets learning rates fall from layer to
layer towards the input of a transformer or a ConvNeXt. Neither knows of batch sizes: see `train.lr_scaling`.
"""

from detrex.config import LazyCall as L
from detrex.engine import build_adamw

optimizer = L(build_adamw)(
    lr=1e-4,
    weight_decay=0.05,
    lr_factors={"backbone": 0.1},
    layer_decay={},
    norm_weight_decay=0.0,
    embedding_weight_decay=0.0,
    # Of what is no nn.Embedding. The encoder's level_embed decays, as it did in the published runs.
    embedding_names=["*pos_embed*", "*relative_position_bias_table*", "*cls_token*", "*reg_token*"],
    bias_weight_decay=None,
    betas=[0.9, 0.999],
)
