"""Models on the Hugging Face hub: ``detrex.load("hf://org/name")`` and :func:`push_to_hub`.

A repository has one file of weights, ``model.safetensors``, which contains config, classes and score
thresholds, and a model card. As in all weights from others, the config is data, which runs no code.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from shutil import copyfile
from typing import Any

import detrex
from detrex.checkpoint import FINAL_WEIGHTS, CheckpointError, read_metadata
from detrex.checkpoint.loading import SCORE_THRESHOLDS
from detrex.checkpoint.weights import WEIGHTS_NAME
from detrex.structures import Categories

PREFIX = "hf://"
_RESULTS, _PICTURE = "results.json", "predictions.png"
_TASKS = {"segm": "image-segmentation", "panoptic": "image-segmentation", "semantic": "image-segmentation"}


def is_hub_name(name: str) -> bool:
    """Whether the name of a model has the form ``hf://org/name``."""
    return name.startswith(PREFIX)


def download(name: str, endpoint: str | None = None, token: str | None = None) -> Path:
    """The weights of a repository, downloaded once into the hub's cache.

    Args:
        name: ``hf://org/name``, or ``hf://org/name@revision`` for a branch, tag or commit.
        endpoint: of another hub; by default that of ``HF_ENDPOINT``, else huggingface.co.
        token: for private repositories; by default what ``hf auth login`` has stored.

    Raises:
        CheckpointError: there is no such repository, it has no such file, or it cannot be reached.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, _, revision = name.removeprefix(PREFIX).partition("@")
    try:
        path = hf_hub_download(
            repository, WEIGHTS_NAME, revision=revision or None, endpoint=_endpoint(endpoint), token=token
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{name} cannot be loaded from the hub: {reason}. A repository of this toolbox has a file "
            f"{WEIGHTS_NAME}, and is named hf://ORGANISATION/NAME."
        ) from error
    return Path(path)


def _endpoint(given: str | None) -> str | None:
    return given or os.environ.get("HF_ENDPOINT")


def push_to_hub(
    source: str | Path,
    repository: str,
    *,
    private: bool = False,
    token: str | None = None,
    license: str | None = None,
    message: str = "Upload a model",
    endpoint: str | None = None,
) -> str:
    """Uploads the final weights of a run with a model card; creates the repository if need be.

    Args:
        source: the folder of a run, or its weights.
        repository: ``org/name``, with or without ``hf://``.
        private: whether a new repository is private.
        token: by default, the one stored by ``hf auth login``.
        license: of the model, by the hub's name, such as ``apache-2.0``.
        message: of the commit.
        endpoint: see :func:`download`.

    Returns:
        The address of the repository.

    Raises:
        CheckpointError: there are no weights of this toolbox at ``source``, or the hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    weights = Path(source) / FINAL_WEIGHTS if Path(source).is_dir() else Path(source)
    name = repository.removeprefix(PREFIX)
    card = model_card(weights, name, license)
    api = HfApi(endpoint=_endpoint(endpoint), token=token)
    with tempfile.TemporaryDirectory() as folder:
        copyfile(weights, Path(folder, WEIGHTS_NAME))
        for extra in (_RESULTS, _PICTURE):
            if (weights.parent / extra).is_file():
                copyfile(weights.parent / extra, Path(folder, extra))
        Path(folder, "README.md").write_text(card, encoding="utf-8")
        try:
            address = api.create_repo(name, private=private, exist_ok=True)
            api.upload_folder(repo_id=name, folder_path=folder, commit_message=message)
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            raise CheckpointError(f"{name} could not be uploaded: {error}") from error
    return str(address)


def model_card(weights: Path, repository: str, license: str | None = None) -> str:
    """The page of a model: its classes, metrics and score thresholds, and how to use it.

    Args:
        weights: a file of this toolbox; ``results.json`` beside it has the metrics.
        repository: ``org/name``.
        license: of the model.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is not a weights file of this toolbox, with config and classes.
    """
    metadata = read_metadata(weights)
    if "config" not in metadata or "categories" not in metadata:
        raise CheckpointError(
            f"{weights} has no config or classes in it: give the folder of a run, or convert the file "
            "('detrex convert-weights')"
        )
    categories = Categories.from_dict(json.loads(metadata["categories"]))
    results = weights.parent / _RESULTS
    content = json.loads(results.read_text(encoding="utf-8")) if results.is_file() else {}
    metrics = {k: v for k, v in content.get("metrics", {}).items() if v is not None}
    parts = [
        _front_matter(metrics, repository, license),
        f"# {repository.rpartition('/')[2]}\n\nA model of detrex-maskdino {detrex.__version__} for "
        f"{len(categories)} classes: {', '.join(categories.names)}.\n",
        f'```python\nimport detrex\n\nmodel = detrex.load("{PREFIX}{repository}")\n'
        'model("photo.jpg", score_threshold="best").save("found.png")\n```\n',
        _table("## Metrics", ("metric", "value"), ((k, f"{v:.2f}") for k, v in metrics.items())),
        _thresholds(metadata, categories, content.get("score_thresholds", {})),
    ]
    return "\n".join(part for part in parts if part)


def _front_matter(metrics: Mapping[str, float], repository: str, license: str | None) -> str:
    tasks = [name.partition("/")[0] for name in metrics]
    tag = next((_TASKS[task] for task in tasks if task in _TASKS), "object-detection")
    content: dict[str, Any] = {
        "library_name": "detrex-maskdino",
        "pipeline_tag": tag,
        "tags": ["detrex", "mask-dino"],
    }
    if license is not None:
        content["license"] = license
    if metrics:
        result = {
            "task": {"type": tag},
            "dataset": {"name": "validation data of the run", "type": "custom"},
            "metrics": [{"type": name, "value": round(value, 2)} for name, value in metrics.items()],
        }
        content["model-index"] = [{"name": repository.rpartition("/")[2], "results": [result]}]
    # JSON is YAML, and needs no library.
    lines = [f"{key}: {json.dumps(value)}" for key, value in content.items()]
    return "\n".join(["---", *lines, "---", ""])


def _thresholds(metadata: Mapping[str, str], categories: Categories, found: Mapping[str, Any]) -> str:
    kept: dict[str, float] = json.loads(metadata.get(SCORE_THRESHOLDS, "{}"))
    rows = (
        (name, f"{kept[str(i)]:.2f}", f"{found[str(i)]['f1']:.2f}" if str(i) in found else "-")
        for i, name in zip(categories.ids, categories.names, strict=True)
        if str(i) in kept
    )
    return _table("## Score thresholds with the best F1", ("class", "threshold", "F1"), rows)


def _table(title: str, columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    if not lines:
        return ""
    head = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    return "\n".join([title, "", *head, *lines, ""])
