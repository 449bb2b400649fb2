"""Draws what a trained model finds in held-out scenes by words, and what it answers to one click.

python -m projects.promptable.picture output/promptable_shapes output/promptable_shapes/prompts.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

import detrex
from detrex.predict import Predictor
from detrex.visualization import image_grid
from projects.promptable.scenes import UNSEEN, draw_scene

NAMES = [kind.name for kind in UNSEEN]
SCENES, SIZE, ENLARGED = 4, 96, 4
SCORE = 0.45
CLICKED = (255, 140, 0)


def drawn(model: Predictor, count: int = SCENES, seed: int = 11) -> Image.Image:
    """A row of scenes with what words find, and a row with the mask of a click in a held-out thing."""
    by_words, by_click = [], []
    for number in range(count):
        picture, regions = draw_scene(np.random.default_rng([seed, number]), SIZE, held_out=True)
        by_words.append(model(picture, classes=NAMES, score_threshold=SCORE).draw(score_threshold=SCORE))
        mask = next(region.mask for region in regions if region.name in NAMES)
        row, column = np.unravel_index(ndimage.distance_transform_edt(mask).argmax(), mask.shape)
        (answer,) = model.prompt(picture, points=[(column + 0.5, row + 0.5)], min_region=10)
        by_click.append(_clicked(picture, answer.masks.one(0).numpy(), (column, row)))
    return image_grid([by_words, by_click], cell_size=200)


def _clicked(picture: np.ndarray, mask: np.ndarray, place: tuple[int, int]) -> Image.Image:
    """The picture, darkened outside the mask, with the click."""
    shown = np.where(mask[..., None], picture, (picture * 0.3).astype(np.uint8))
    canvas = Image.fromarray(shown).resize((SIZE * ENLARGED,) * 2)
    x, y = ((value + 0.5) * ENLARGED for value in place)
    radius = 2 * ENLARGED
    circle = (x - radius, y - radius, x + radius, y + radius)
    ImageDraw.Draw(canvas).ellipse(circle, fill=CLICKED, outline="black", width=2)
    return canvas


def main() -> None:
    """Draws and saves the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="folder of a run of promptable_shapes")
    parser.add_argument("output", type=Path, help="the picture to write")
    arguments = parser.parse_args()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    drawn(detrex.load(arguments.run, device="cpu")).save(arguments.output, optimize=True)


if __name__ == "__main__":
    main()
