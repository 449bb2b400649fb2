"""The picture and the table of docs/family.md: how models descend from one another, and what they consist of.

    python docs/site/family.py

draws docs/images/family.svg, and writes the table into the page. Its entries come from the models' configs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from detrex.config import LazyConfig, instantiate

ROOT = Path(__file__).resolve().parents[2]
PICTURE, PAGE = ROOT / "docs/images/family.svg", ROOT / "docs/family.md"
USUAL = {
    "Detector",
    "TimmBackbone",
    "Decoder",
    "SetCriterion",
    "InstanceInference",
}  # said once, above the table
HEAD = "| model | queries from | assignment | encoder | decoder | class score, losses, results |"

# Kinds of attention, and the colours of their boxes: (fill, line) in light and in dark.
KINDS = {
    "plain": ("attends to every token", "#e3ecf7", "#4a7ab5", "#1f3350", "#7ea8dc"),
    "conditional": ("compares content and place apart", "#e6f3e4", "#4f9150", "#213d24", "#7fbd80"),
    "row_column": ("attends to rows and columns", "#f4e8f5", "#9457a0", "#402545", "#c58fd0"),
    "deformable": ("attends to points around a box or point", "#fdeedb", "#c07a1f", "#4a3212", "#e0a95a"),
}
ROW, LEGEND_ROW, INDENT, LEFT, TOP = 40, 26, 34, 16, 16
BOX_WIDTH, BOX_HEIGHT, NOTES, WIDTH = 196, 30, 450, 860

LOAN_REACH = 96  # so that borrowed ideas pass the boxes between


@dataclass(frozen=True)
class Model:
    """A model of the family.

    Attributes:
        title: its name in its paper.
        config: of its smallest published model, below ``projects/{project}/configs/models``.
        kind: of its decoder's attention to the image, one of ``KINDS``.
        idea: what it adds to its parent.
        parent: project of the model that it builds on.
        second: project of another model whose idea it takes over.
        assigned: assignments that its detector makes, which no config names, by the queries that have them.
    """

    title: str
    config: str
    kind: str
    idea: str
    parent: str | None = None
    second: str | None = None
    assigned: Mapping[str, str] = field(default_factory=dict)


FAMILY = {
    "detr": Model("DETR", "detr_r50", "plain", "a set of queries, matched one to one with the objects"),
    "pnp_detr": Model(
        "PnP-DETR", "pnp_detr_r50", "plain", "half of the tokens, the rest pooled into 30", "detr"
    ),
    "anchor_detr": Model(
        "Anchor DETR", "anchor_detr_r50", "row_column", "queries are points with three patterns each", "detr"
    ),
    "conditional_detr": Model(
        "Conditional DETR",
        "conditional_detr_r50",
        "conditional",
        "every query looks around a point of its own",
        "detr",
    ),
    "group_detr": Model(
        "Group DETR",
        "group_detr_r50",
        "conditional",
        "eleven groups of queries in training",
        "conditional_detr",
    ),
    "dab_detr": Model(
        "DAB-DETR",
        "dab_detr_r50",
        "conditional",
        "queries are boxes, which layers refine",
        "conditional_detr",
    ),
    "sqr_detr": Model(
        "SQR-DETR",
        "sqr_dab_detr_r50",
        "conditional",
        "layers also train on what earlier layers left",
        "dab_detr",
    ),
    "dn_detr": Model(
        "DN-DETR", "dn_detr_r50", "conditional", "also learns to restore noised boxes", "dab_detr"
    ),
    "deformable_detr": Model(
        "Deformable DETR",
        "deformable_detr_r50_two_stage",
        "deformable",
        "several levels, proposals become queries",
        "detr",
    ),
    "h_deformable_detr": Model(
        "H-Deformable-DETR",
        "h_deformable_detr_r50",
        "deformable",
        "a second group, six queries to an object",
        "deformable_detr",
    ),
    "deta": Model(
        "DETA", "deta_r50", "deformable", "assignment by overlap, duplicates suppressed", "deformable_detr"
    ),
    "co_mot": Model(
        "CO-MOT",
        "co_mot_r50",
        "deformable",
        "queries follow their objects through a video",
        "deformable_detr",
        assigned={"tracks": "SetsToGiven"},
    ),
    "dab_deformable_detr": Model(
        "DAB-Deformable-DETR",
        "dab_deformable_detr_r50",
        "deformable",
        "learned boxes on several levels",
        "deformable_detr",
        "dab_detr",
    ),
    "dn_deformable_detr": Model(
        "DN-Deformable-DETR",
        "dn_deformable_detr_r50",
        "deformable",
        "the same with denoising",
        "dab_deformable_detr",
        "dn_detr",
    ),
    "dino": Model(
        "DINO",
        "dino_r50",
        "deformable",
        "boxes from proposals; learns to reject far ones",
        "dn_deformable_detr",
    ),
    "align_detr": Model(
        "Align-DETR", "align_detr_r50", "deformable", "class scores say how well boxes fit", "dino"
    ),
    "focus_detr": Model(
        "Focus-DETR", "focus_detr_r50", "deformable", "the encoder works on foreground tokens", "dino"
    ),
    "dino_eva": Model("DINO-EVA", "dino_eva_02_base", "deformable", "EVA's vision transformers", "dino"),
    "maskdino": Model(
        "Mask DINO", "maskdino_r50", "deformable", "masks: instances, panoptic and semantic", "dino"
    ),
    "openseed": Model(
        "OpenSeeD",
        "openseed_swin_tiny_decoupled",
        "deformable",
        "classes are words; queries of their own for stuff",
        "maskdino",
    ),
    "semantic_sam": Model(
        "Semantic-SAM",
        "semantic_sam_swin_tiny",
        "deformable",
        "six masks for every click or box",
        "maskdino",
        assigned={"prompts": "WithinPrompts"},
    ),
    "promptable": Model(
        "A small promptable model",
        "promptable_small",
        "deformable",
        "words and clicks in one small model, trained here",
        "semantic_sam",
        second="openseed",
        assigned={"prompts": "WithinPrompts"},
    ),
}


def picture() -> str:
    """The family tree as SVG, legible on light and dark pages."""
    depth: dict[str, int] = {}
    for name, model in FAMILY.items():
        depth[name] = 0 if model.parent is None else depth[model.parent] + 1
    rows = {name: number for number, name in enumerate(FAMILY)}
    bottom = TOP + ROW * len(rows)
    height = bottom + 22 + LEGEND_ROW * (len(KINDS) // 2 + 1) + 8
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img" aria-labelledby="title">',
        '<title id="title">The family tree of the models</title>',
        f"<style>{_style()}</style>",
        f'<rect class="page" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
    ]
    for name, model in FAMILY.items():
        x, y = LEFT + INDENT * depth[name], TOP + ROW * rows[name]
        if model.parent is not None:
            start = LEFT + INDENT * depth[model.parent] + 16
            from_y, middle = TOP + ROW * rows[model.parent] + BOX_HEIGHT, y + BOX_HEIGHT / 2
            lines.append(f'<path class="descent" d="M{start} {from_y}V{middle - 8}q0 8 8 8H{x}"/>')
        if model.second is not None:
            from_x = LEFT + INDENT * depth[model.second] + BOX_WIDTH
            from_y, to_y = TOP + ROW * rows[model.second] + BOX_HEIGHT / 2, y + BOX_HEIGHT / 2
            far = max(from_x, x + BOX_WIDTH) + LOAN_REACH
            lines.append(
                f'<path class="loan" marker-end="url(#tip)" '
                f'd="M{from_x} {from_y}C{far} {from_y} {far} {to_y} {x + BOX_WIDTH + 3} {to_y}"/>'
            )
    lines.append(
        '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path class="tip" d="M0 0L8 4L0 8z"/></marker>'
    )
    for name, model in FAMILY.items():
        x, y = LEFT + INDENT * depth[name], TOP + ROW * rows[name]
        lines += [
            _box(x, y, model.kind, model.title),
            f'<text class="idea" x="{NOTES}" y="{y + 20}">{escape(model.idea)}</text>',
        ]
    lines += [*_legend(bottom + 14), "</svg>"]
    return "\n".join(lines) + "\n"


def _box(x: float, y: float, kind: str, title: str) -> str:
    return (
        f'<rect class="box {kind}" x="{x}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6"/>'
        f'<text class="title" x="{x + BOX_WIDTH / 2}" y="{y + 20}">{escape(title)}</text>'
    )


def _legend(top: float) -> Iterator[str]:
    yield f'<path class="descent" d="M{LEFT} {top - 8}H{WIDTH - LEFT}"/>'
    for number, (kind, (text, *_)) in enumerate(KINDS.items()):
        x, y = LEFT + 400 * (number % 2), top + 8 + LEGEND_ROW * (number // 2)
        yield f'<rect class="box {kind}" x="{x}" y="{y}" width="28" height="16" rx="4"/>'
        yield f'<text class="idea" x="{x + 38}" y="{y + 13}">the decoder {text}</text>'
    y = top + 8 + LEGEND_ROW * ((len(KINDS) + 1) // 2)
    yield f'<path class="descent" d="M{LEFT} {y + 8}h28"/>'
    yield f'<text class="idea" x="{LEFT + 38}" y="{y + 13}">builds on</text>'
    yield f'<path class="loan" marker-end="url(#tip)" d="M{LEFT + 400} {y + 8}h28"/>'
    yield f'<text class="idea" x="{LEFT + 438}" y="{y + 13}">takes an idea over</text>'


def _style() -> str:
    def colours(page: str, line: str, text: str, soft: str, place: int) -> str:
        kinds = "".join(
            f".{kind}{{fill:{colour[place]};stroke:{colour[place + 1]}}}" for kind, colour in KINDS.items()
        )
        return (
            f".page{{fill:{page};stroke:{line}}}.descent,.loan{{stroke:{soft}}}.tip{{fill:{soft}}}"
            f".title{{fill:{text}}}.idea{{fill:{text}}}{kinds}"
        )

    shared = (
        "text{font:14px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}"
        ".title{font-weight:600;text-anchor:middle}.box{stroke-width:1.5}"
        ".descent{fill:none;stroke-width:1.5}.loan{fill:none;stroke-width:1.5;stroke-dasharray:5 4}"
    )
    light = colours("#ffffff", "#d5dae1", "#1c2430", "#7c8796", 1)
    dark = colours("#171c24", "#3a4350", "#e8ecf2", "#97a3b4", 3)
    return f"{shared}{light}@media (prefers-color-scheme:dark){{{dark}}}"


def table() -> str:
    """Which objects a model puts in which place, as Markdown."""
    lines = [HEAD, "|" + " --- |" * 6]
    for project, model in FAMILY.items():
        config = LazyConfig.load(ROOT / f"projects/{project}/configs/models/{model.config}.py").model
        link = f"[{model.title}](../projects/{project}/README.md)"
        cells = [[link, *_names(config)], *_seams(config, model.assigned)]
        lines.append(f"| {' | '.join('<br>'.join(cell) for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _seams(model: Any, assigned: Mapping[str, str]) -> Iterator[list[str]]:
    """The objects of each place."""
    source, denoising = model.decoder.query_init, model.get("denoising")
    yield _names(source, model.get("prompts"), denoising)
    assignments = [] if source is None else list(_assignments(instantiate(source), denoising))
    yield [*assignments, *(f"{queries}: {_code(name)}" for queries, name in assigned.items())]
    encoder = instantiate(model.encoder)
    yield _names(model.backbone, model.encoder)
    yield _names(model.decoder.layers, model.decoder.position, model.decoder)
    losses = ["boxes"] + ["masks"] * bool(model.criterion.get("mask_weight", 0))
    token_loss = getattr(encoder, "token_loss", None)
    if token_loss is not None:
        method = getattr(token_loss, "__self__", None) is encoder
        losses.append(_code(type(encoder if method else token_loss).__name__ + ".token_loss" * method))
    results = _names(model.criterion, model.postprocess.instance)
    yield [*_names(model.class_score), ", ".join(losses), *results]


def _assignments(source: Any, denoising: Any) -> Iterator[str]:
    kinds = {
        name: type(value).__name__
        for name, value in vars(source).items()
        if name.endswith("assignment") and value is not None
    }
    groups = getattr(source, "num_groups", 1)
    yield _code(kinds.get("assignment", "OneToOne")) + (f" in each of {groups} groups" if groups > 1 else "")
    for name, kind in kinds.items():
        if name != "assignment":
            yield f"{name.removesuffix('_assignment')}: {_code(kind)}"
    if denoising is not None:
        yield f"denoising: {_code('Known')}"


def _names(*nodes: Any) -> list[str]:
    names = [str(node._target_).rpartition(".")[2] for node in nodes if node is not None]
    return [_code(name) for name in names if name not in USUAL]


def _code(name: str) -> str:
    """A name of a class, which may be broken before its words where a column is narrow."""
    return f"<code>{re.sub(r'(?<=[a-z])(?=[A-Z.])', '<wbr>', name)}</code>"


def with_table(page: str) -> str:
    """The page, with its table as it should be."""
    first = page.index(HEAD)
    return page[:first] + table() + page[page.index("\n\n", first) + 1 :]


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(picture(), encoding="utf-8")
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
