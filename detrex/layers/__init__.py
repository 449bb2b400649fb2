"""Layers shared by all DETR variants."""

from detrex.layers.conditional_attention import ConditionalAttention
from detrex.layers.deformable_attention import DeformableAttention
from detrex.layers.foreground import FocusEncoderLayer, ForegroundPredictor
from detrex.layers.functional import (
    LOGIT_EPS,
    at_least_single,
    at_most,
    inverse_sigmoid,
    put_rows,
    take_rows,
)
from detrex.layers.mlp import MLP
from detrex.layers.onednn import linear, use_onednn
from detrex.layers.points import sample_bool_masks, sample_maps, uncertain_points
from detrex.layers.position_encoding import box_sine_encoding, pyramid_sine_encoding, sine_encoding
from detrex.layers.prediction import prepare_for_prediction
from detrex.layers.row_column_attention import (
    RowColumnAttention,
    RowColumnDecoderLayer,
    RowColumnEncoderLayer,
)
from detrex.layers.suppression import not_suppressed
from detrex.layers.tracing import is_traced
from detrex.layers.transformer import (
    ConditionalDecoderLayer,
    DecoderLayer,
    DeformableDecoderLayer,
    DeformableEncoderLayer,
    EncoderLayer,
    FeedForward,
    PlainDecoderLayer,
    QueryPosition,
    TrackInteraction,
)
from detrex.ops import multi_scale_deformable_attention

__all__ = [
    "LOGIT_EPS",
    "MLP",
    "ConditionalAttention",
    "ConditionalDecoderLayer",
    "DecoderLayer",
    "DeformableAttention",
    "DeformableDecoderLayer",
    "DeformableEncoderLayer",
    "EncoderLayer",
    "FeedForward",
    "FocusEncoderLayer",
    "ForegroundPredictor",
    "PlainDecoderLayer",
    "QueryPosition",
    "RowColumnAttention",
    "RowColumnDecoderLayer",
    "RowColumnEncoderLayer",
    "at_least_single",
    "at_most",
    "box_sine_encoding",
    "inverse_sigmoid",
    "is_traced",
    "linear",
    "TrackInteraction",
    "multi_scale_deformable_attention",
    "not_suppressed",
    "prepare_for_prediction",
    "put_rows",
    "pyramid_sine_encoding",
    "sample_bool_masks",
    "sample_maps",
    "sine_encoding",
    "take_rows",
    "uncertain_points",
    "use_onednn",
]
