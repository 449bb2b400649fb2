"""DINO with EVA (EVA-01, a thousand million parameters), made for 1280 x 1280 pixels, and four levels."""

from detrex.config import LazyCall as L
from detrex.modeling import Eva

from .dino_eva_02_base import model

model.backbone = L(Eva)(
    embed_dim=1408,
    depth=40,
    num_heads=16,
    mlp_dim=6144,
    window=16,
    global_blocks=[3, 7, 11, 15, 19, 23, 27, 31, 35, 39],
    image_size=1280,
    strides=[8, 16, 32, 64],
    channels=256,
    drop_path_rate=0.6,
)
