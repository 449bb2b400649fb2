"""OpenSeeD and Semantic-SAM against their cases of a parity kit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from agreement import (
    HALF_TOLERANCE,
    TOLERANCE,
    Agreement,
    Arrays,
    best_order,
    compare,
    count,
    gradient_agreement,
    load_model,
    loss_agreement,
    relative,
)
from mask_dino import (
    EDGE_TOLERANCE,
    STEP,
    instance_agreement,
    panoptic_agreement,
    result_agreement,
    training_samples,
)
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from detrex.checkpoint.published import Kind, from_published, published_name
from detrex.config import LazyCall as L
from detrex.layers import inverse_sigmoid
from detrex.modeling import PanopticInference, PostProcess
from detrex.modeling.prompts import AutomaticMasks, MedianPrompts
from detrex.modeling.prompts.regions import stability
from detrex.structures import Prompts, Sample, Targets
from projects.openseed.queries import SplitByRank

LOSSES, GRADIENTS = 1e-4, 1e-3
# Losses of denoising queries without noise are rounding errors before the first layer.
LOSS_FLOOR = 2e-2
COCO_THINGS = 80


def is_case(kit: Path, case: str) -> bool:
    """Whether a case is of these models."""
    path = kit / f"{case}.keys.json"
    return path.is_file() and "computed" in json.loads(path.read_text())


def agreement(
    kit: Path, case: str, reference: ModuleType, arrays: Arrays, config: DictConfig
) -> Iterator[Agreement]:
    """All comparisons of a case.

    Raises:
        ValueError: the kit has arrays that the configured model does not compute, or of other shapes.
    """
    weights = state_dict(kit, case, reference, arrays)
    of_prompts = "single.prompts" in arrays
    yield from (prompts_agreement if of_prompts else words_agreement)(config, weights, arrays)
    if arrays.unused():
        raise ValueError(f"the kit has arrays that were not compared: {', '.join(arrays.unused())}")


def prompts_agreement(config: DictConfig, weights: dict[str, Tensor], arrays: Arrays) -> Iterator[Agreement]:
    """Semantic-SAM: answers to prompts, the click predictor, automatic masks, losses and gradients."""
    config = config.copy()
    config.model.drawing = L(MedianPrompts)(num_prompts=len(arrays["train.prompts"]))
    model = load_model(config, weights).eval()
    image = torch.from_numpy(arrays["image"]).permute(2, 0, 1)
    with torch.inference_mode():
        encoded = model.encode_images([Sample(image=image)])
        features = model.backbone(encoded.images.tensor)
        yield from pixel_agreement(features, encoded.memory, encoded.pixel_embed, arrays)
        for run in ("single", "points", "points_pb1", "boxes", "isolated"):
            yield from _run_agreement(model, encoded, arrays, run)
        yield from _click_agreement(model, encoded, arrays)
        yield from _automatic_agreement(model, encoded, arrays)
    model.train()
    sample = _prompted_sample(arrays)
    drawn = model.drawing(sample["targets"])
    yield compare("train.prompts", drawn.boxes, arrays["train.prompts"])
    yield Agreement("train.pb", int((drawn.kind.numpy() != arrays["train.pb"]).sum()), 1.0, 0.0)
    rows = torch.stack([drawn.prompt, drawn.mask], 1)
    differ = rows != torch.from_numpy(arrays["train.level_targets"])
    yield Agreement("train.level_targets", int(differ.sum()), 1.0, 0.0)
    with noted_matches(model) as noted:
        losses = {prompt_loss_name(name): loss for name, loss in model([sample]).items()}
    pairs = {(query, number) for _, _, query, number in noted}
    other = pairs ^ {tuple(row) for row in arrays["train.match"].tolist()}
    yield Agreement("train.match", len(other), 1.0, 0.0)
    yield from loss_agreement(losses, arrays, "train", LOSS_FLOOR, LOSSES)
    torch.stack(list(losses.values())).sum().backward()
    parameter_names = own_parameters(arrays, weights, Kind.SEMANTIC_SAM)
    yield from gradient_agreement(model, arrays, parameter_names, "train.grad", GRADIENTS)


def _run_agreement(model: nn.Module, encoded: Any, arrays: Arrays, run: str) -> Iterator[Agreement]:
    """What the decoder makes of the prompts of a call."""
    isolated = run == "isolated"
    kind = torch.from_numpy(arrays[f"{run}.pb"]).long()[None]
    if isolated:
        height, width = encoded.images.padded_size
        (size,) = encoded.images.sizes
        scale = torch.tensor([width / size[1], height / size[0]]).repeat(2)
        prompts = Prompts(torch.from_numpy(arrays["isolated.prompts_padded"])[None] * scale, kind)
    else:
        prompts = Prompts(torch.from_numpy(arrays[f"{run}.prompts"])[None], kind)
    contents: list[Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda _m, _i, out: contents.append(out))
        for layer in model.decoder.layers
    ]
    group = model.prompts(prompts.relative_to_padded(encoded.images), isolated)
    stages = model.decoder.stages([group], encoded.memory)
    for hook in hooks:
        hook.remove()
    if not isolated:
        yield compare(f"{run}.content", group.content[..., ::STEP], arrays[f"{run}.content"])
        yield compare(f"{run}.reference", inverse_sigmoid(group.reference), arrays[f"{run}.reference"])
    normed = torch.stack([model.decoder.heads.norm(contents[i])[0, :, ::STEP] for i in (0, 4, 8)])
    yield compare(f"{run}.decoder", normed, arrays[f"{run}.decoder"])
    yield compare(f"{run}.boxes", torch.stack([s.boxes[0] for s in stages]), arrays[f"{run}.boxes"])
    expected = torch.stack([s.logits[0, :, 0].view(-1, model.prompts.granularities) for s in stages])
    yield compare(f"{run}.ious", expected, arrays[f"{run}.ious"])
    masks = model.answer(encoded, prompts, isolated).final.mask_logits(encoded.pixel_embed)[0]
    part = masks if run == "single" else masks[:, ::2, ::2]
    yield compare(f"{run}.pred_masks", part, arrays[f"{run}.pred_masks"], HALF_TOLERANCE)
    if not isolated:
        logits = encoded.frames[0].to_output(masks)
        yield compare(f"{run}.mask_logits", logits[:, ::STEP, ::STEP], arrays[f"{run}.mask_logits"])
        yield count(f"{run}.masks", (logits > 0) != unpacked(arrays[f"{run}.masks"], logits.shape[-1]))


def _click_agreement(model: nn.Module, encoded: Any, arrays: Arrays) -> Iterator[Agreement]:
    prompts = Prompts(torch.from_numpy(arrays["single.prompts"])[None], torch.zeros(1, 1, dtype=torch.int64))
    (found,) = model.ranked(encoded, prompts, isolated=False)
    rounded = torch.tensor([round(expected, 2) for expected in found.quality.tolist()])
    yield compare("click.ious", rounded, arrays["click.ious"])
    masks = found.masks.dense()
    yield count("click.masks", masks != unpacked(arrays["click.masks"], masks.shape[-1]))


def _automatic_agreement(model: nn.Module, encoded: Any, arrays: Arrays) -> Iterator[Agreement]:
    published = json.loads(str(arrays["auto.settings"]))
    settings = AutomaticMasks(
        points_per_side=published["points_per_side"],
        quality=published["pred_iou_thresh"],
        stability=published["stability_score_thresh"],
        nms_iou=published["box_nms_thresh"],
        min_region=published["min_mask_region_area"],
        levels=published["level"],
    )
    model.points_as_boxes = True
    found = model.everything(encoded, settings, isolated=False)
    model.points_as_boxes = False
    yield compare("auto.predicted_iou", found.quality, arrays["auto.predicted_iou"])
    masks = found.masks.dense()
    yield count("auto.masks", masks != unpacked(arrays["auto.masks"], masks.shape[-1]))
    points = Prompts.clicks(settings.grid()[None]).boxes[0, found.prompt]
    yield compare("auto.points", points, arrays["auto.points"])
    boxes = found.boxes.clone()
    boxes[:, 2:] -= boxes[:, :2]
    yield compare("auto.bbox_xywh", boxes, arrays["auto.bbox_xywh"])
    yield compare("auto.area", masks.flatten(1).sum(1), arrays["auto.area"])
    asked = Prompts(Prompts.clicks(settings.grid()[None]).boxes, torch.zeros(1, 64, dtype=torch.int64))
    answers = model.answer(encoded, asked, isolated=False).final.mask_logits(encoded.pixel_embed)[0]
    query = found.prompt * len(model.levels) + torch.tensor(model.levels)[found.level - 1]
    stable = stability(encoded.frames[0].to_output(answers[query]))
    yield compare("auto.stability_score", stable, arrays["auto.stability_score"], EDGE_TOLERANCE)


def _prompted_sample(arrays: Arrays) -> Sample:
    image = torch.from_numpy(arrays["train.0.image"]).permute(2, 0, 1)
    masks = unpacked(arrays["train.0.masks"], image.shape[2])
    targets = Targets(
        labels=torch.zeros(len(masks), dtype=torch.int64),
        boxes=torch.from_numpy(arrays["train.0.boxes"]),
        masks=masks,
        is_thing=torch.ones(len(masks), dtype=torch.bool),
    )
    return Sample(image=image, targets=targets)


def unpacked(masks: np.ndarray, width: int) -> Tensor:
    """Masks (N, H, W) bool of the kit's packed ones."""
    return torch.from_numpy(np.unpackbits(masks, axis=-1)[..., :width]).bool()


def prompt_loss_name(name: str) -> str:
    """Semantic-SAM's name for one of the toolbox's losses."""
    kind, _, number = name.removeprefix("loss_").partition("_")
    kind = {"iou": "iou_score_loss", "mask": "loss_mask_bce", "dice": "loss_mask_dice"}.get(
        kind, f"loss_{kind}"
    )
    return f"{kind}_{int(number) + 1 if number else 0}"


def state_dict(kit: Path, case: str, reference: ModuleType, arrays: Arrays) -> dict[str, Tensor]:
    """The published checkpoint of a case."""
    keys = json.loads((kit / f"{case}.keys.json").read_text())
    values = {}
    for name, shape in keys["shapes"].items():
        source = keys["alias"].get(name, name)
        stored = keys["stored"].get(name) or keys["stored"].get(source)
        if name not in keys["computed"]:
            value = arrays[stored] if stored else reference.parameter(source, tuple(shape))
            values[name.removeprefix("model.")] = torch.from_numpy(np.asarray(value))
    return values


def words_agreement(config: DictConfig, weights: dict[str, Tensor], arrays: Arrays) -> Iterator[Agreement]:
    """OpenSeeD: texts, evaluation and, where the kit has them, losses and gradients."""
    config = config.copy()
    if "train.template" in arrays:
        OmegaConf.update(config, "model.training_templates", [str(arrays["train.template"])])
    model = load_model(config, weights)
    model.eval()
    yield from _text_agreement(model, arrays)
    names, things = arrays["text.class_names"].tolist(), int(arrays["text.num_things"])
    model.set_classes(names, list(range(things)))
    yield from _evaluation_agreement(model, arrays)
    if "train.0.image" not in arrays:
        return
    prepared = arrays["train.class_names"].tolist()
    differing = set(enumerate(prepared)) ^ set(enumerate(model.vocabulary.for_training()))
    yield Agreement("train.class_names", len(differing), 1.0, 0.0)
    texts = [model.training_templates[0].format(name) for name in prepared[::10]]
    with torch.no_grad():
        yield compare("train.text_embeddings", model.text(texts), arrays["train.text_embeddings"])
    yield from _gradient_agreement(model, arrays, own_parameters(arrays, weights, Kind.OPENSEED))
    with torch.no_grad():
        yield from _training_step(model, arrays, "train_nosplit")[1]
        source = model.decoder.query_init
        source.assignment = source.proposal_assignment = SplitByRank(source.num_queries)
        yield from _training_step(model, arrays, "train_split", images="train_nosplit")[1]


def _gradient_agreement(
    model: nn.Module, arrays: Arrays, parameter_names: dict[str, list[str]]
) -> Iterator[Agreement]:
    """Losses, and gradients of all of them and of all but those of classes."""
    losses, found = _training_step(model, arrays, "train")
    yield from found
    model.zero_grad()
    classes = [loss for name, loss in losses.items() if "mask_cls" in name]
    rest = torch.stack([loss for name, loss in losses.items() if "mask_cls" not in name]).sum()
    rest.backward(retain_graph=True)
    for agreement in gradient_agreement(model, arrays, parameter_names, "train.grad_rest", GRADIENTS):
        yield replace(agreement, name=f"without classes: {agreement.name}")
    torch.stack(classes).sum().backward()
    yield from gradient_agreement(model, arrays, parameter_names, "train.grad", GRADIENTS)


def _training_step(
    model: nn.Module, arrays: Arrays, case: str, images: str = ""
) -> tuple[dict[str, Tensor], list[Agreement]]:
    """Losses by published name; how far they and the matched pairs are from the arrays ``<case>.*``."""
    samples = training_samples(arrays, images or case, COCO_THINGS)
    model.train()
    with noted_matches(model) as noted:
        losses = {loss_name(name): loss for name, loss in model(samples).items()}
    rows = {
        (calls[suffix], image, query, number)
        for calls in [{"": 0, "_interm": 10, **{f"_{i}": i + 1 for i in range(9)}}]
        for suffix, image, query, number in noted
        if "dn" not in suffix
    }
    published = {tuple(row) for row in arrays[f"{case}.match"].tolist()}
    found = [Agreement(f"{case}.match", len(rows ^ published), len(published), 0.0)]
    return losses, found + list(loss_agreement(losses, arrays, case, LOSS_FLOOR, LOSSES))


@contextmanager
def noted_matches(model: nn.Module) -> Iterator[list[tuple[str, int, int, int]]]:
    """Fills a list with suffix of the prediction, image, query and object in it, for every matched pair."""
    rows: list[tuple[str, int, int, int]] = []
    matcher = model.criterion.matcher

    class Noting(type(matcher)):
        def __call__(self, predictions, pixel_embed, targets):
            matches = super().__call__(predictions, pixel_embed, targets)
            first = [sum(targets.counts[:image]) for image in range(len(targets.counts))]
            for stage, image, query, number in zip(
                *(c.tolist() for c in vars(matches).values()), strict=True
            ):
                rows.append((predictions[stage].loss_suffix, image, query, number - first[image]))
            return matches

    matcher.__class__ = Noting
    try:
        yield rows
    finally:
        matcher.__class__ = Noting.__bases__[0]


def _text_agreement(model: nn.Module, arrays: Arrays) -> Iterator[Agreement]:
    names, templates = arrays["text.class_names"].tolist(), arrays["text.templates"].tolist()
    yield Agreement("text.templates", len(set(templates) ^ set(model.templates)), 1.0, 0.0)
    read = [name.replace("-other", "").replace("-merged", "").replace("-stuff", "") for name in names]
    ids = arrays["text.token_ids"]
    ours = model.text.tokenizer([template.format(name) for name in read for template in templates])
    yield Agreement("text.token_ids", int((ours.view(ids.shape) != torch.from_numpy(ids)).sum()), 1.0, 0.0)
    first_class = arrays["text.template_embeddings"]
    with torch.no_grad():
        embeddings = model.text([template.format(read[0]) for template in templates[: len(first_class)]])
        yield compare("text.template_embeddings", embeddings[:, ::4], first_class)
        yield compare("text.embeddings", model.embed_classes(names), arrays["text.embeddings"])
        raw = arrays["text.raw"].tolist()
        tokens = model.text.tokenizer(raw)
        differ = tokens != torch.from_numpy(arrays["text.raw.token_ids"])
        yield Agreement("text.raw.token_ids", int(differ.sum()), 1.0, 0.0)
        hidden = model.text.hidden(tokens)[..., ::STEP]
        yield compare("text.raw.hidden", hidden, arrays["text.raw.hidden"])
        yield compare("text.raw.embeddings", model.text(raw), arrays["text.raw.embeddings"])
    scale, published = float(model.text.logit_scale.exp()), float(arrays["text.logit_scale_exp"][0])
    yield relative("text.logit_scale_exp", scale, published, 0.0, TOLERANCE)


def pixel_agreement(
    features: dict[int, Tensor], memory: Any, pixel_embed: Tensor, arrays: Arrays
) -> Iterator[Agreement]:
    """Backbone, encoder and the embedding of pixels."""
    for i, stride in enumerate((4, 8, 16, 32)):
        name, found = f"backbone.res{i + 2}", features[stride][:, ::STEP]
        yield compare(name, found[:, :, ::2, ::2] if i == 0 else found, arrays[f"eval.{name}"])
    yield compare("mask_features", pixel_embed[:, ::STEP, ::2, ::2], arrays["eval.mask_features"])
    for i, level in enumerate(memory.maps()):
        yield compare(f"memory.{i}", level[:, ::STEP], arrays[f"eval.memory.{i}"])


def _evaluation_agreement(model: nn.Module, arrays: Arrays) -> Iterator[Agreement]:
    model.eval()
    height, width = (int(side) for side in arrays["output_size"])
    sample = Sample(image=torch.from_numpy(arrays["image"]).permute(2, 0, 1), height=height, width=width)
    contents: list[Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda _m, _i, out: contents.append(out))
        for layer in model.decoder.layers
    ]
    with torch.inference_mode():
        features = model.backbone(model.preprocess([sample]).tensor)
        memory = model.encoder(features)
        pixel_embed = model.pixel_head(features, memory)
        output = model.decoder(memory, pixel_embed)
        normed = [model.decoder.heads.norm(content) for content in contents]
        for hook in hooks:
            hook.remove()
        result = model([sample])[0]
        others = _other_results(model, sample)
    yield from pixel_agreement(features, memory, pixel_embed, arrays)
    stages: dict[str, list[Any]] = {}
    for part in output.supervised:
        stages.setdefault(part.loss_suffix, []).append(part.prediction)
    joined = {suffix: type(parts[0]).concatenate(parts) for suffix, parts in stages.items()}
    proposals = joined["_interm"]
    # Where two scores tie within rounding, queries change places.
    order = best_order(
        torch.cat([proposals.logits, proposals.boxes], -1)[0],
        np.concatenate([arrays["eval.encoder.pred_logits"], arrays["eval.encoder.pred_boxes"]], -1)[0],
    )
    for name, prediction in (
        ("encoder", proposals),
        *((f"aux.{i}", joined[f"_{i}"]) for i in range(len(contents))),
    ):
        if f"eval.{name}.pred_logits" in arrays:
            logits = prediction.logits[:, order]
            yield compare(f"{name}.pred_logits", logits, arrays[f"eval.{name}.pred_logits"])
        yield compare(f"{name}.pred_boxes", prediction.boxes[:, order], arrays[f"eval.{name}.pred_boxes"])
    masks = proposals.mask_logits(pixel_embed)[:, order][:, ::15, ::2, ::2]
    yield compare("encoder.pred_masks", masks, arrays["eval.encoder.pred_masks"], HALF_TOLERANCE)
    for i in (0, len(contents) - 1):
        yield compare(f"decoder.{i}", normed[i][:, order, ::STEP], arrays[f"eval.decoder.{i}"])
    yield compare("pred_logits", output.final.logits[:, order], arrays["eval.pred_logits"])
    yield compare("pred_boxes", output.final.boxes[:, order], arrays["eval.pred_boxes"])
    masks = output.final.mask_logits(pixel_embed)[:, order]
    yield compare("pred_masks", masks[:, :, ::4, ::4], arrays["eval.pred_masks"], HALF_TOLERANCE)
    yield compare("pred_masks.full", masks[:, :8], arrays["eval.pred_masks.full"], HALF_TOLERANCE)
    yield from result_agreement(result, arrays)
    yield from panoptic_agreement(others["panoptic_published"]["panoptic_seg"], arrays, "panoptic_published")
    for name in ("inst_seg", "det"):
        yield from instance_agreement(others[name]["instances"], arrays, name)


def _other_results(model: nn.Module, sample: Sample) -> dict[str, dict[str, Any]]:
    """Of the published tasks whose settings are not those of the config."""
    chosen, options = model.postprocess, {"class_score": model.class_score, "interpolation": "bicubic"}
    tasks = {
        "panoptic_published": PostProcess(
            panoptic=PanopticInference(0.25, 0.8), thing_classes=chosen.thing_classes, **options
        ),
        "inst_seg": PostProcess(instance=chosen.instance, **options),
        "det": PostProcess(instance=replace(chosen.instance, boxes_only=True), **options),
    }
    return {name: model.detect([sample], task)[0] for name, task in tasks.items()}


def loss_name(name: str) -> str:
    """OpenSeeD's name for one of the toolbox's losses."""
    kind, *rest = name.removeprefix("loss_").split("_")
    kind = {"ce": "mask_cls", "mask": "mask_bce", "dice": "mask_dice"}.get(kind, kind)
    denoised, interm = "dn" in rest, "interm" in rest
    numbers = [int(part) for part in rest if part.isdigit()]
    number = 0 if interm or not numbers else numbers[0] + 1
    return f"loss_{kind}_{number}" + ("_dn" if denoised else "_interm" if interm else "")


def own_parameters(arrays: Arrays, weights: dict[str, Tensor], kind: Kind) -> dict[str, list[str]]:
    """The model's parameter for each of the kit's."""
    moved = {id(value): name for name, value in from_published(weights).items()}
    found = {}
    for name in arrays["train.grad.names"].tolist():
        # A shared parameter is listed under one of its aliases.
        weight_name = name.replace("decoder.bbox_embed.0", "_bbox_embed").replace(
            "decoder.norm.", "decoder_norm."
        )
        weight_name = weight_name.removeprefix("model.")
        found[name] = [
            moved.get(id(weights[weight_name]))
            or published_name(weight_name, kind)
            or f"none for {weight_name}"
        ]
    return found
