"""Layers shared by all DETR variants."""

from detrex.layers.deformable_attention import DeformableAttention
from detrex.layers.functional import inverse_sigmoid, sample_bool_masks, sample_maps
from detrex.layers.mlp import MLP
from detrex.layers.position_encoding import box_sine_encoding, image_sine_encoding, sine_encoding
from detrex.layers.transformer import DeformableDecoderLayer, DeformableEncoderLayer, FeedForward
from detrex.ops import multi_scale_deformable_attention

__all__ = [
    "MLP",
    "DeformableAttention",
    "DeformableDecoderLayer",
    "DeformableEncoderLayer",
    "FeedForward",
    "box_sine_encoding",
    "image_sine_encoding",
    "inverse_sigmoid",
    "multi_scale_deformable_attention",
    "sample_bool_masks",
    "sample_maps",
    "sine_encoding",
]
