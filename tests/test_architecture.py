"""Imports run one way; nothing but commands prints, and nothing names a device."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

BOTTOM = {"config", "structures", "runtime"}
# What each part of detrex may import besides itself. Evaluators read annotation files as `data` does,
# and the model zoo lists of classes.
MAY_IMPORT = {
    "": {"predict", "training", "cli"},  # `import detrex` itself and `python -m detrex`
    "config": set(),
    "structures": {"runtime"},
    "runtime": set(),
    "ops": {"runtime"},
    "ops_info": {"ops", "runtime"},
    "layers": BOTTOM | {"ops"},
    "modeling": BOTTOM | {"layers", "ops"},
    "data": BOTTOM,
    "evaluation": BOTTOM | {"data"},
    "checkpoint": BOTTOM | {"data"},
    "visualization": BOTTOM,
    "analysis": BOTTOM | {"ops", "modeling", "data"},
    "report": BOTTOM | {"data", "evaluation", "visualization"},
    "engine": BOTTOM | {"modeling", "data", "evaluation", "checkpoint", "report"},
    "cli": BOTTOM
    | {"ops_info", "data", "evaluation", "checkpoint", "visualization", "report", "engine", "predict"}
    | {"analysis", "benchmark", "export", "hub", "serve"},
    "serve": BOTTOM | {"predict"},
    "training": BOTTOM | {"engine", "cli", "predict"},
    "benchmark": BOTTOM | {"ops", "modeling", "evaluation", "engine", "predict", "serve"},
    "export": BOTTOM | {"ops", "layers", "modeling", "data", "predict"},
    "hub": BOTTOM | {"checkpoint"},
    "interop": BOTTOM | {"modeling", "data"},
    "predict": BOTTOM | {"hub", "modeling", "data", "checkpoint", "visualization"},
}
OURS = {"detrex", "projects", "configs", "tools", "tests"}


def python_files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(tree: ast.AST, location: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Dotted paths, from the root on, of the modules and names that code in ``location`` imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = location[: len(location) - node.level + 1] if node.level else ()
            module = tuple(node.module.split(".")) if node.module else ()
            yield from ((*base, *module, alias.name) for alias in node.names)


def part_of(path: tuple[str, ...]) -> str:
    """The part of detrex that a dotted path is in; its version and the like belong to none."""
    return path[1] if len(path) > 1 and path[1] in MAY_IMPORT else ""


def forbidden(source: tuple[str, ...], target: tuple[str, ...]) -> bool:
    """Whether a file at ``source`` (its path's parts, without suffix) may not import ``target``."""
    home, goal = source[0], target[0]
    if goal not in OURS:
        return False
    if home == "detrex":
        origin, other = part_of(source), part_of(target)
        return goal != "detrex" or (other not in ("", origin) and other not in MAY_IMPORT.get(origin, set()))
    if home == "projects":
        return goal not in ("detrex", "configs") and target[:2] != source[:2]
    if home == "configs":
        return goal not in ("detrex", "configs")
    return goal == "tests"


def violations(path: str, code: str) -> list[str]:
    source = tuple(Path(path).with_suffix("").parts)
    targets = imported(ast.parse(code), source[:-1])
    return [f"{path} imports {'.'.join(target)}" for target in targets if forbidden(source, target)]


@pytest.mark.parametrize("folder", ["detrex", "configs", "projects", "tools"])
def test_imports_run_one_way(folder):
    assert [line for p in python_files(folder) for line in violations(relative(p), p.read_text())] == []


def test_every_part_of_the_package_has_its_place():
    parts = [p for p in (ROOT / "detrex").iterdir() if p.is_dir() or p.suffix == ".py"]
    assert {p.stem for p in parts if not p.name.startswith(("_", "."))} <= set(MAY_IMPORT)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("detrex/layers/a.py", "from detrex.modeling import x"),
        ("detrex/layers/a.py", "from detrex import engine"),
        ("detrex/layers/a.py", "import detrex.data.loaders"),
        ("detrex/layers/a.py", "from ..engine import x"),
        ("detrex/modeling/a.py", "def f():\n    from detrex.data import x"),
        ("detrex/engine/a.py", "import tools.train_net"),
        ("detrex/engine/a.py", "from projects.dino import x"),
        ("projects/dino/a.py", "from projects.maskdino.b import x"),
        ("projects/dino/configs/a.py", "from ...maskdino.configs.b import x"),
        ("configs/common/a.py", "from projects.dino import x"),
        ("tools/a.py", "from tests.b import x"),
    ],
)
def test_a_wrong_import_is_found(path, code):
    assert len(violations(path, code)) == 1


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("detrex/engine/a.py", "from detrex import __version__, data\nimport torch"),
        ("detrex/layers/sub/a.py", "from ..mlp import MLP\nfrom detrex.structures import boxes"),
        (
            "projects/dino/configs/a.py",
            "from .b import x\nfrom ..model import y\nfrom detrex.engine import z",
        ),
        ("projects/dino/a.py", "from projects.dino.b import x"),
        ("tools/a.py", "from detrex.engine import run"),
    ],
)
def test_a_right_import_passes(path, code):
    assert violations(path, code) == []


def calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))


@pytest.mark.parametrize("folder", ["detrex", "projects"])
def test_nothing_but_commands_prints_and_nothing_names_a_device(folder):
    found = [
        f"{relative(path)}:{call.lineno}"
        for path in python_files(folder)
        for call in calls(path)
        if (isinstance(call.func, ast.Name) and call.func.id == "print" and "cli" not in path.parts)
        or (isinstance(call.func, ast.Attribute) and call.func.attr == "cuda")
    ]
    assert found == []
