"""Outputs, losses and gradients equal those of the published models, given their weights."""

import pytest
from kit import build, evaluation_agreement, load_reference, published_weights, training_agreement

from detrex.config import LazyCall as L
from detrex.config import LazyConfig
from detrex.modeling import LearnedQueries, PanopticInference, SemanticInference, SoftmaxClassLoss

# In standard deviations of the kit's arrays; relative for losses and gradients.
TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 1e-3


def instance_r50(model):
    return model


def panoptic_r50(model):
    model.num_classes = 133
    model.decoder.query_init.box_init = "no"
    model.postprocess.panoptic = L(PanopticInference)(overlap_threshold=0.1)
    model.postprocess.semantic = L(SemanticInference)()
    model.postprocess.thing_classes = list(range(80))
    return model


def semantic_ade20k_r50(model):
    model.num_classes = 150
    model.pixel_decoder.strides = [8, 16, 32]
    model.pixel_decoder.ffn_dim = 1024
    model.decoder.num_levels = 3
    model.decoder.no_object_class = True
    model.decoder.query_init = L(LearnedQueries)(num_queries=100, hidden_dim="${..hidden_dim}")
    model.criterion.class_loss = L(SoftmaxClassLoss)(weight=4.0, no_object_weight=0.1)
    model.criterion.initial_denoising = False
    model.postprocess.instance = None
    model.postprocess.semantic = L(SemanticInference)(resize_masks=False)
    return model


@pytest.mark.parametrize("configure", [instance_r50, panoptic_r50, semantic_ade20k_r50])
def test_outputs_losses_and_gradients(parity, configure):
    case = configure.__name__
    config = LazyConfig.load("projects/maskdino/configs/models/maskdino_r50.py")
    reference = load_reference(parity)
    arrays = reference.arrays(case)
    weights = published_weights(reference, case)
    model = build(configure(config.model), weights)

    off = [a for a in evaluation_agreement(model, arrays) if not a.error <= TOLERANCE]
    off += [a for a in training_agreement(model, arrays, weights) if not a.error <= GRADIENT_TOLERANCE]

    assert not off
