"""DINO with EVA-02-B, four of whose blocks attend to the whole map of 1024 x 1024 pixels, and four levels."""

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.modeling import Eva02, pyramid_channels

model = get_config("common/models/dino_r50.py").model
model.backbone = L(Eva02)(
    embed_dim=768,
    depth=12,
    num_heads=12,
    mlp_dim=2048,
    window=16,
    global_blocks=[2, 5, 8, 11],
    image_size=1024,
    strides=[8, 16, 32, 64],
    channels=256,
    drop_path_rate=0.1,
)
model.encoder.in_channels = L(pyramid_channels)(
    strides="${...backbone.strides}", channels="${...backbone.channels}"
)
model.size_divisor = "${.backbone.image_size}"  # images are padded to squares of that size
