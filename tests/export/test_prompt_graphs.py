"""Models of clicks and words as graphs: the masks and objects of PyTorch, in onnxruntime and in a browser."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_masks

from detrex.config import LazyConfig, instantiate
from detrex.data import EvalMapper
from detrex.export import ExportError, capture, export, export_prompts, verify, verify_prompts, web
from detrex.export.half import FEW_WEIGHTS
from detrex.export.prompting import PictureToMemory, PromptsToMasks, WordsToResults
from detrex.predict import Predictor
from detrex.runtime.exported import ExportedModelError, PromptGraphs, PromptPredictor, load_prompts
from detrex.runtime.exported import Predictor as ExportedPredictor
from detrex.structures import Categories
from projects.promptable.scenes import BADGE, SEEN, draw_scene
from tests.config_files import config_of
from tests.export.browser import CHROMIUM, opened, package, served
from tests.export.small_models import GraphRunner, description_of, round_to_half
from tests.predict.tiny_run import lively, noise

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

SMALL = (
    "model.encoder={hidden_dim: 64, ffn_dim: 16, num_heads: 2, num_layers: 1}",
    "model.pixel_head.mask_dim=8",
    "model.decoder.layers={num_heads: 2, ffn_dim: 16, num_layers: 1}",
    "model.backbone.options={channels: [8, 8, 8, 8], stem_width: 4}",
)
NAMES = [*(kind.name for kind in SEEN), BADGE]


def small(config: str, *more: str) -> Predictor:
    """A model of a config with random weights that show something."""
    torch.manual_seed(0)
    model = lively(instantiate(LazyConfig.apply_overrides(config_of(config), [*SMALL, *more]).model))
    return Predictor(
        model, EvalMapper(64, 96), Categories.from_names([str(i) for i in range(model.num_classes)])
    )


def small_promptable(*more: str) -> Predictor:
    return small(
        "projects/promptable/configs/promptable_shapes.py",
        f"model.vocabulary.names=[{', '.join(NAMES)}]",
        f"model.num_classes={len(NAMES)}",
        "model.prompt_decoder.layers.num_layers=1",
        "model.text.embed_dim=8",
        *more,
    )


@pytest.fixture(scope="module")
def promptable() -> Predictor:
    return small_promptable()


@pytest.fixture(scope="module")
def graphs(promptable, tmp_path_factory) -> Path:
    return export_prompts(promptable, tmp_path_factory.mktemp("exported") / "graphs")


@pytest.fixture(scope="module")
def files(graphs) -> PromptPredictor:
    return load_prompts(graphs, threads=1)


class GraphSession:
    """A graph itself in the place of a session of onnxruntime."""

    def __init__(self, graph: torch.nn.Module, outputs: list[str]):
        self.graph, self.outputs = graph.eval(), outputs

    def get_outputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=name) for name in self.outputs]

    @torch.inference_mode()
    def run(self, _names: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        values = {name: torch.from_numpy(np.asarray(value)) for name, value in inputs.items()}
        if memory := [values.pop(name) for name in sorted(values) if name.startswith("memory_")]:
            values["memory"] = memory
        found = self.graph(**values)
        return [found[name].numpy() for name in self.outputs]


@pytest.fixture(scope="module", params=["graphs", pytest.param("files", marks=pytest.mark.slow)])
def exported(request, promptable) -> PromptPredictor:
    """The graphs as they are, and the files that are written of them, which takes long."""
    if request.param == "files":
        return request.getfixturevalue("files")
    model, mapper = promptable.model, promptable.mapper
    memory = [f"memory_{i}" for i in range(3)]
    sessions = {
        "picture": GraphSession(PictureToMemory(model, mapper), ["frame", "pixels", *memory]),
        "prompts": GraphSession(PromptsToMasks(model, mapper), ["masks", "quality"]),
        "words": GraphSession(WordsToResults(model, mapper), ["boxes", "scores", "classes", "masks"]),
    }
    told = description_of(promptable, ("instance",))
    return PromptPredictor(sessions, told, PromptGraphs((1, 2, 3), model.text.tokenizer.words))


PICTURES = [noise(50, 70), noise(200, 120), noise(96, 64)]


def test_the_graphs_answer_clicks_as_the_model_does(promptable, exported):
    found = verify_prompts(promptable, exported, PICTURES)
    assert found.same and found.pictures == 3 and found.masks == 3 * 9 * 3, found.describe()
    assert found.lowest_mask_iou == 1.0
    (click,) = exported.look_at(PICTURES[0]).prompt(points=[(20, 30)])
    first, second = exported.look_at(PICTURES[0]).prompt(points=[(60, 10)], boxes=[(5, 5, 40, 30)])
    assert sorted(click.level) == [1, 2, 3] and (np.diff(click.quality) <= 0).all()
    (alone,) = exported.look_at(PICTURES[0]).prompt(boxes=[(5, 5, 40, 30)])
    assert (alone.masks == second.masks).all() and first.masks.shape == (3, 50, 70)
    (ours,) = promptable.prompt(PICTURES[0], boxes=[(5, 5, 40, 30)], min_quality=-9, min_region=0)
    np.testing.assert_allclose(ours.quality[0], second.quality[0], atol=1e-5)


def test_the_graphs_find_words_as_the_model_does(promptable, exported):
    for classes in (["red star"], ["striped circle", "Star, plain", BADGE]):
        for picture in PICTURES:
            expected = promptable(picture, classes=Categories.from_names(classes), score_threshold=0.0)
            found = exported.look_at(picture).find(classes, 0.0)
            assert len(found) == len(expected) > 0
            np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
            np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-2)
            assert (found.masks != expected.masks.numpy()).mean() < 1e-4


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda seen: seen.prompt(), "give points="),
        (lambda seen: seen.prompt(points=[(71, 3)]), "not within the picture of 70 x 50 pixels"),
        (lambda seen: seen.prompt(points=[(float("nan"), 3)]), "not within the picture"),
        (lambda seen: seen.prompt(boxes=[(9, 9, 9, 12)]), "x0 < x1"),
        (lambda seen: seen.find([]), "expected a list with the names of classes"),
        (lambda seen: seen.find("star"), "expected a list with the names of classes"),
        (lambda seen: seen.find(["star", "STAR"]), "named more than once"),
        (lambda seen: seen.find(["star", "zebra"]), "does not know zebra; the words that it knows are red, "),
        (lambda seen: seen.find(["star", " "]), "cannot find nothing"),
    ],
)
def test_wrong_questions_are_named(exported, ask, message):
    with pytest.raises(ValueError, match=message):
        ask(exported.look_at(PICTURES[0]))


def test_wrong_places_are_named(promptable, tmp_path):
    with pytest.raises(FileNotFoundError, match="writes it for models that answer clicks"):
        load_prompts(tmp_path)
    with pytest.raises(ExportError, match="name a folder for them, such as .*mine"):
        export_prompts(promptable, tmp_path / "mine.onnx")
    with pytest.raises(ExportError, match="export_prompts writes them to a folder"):
        export(promptable, tmp_path / "mine.onnx")


@pytest.mark.slow
def test_files_are_of_standard_operators_and_know_what_they_are(graphs, tmp_path):
    shutil.copytree(graphs, tmp_path / "mixed")
    shutil.copy(graphs / "picture.onnx", tmp_path / "mixed" / "prompts.onnx")
    with pytest.raises(ExportedModelError, match="is not the graph of its name"):
        load_prompts(tmp_path / "mixed")
    names = {path.name for path in graphs.iterdir()}
    assert names == {"picture.onnx", "prompts.onnx", "words.onnx"}
    for name in names:
        model = onnx.load(graphs / name)
        assert {node.domain for node in model.graph.node} == {""} and not model.functions


@pytest.mark.slow
def test_a_page_of_clicks_and_words_keeps_weights_in_16_bits_if_asked(tmp_path):
    predictor = small_promptable("model.decoder.layers.num_layers=1")
    runtime = package(tmp_path / "runtime")
    folder = web.export_web(predictor, tmp_path / "page", runtime, sides=(64, 64), half=True)
    assert json.loads((folder / "model.json").read_text())["precision"] == "fp16"
    for name in ("picture", "prompts", "words"):
        weights = onnx.load(folder / f"{name}.onnx").graph.initializer
        large = {tensor.data_type for tensor in weights if np.prod(tensor.dims) >= FEW_WEIGHTS}
        assert onnx.TensorProto.FLOAT16 in large and onnx.TensorProto.FLOAT not in large, name
    exported, picture = load_prompts(folder, threads=1), noise(64, 64)
    round_to_half(predictor.model)
    found = verify_prompts(predictor, exported, [picture])
    assert found.same and found.masks == 9 * 3, found.describe()
    words = ["red star", "circle"]
    expected = predictor.predict(picture, classes=words, score_threshold=0.0)
    assert len(expected) > 0
    scores = exported.look_at(picture).find(words, score_threshold=0.0).scores
    np.testing.assert_allclose(scores, expected.scores.numpy(), atol=1e-4)


@pytest.mark.slow
def test_semantic_sam_answers_clicks_in_two_graphs(tmp_path):
    predictor = small("projects/semantic_sam/configs/semantic_sam_shapes.py")
    folder = export_prompts(predictor, tmp_path / "graphs")
    assert {path.name for path in folder.iterdir()} == {"picture.onnx", "prompts.onnx"}
    exported = load_prompts(folder, threads=1)
    found = verify_prompts(predictor, exported, PICTURES[:1])
    assert found.same and found.masks == 9 * 6, found.describe()
    with pytest.raises(ValueError, match="reads no words"):
        exported.look_at(PICTURES[0]).find(["star"])


@pytest.mark.slow
def test_openseed_is_one_graph_of_fixed_words():
    """The graph itself stands for the file: what is written is what other projects' tests write."""
    pytest.importorskip("open_clip")
    more = ["model.text={width: 8, num_layers: 1, num_heads: 2, embed_dim: 8}"]
    more += ["model.vocabulary.names=[a, b]", "model.num_classes=2", "model.postprocess.thing_classes=null"]
    predictor = small(
        "projects/openseed/configs/openseed_shapes.py", *more, "model.decoder.query_init.num_queries=8"
    )
    predictor.set_classes("red car, person, sky:stuff")
    with pytest.raises(ExportError, match=r"model\.postprocess\.interpolation=bilinear"):
        capture(predictor)
    predictor.model.postprocess.interpolation = "bilinear"
    captured = capture(predictor, tasks=("instance", "panoptic"))
    assert captured.description.class_names == ("red car", "person", "sky")
    assert captured.description.is_thing == (True, True, False)
    description = description_of(predictor, ("instance", "panoptic"))
    program = captured.program.module()
    found = verify(
        predictor, ExportedPredictor(GraphRunner(program, description)), PICTURES[:2], score_threshold=0.0
    )
    assert found.same and found.objects > 0, found.describe()


RUNTIME = os.environ.get("DETREX_ONNXRUNTIME_WEB")
"""The package onnxruntime-web, as ``npm pack`` makes it or unpacked."""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.skipif(RUNTIME is None, reason="needs onnxruntime-web, named by DETREX_ONNXRUNTIME_WEB")
def test_a_browser_answers_as_python_does(graphs, files, tmp_path):
    pytest.importorskip("websocket")
    page = tmp_path / "page"
    shutil.copytree(graphs, page)
    web.write_prompt_page(page, web.read_runtime(str(RUNTIME)))
    scene, _ = draw_scene(np.random.default_rng(5), 96, held_out=True)
    Image.fromarray(scene).save(page / "scene.png")
    seen = files.look_at(scene)
    with served(page) as address, opened(address, tmp_path / "browser") as tab:
        tab.evaluate(f"{PAGE}.ready)")
        early = tab.evaluate(f"{PAGE}.find('star')).catch((error) => error.message)")
        tab.evaluate(f"{PAGE}.look('scene.png', 'scene.png'))")
        for box in ([30, 40, 30, 40], [10, 20, 60, 90]):
            found = tab.evaluate(f"{PAGE}.prompt({box}))")
            (expected,) = seen.prompt(**({"points": [box[:2]]} if box[0] == box[2] else {"boxes": [box]}))
            assert [entry["level"] for entry in found] == expected.level.tolist()
            np.testing.assert_allclose([entry["quality"] for entry in found], expected.quality, atol=1e-5)
            for entry, mask in zip(found, expected.masks, strict=True):
                assert (coco_masks.decode(entry["segmentation"]).astype(bool) == mask).mean() > 0.999
        tab.evaluate(CLICK)
        clicked = tab.evaluate(f"{PAGE}.prompt([48, 48, 48, 48]).then(() => page.coco()))")
        assert len(clicked["annotations"]) == 1 and clicked["categories"] == [{"id": 1, "name": "object"}]
        buttons = tab.evaluate("document.querySelectorAll('#answers button').length")
        words = tab.evaluate(f"{PAGE}.find('red star, badge'))")
        wrong = tab.evaluate(f"{PAGE}.find('red zebra')).catch((error) => error.message)")
        assert not tab.complaints and all(url.startswith(address) for url in tab.requested)
    found = seen.find(["red star", "badge"], 0.3)
    assert buttons == 3 and len(words["annotations"]) == len(found)
    np.testing.assert_allclose([e["score"] for e in words["annotations"]], found.scores, atol=1e-4)
    assert wrong == "This model does not know “zebra”." and early == "Choose a picture first."


PAGE = "import('./prompts.js').then((page) => page"
CLICK = """(() => {
    const canvas = document.getElementById("canvas");
    const frame = canvas.getBoundingClientRect();
    const [clientX, clientY] = [frame.left + frame.width / 2, frame.top + frame.height / 2];
    canvas.setPointerCapture = () => {};
    const place = { clientX, clientY };
    for (const name of ["pointerdown", "pointerup"]) canvas.dispatchEvent(new PointerEvent(name, place));
})()"""
