"""Compares a model, array by array, with a case of a parity kit: what a published model computes.

    python tests/parity/check.py --kit ../shared/parity --case instance_r50 \\
        --config-file projects/maskdino/configs/maskdino_r50_coco_instance_50ep.py

The case's checkpoint is written to a file in its published format and loaded as any checkpoint is; then the
model predicts and, where the kit has training arrays, computes losses and gradients, or trains for a few
steps with the config's optimizer, schedule and clipping. Every array of the kit gets a line: its name, the
largest error, and the spread of the reference values. Exit code 1 if one is off.
Where proposals tie within rounding, either order counts.

The kit is a folder with ``reference.py`` and, for every case, ``<case>.keys.json`` and ``<case>.npz``.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import family
import mask_dino
import open_vocabulary
import trajectory
from agreement import Agreement, Arrays, load_model, training_agreement
from ties import ties_swapped

from detrex.config import LazyConfig, complete

# The kit is made without randomness: what is random in training, where a config has it.
FIXED = (
    "model.denoising.label_noise=0.0",
    "model.denoising.box_noise=0.0",
    "model.criterion.points={_target_: detrex.modeling.GridPoints, num_points: 12544}",
    "model.encoder.dropout=0.0",
    "model.decoder.layers.dropout=0.0",
    "model.backbone.options.drop_path_rate=0.0",
)


def check(kit: Path, case: str, config: DictConfig) -> Iterator[Agreement]:
    """All comparisons of a case.

    Raises:
        ValueError: the kit has arrays that the configured model does not compute, or of other shapes.
    """
    reference = load_reference(kit)
    arrays = Arrays(reference.arrays(case))
    of_family = "0.image" in arrays
    # A training run starts from the weights of the case that its name begins with.
    case = case.removesuffix("_trajectory")
    if open_vocabulary.is_case(kit, case):
        yield from open_vocabulary.agreement(kit, case, reference, arrays, without_randomness(config))
        return
    values = reference.family_state_dict(case) if of_family else reference.state_dict(case)
    weights = {name: torch.from_numpy(np.asarray(value)) for name, value in values.items()}
    model = load_model(without_randomness(config), weights)
    if of_family:
        yield from family.evaluation_agreement(model, arrays)
        samples, name = family.training_samples(arrays), family.loss_name
        parameter_names = family.own_parameters(kit, case, weights, model.decoder.heads.num_sets == 1)
        arguments = model, samples, arrays, name, parameter_names
        found = []
        for agreement in training_agreement(*arguments):
            found.append(agreement)
            if not agreement.holds:
                break  # losses come first: where they tell of a tie, the backward pass is left out
        if not found[-1].holds:
            with ties_swapped():
                swapped = list(training_agreement(*arguments))
            holds = all(agreement.holds for agreement in swapped)
            found = swapped if holds else list(training_agreement(*arguments))
        yield from found
    if "image" in arrays:
        yield from mask_dino.evaluation_agreement(model, arrays)
    if "traj.loss.total" in arrays:
        yield from trajectory.trajectory_agreement(model, config, arrays)
    elif "train.0.image" in arrays:
        parameter_names = mask_dino.own_parameters(arrays, weights)
        yield from training_agreement(model, mask_dino.training_samples(arrays), arrays, str, parameter_names)
    if arrays.unused():
        raise ValueError(f"the kit has arrays that were not compared: {', '.join(arrays.unused())}")


def load_reference(folder: Path) -> ModuleType:
    """The kit's own module."""
    spec = importlib.util.spec_from_file_location("parity_reference", folder / "reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def without_randomness(config: DictConfig) -> DictConfig:
    """The config with the values of :data:`FIXED`, as far as it has their keys."""
    config = complete(config)
    present = [o for o in FIXED if OmegaConf.select(config, o.partition("=")[0]) is not None]
    return LazyConfig.apply_overrides(config, present)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n\n")[0],
        epilog="Noise, dropout and points, which the kit fixes, are set by the same config values as always: "
        + ", ".join(FIXED),
    )
    parser.add_argument("--kit", type=Path, required=True, metavar="DIR", help="folder with reference.py")
    parser.add_argument("--case", required=True, metavar="NAME", help="such as instance_r50")
    parser.add_argument("--config-file", required=True, metavar="FILE", help="config with a `model`")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="changes to the config")
    return parser.parse_intermixed_args(arguments)


def main(arguments: argparse.Namespace) -> int:
    """Prints a line for every array and returns the exit code."""
    config = LazyConfig.apply_overrides(LazyConfig.load(arguments.config_file), arguments.overrides)
    sys.stdout.write(f"{'array':<70} {'max error':<12} {'spread':<12}\n")
    off = count = 0
    for agreement in check(arguments.kit, arguments.case, config):
        sys.stdout.write(agreement.line() + "\n")
        count += 1
        off += not agreement.holds
    sys.stdout.write(f"{count - off} of {count} arrays agree\n")
    return 1 if off else 0


if __name__ == "__main__":
    sys.exit(main(parse_arguments()))
