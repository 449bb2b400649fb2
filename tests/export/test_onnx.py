"""ONNX files: the same results as the model's, in any batch and size, without PyTorch."""

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_masks

from detrex.cli.commands.export import parse_arguments
from detrex.cli.main import main
from detrex.export import ExportError, capture, export, verify
from detrex.export.formats import onnx_to_openvino
from detrex.export.half import halve_weights
from detrex.export.quantisation import quantise
from detrex.predict import load
from detrex.runtime.exported import Description, ExportedModelError, Predictor
from detrex.runtime.exported import load as load_exported
from detrex.runtime.exported.rle import encode
from tests.export.small_models import PROJECTS, SIZES, pictures, round_to_half, small_model
from tests.predict.tiny_run import CATEGORIES, noise, save_noise, write_run

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    # More queries than the smallest pictures have tokens, so that their number depends on the picture.
    return write_run(tmp_path_factory.mktemp("run"), "model.decoder.query_init.num_queries=24").folder


@pytest.fixture(scope="module")
def onnx_file(run, tmp_path_factory) -> Path:
    """A Mask DINO of all tasks, for pictures of any size and any number of them, by the command."""
    folder = tmp_path_factory.mktemp("exported")
    photo = save_noise(folder / "photos" / "a.png")
    words = ["export", str(run), "--to", "onnx", str(folder / "tiny.onnx"), "--verify", str(photo)]
    main(words)
    return folder / "tiny.onnx"


@pytest.fixture(scope="module")
def exported(onnx_file) -> Predictor:
    return load_exported(onnx_file, threads=1)


@pytest.mark.parametrize("batch", [1, 3])
def test_the_file_finds_what_the_model_finds(run, exported, batch):
    found = verify(load(run, device="cpu"), exported, pictures(batch), score_threshold=0.0, batch_size=batch)
    assert found.same, found.describe()
    assert found.pictures == 5 * batch and found.objects > 0
    assert found.panoptic_pixels is not None and found.semantic_pixels is not None


def test_openvino_finds_what_the_model_finds(run, exported, onnx_file, tmp_path):
    pytest.importorskip("openvino")
    outputs = [value.name for value in onnx.load(onnx_file).graph.output]
    path = onnx_to_openvino(onnx_file, tmp_path / "tiny.xml", exported.description, outputs)
    other = load_exported(path, threads=1)
    assert other.description == exported.description
    model = load(run, device="cpu")
    for batch in (1, 3):
        found = verify(model, other, pictures(batch), score_threshold=0.0, batch_size=batch)
        assert found.same and found.pictures == 5 * batch and found.objects > 0, found.describe()
    (tmp_path / "tiny.bin").write_bytes(b"")
    with pytest.raises(ExportedModelError, match="cannot be loaded by OpenVINO"):
        load_exported(path)


@pytest.mark.slow
@pytest.mark.timeout(1200)  # two minutes each on a quiet machine
@pytest.mark.parametrize("project", PROJECTS)
def test_files_of_every_project_find_what_the_model_finds(project, tmp_path):
    predictor = small_model(project)
    exported = load_exported(export(predictor, tmp_path / "model.onnx"), threads=1)
    for batch in (1, 3):
        found = verify(predictor, exported, pictures(batch), score_threshold=0.0, batch_size=batch)
        assert found.same, found.describe()


def test_the_graph_has_standard_operators_alone(onnx_file):
    model = onnx.load(onnx_file)
    assert {(o.domain, o.version) for o in model.opset_import} == {("", 20)}
    assert {node.domain for node in model.graph.node} == {""} and not model.functions
    onnx.checker.check_model(model)
    names = [value.name for value in model.graph.input]
    assert names == ["images", "score_threshold", "panoptic_threshold"]
    # OpenVINO may take the extreme for its reciprocal, see detrex.export.resizing.fixed_point.
    reduced = {out for node in model.graph.node if node.op_type.startswith("Reduce") for out in node.output}
    assert not any(reduced & {*node.input} for node in model.graph.node if node.op_type == "Reciprocal")
    nodes = [node.name for node in model.graph.node]
    assert "encoder.layers.0.feed_forward.linear1/MatMul" in nodes and len(set(nodes)) == len(nodes)
    # Nothing of the machine that wrote the file, such as the lines of code that nodes are of.
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert Path(capture.__code__.co_filename).name.encode() not in onnx_file.read_bytes()


def test_the_file_describes_itself(onnx_file, exported):
    metadata = {entry.key: entry.value for entry in onnx.load(onnx_file).metadata_props}
    assert json.loads(metadata["class_names"]) == ["cat", "dog", "sky"]
    assert json.loads(metadata["tasks"]) == ["instance", "panoptic", "semantic"]
    description = exported.description
    assert description.category_ids == CATEGORIES.ids and description.is_thing == (True, True, False)
    assert description.thresholds == {"score_threshold": 0.0, "panoptic_threshold": pytest.approx(0.1)}
    assert description.preprocessing["size"] == 64 and description.preprocessing["size_divisor"] == 32
    assert Description.from_metadata(description.to_metadata(), "it") == description


def test_results_have_the_interface_of_the_models(run, exported, tmp_path):
    image = noise(50, 70)
    expected = load(run, device="cpu").predict(image, score_threshold=0.3)
    found = exported.predict(image, score_threshold=0.3)
    assert len(found) == len(expected) > 0 and found.class_names == expected.class_names
    entries, reference = found.to_coco(5), expected.to_coco(5)
    assert [e["segmentation"] for e in entries] == [e["segmentation"] for e in reference]
    assert [e["category_id"] for e in entries] == [e["category_id"] for e in reference]
    np.testing.assert_allclose([e["bbox"] for e in entries], [e["bbox"] for e in reference], atol=0.01)
    assert found[0].class_name == expected[0].class_name and found[-1].score == found.scores[-1]
    assert [d.score for d in found] == found.scores.tolist()
    cats = found.filter("cat", score=0.4)
    assert len(cats) == len(expected.filter("cat", score=0.4))
    assert [s["category_id"] for s in cats.panoptic[1]] == [0] * len(cats.panoptic[1])
    assert Image.open(found.save(tmp_path / "a" / "found.png")).size == (70, 50)
    with pytest.raises(ValueError, match="no class 'cow'"):
        found.filter("cow")
    with pytest.raises(IndexError):
        found[len(found)]


def test_inputs_of_all_kinds_are_one_picture(exported, tmp_path):
    path = save_noise(tmp_path / "a.png")
    array = np.asarray(Image.open(path))
    kinds = [path, str(path), path.read_bytes(), path.open("rb"), Image.open(path), array]
    kinds += [np.dstack([array, array[..., :1]]), array.astype(np.uint16) * 257]
    results = exported.predict(kinds, tasks=["instance"], batch_size=4)
    assert results[0].file_name == str(path) and results[0].panoptic is None
    for result in results[1:]:
        np.testing.assert_array_equal(result.scores, results[0].scores)
    turned = Image.fromarray(array)
    turned.getexif()[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=turned.getexif())
    assert exported.predict(tmp_path / "turned.png").image_size == (array.shape[1], array.shape[0])


def test_options_choose_objects(exported):
    image = noise(40, 60)
    everything = exported.predict(image)
    best = exported.predict(image, max_detections=3, tasks=["instance"])
    np.testing.assert_array_equal(best.scores, everything.scores[:3])
    high = exported.predict(image, score_threshold="best")
    assert high.scores.min(initial=1) >= 0.5 and len(high) == (everything.scores >= 0.5).sum()
    nothing = exported.predict(image, score_threshold=1.0)
    assert len(nothing) == 0 and nothing.masks.shape == (0, 40, 60) and nothing.panoptic[1] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score_threshold": 2}, "from 0 to 1"),
        ({"score_threshold": "high"}, "or 'best'"),
        ({"score_threshold": {"semantic": 0.1}}, "'semantic' has none"),
        ({"max_detections": 0}, "at least 1"),
        ({"batch_size": 0}, "at least 1"),
        ({"tasks": ["boxes"]}, "this model gives instance, panoptic, semantic"),
        ({"tasks": []}, "this model gives"),
    ],
)
def test_options_that_cannot_be_are_explained(exported, options, message):
    with pytest.raises(ValueError, match=message):
        exported.predict(noise(20, 30), **options)


def test_pictures_that_cannot_be_are_explained(exported, tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"a\.png cannot be read"):
        exported.predict(tmp_path / "a.png")
    with pytest.raises(ValueError, match="float64"):
        exported.predict(np.zeros((4, 4, 3)))
    with pytest.raises(TypeError, match="type int"):
        exported.predict(5)
    with pytest.raises(ValueError, match="1 pixels high"):
        exported.predict(np.zeros((1, 4, 3), np.uint8))


def test_it_predicts_where_pytorch_is_not_installed(onnx_file, exported, tmp_path):
    path = save_noise(tmp_path / "a.png")
    code = f"""
        import sys

        class Blocked:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in ("torch", "torchvision", "timm", "omegaconf", "pycocotools"):
                    raise ImportError(name)

        sys.meta_path.insert(0, Blocked())
        from detrex.runtime import load

        result = load({str(onnx_file)!r}).predict({str(path)!r}, score_threshold=0.2)
        result.save({str(tmp_path / "found.png")!r})
        print(len(result), result.to_coco()[0]["segmentation"]["counts"])
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    expected = exported.predict(path, score_threshold=0.2)
    assert printed.split() == [str(len(expected)), expected.to_coco()[0]["segmentation"]["counts"]]


def test_the_script_of_the_docs_finds_the_same_without_this_package(
    onnx_file, exported, tmp_path, monkeypatch, capsys
):
    page = (Path(__file__).resolve().parents[2] / "docs" / "deploy.md").read_text()
    (script,) = re.findall(r"```python\n(import json\n.*?)```", page, re.DOTALL)
    assert "detrex" not in script
    (tmp_path / "mine.onnx").symlink_to(onnx_file)
    save_noise(tmp_path / "photos" / "first.jpg")
    monkeypatch.chdir(tmp_path)
    exec(compile(script, "docs/deploy.md", "exec"), {})
    expected = exported.predict("photos/first.jpg", score_threshold=0.5)
    assert len(expected) > 0
    assert capsys.readouterr().out.splitlines() == [
        f"{one.class_name} {one.score:.2f} at {x0:.0f}, {y0:.0f} to {x1:.0f}, {y1:.0f}, {mask.sum()} pixels"
        for one, (x0, y0, x1, y1), mask in zip(expected, expected.boxes, expected.masks, strict=True)
    ]


def test_quantised_files_are_smaller_and_find_nearly_the_same(run, onnx_file, tmp_path):
    path = tmp_path / "int8.onnx"
    done = quantise(onnx_file, path, pictures(1, SIZES[:2]), keep=["decoder.heads.*"])
    assert done.path == path and path.stat().st_size < 0.4 * onnx_file.stat().st_size
    stem, projection, heads = (
        [name for name in done.kept if name.startswith(start)]
        for start in ("backbone", "encoder.projections", "decoder.heads")
    )
    assert stem == ["backbone.model.conv1.0", "backbone.model.conv1.3", "backbone.model.conv1.6"]
    assert projection and heads and len(done.kept) == len(stem + projection + heads)
    assert "encoder.layers.0.feed_forward.linear1" in done.layers and len(done.layers) > 20
    model = onnx.load(path)
    assert {one.domain for one in model.opset_import} == {""} == {node.domain for node in model.graph.node}
    assert not any(node.op_type == "BatchNormalization" for node in model.graph.node)
    small = load_exported(path, threads=1)
    assert small.description.precision == "int8"
    found = verify(load(run, device="cpu"), small, pictures(1, SIZES[:1]), score_threshold=0.0)
    assert found.pictures == 1 and found.semantic_pixels > 0.8
    with pytest.raises(ValueError, match="pictures to be calibrated on"):
        quantise(onnx_file, tmp_path / "none.onnx", [])
    with pytest.raises(
        ValueError, match=r"no layer with weights fits decode\.\*; there are .*backbone\.model"
    ):
        quantise(onnx_file, tmp_path / "none.onnx", pictures(1, SIZES[:1]), keep=["decode.*"])
    assert not (tmp_path / "none.onnx").exists()
    openvino = pytest.importorskip("openvino")
    read = openvino.Core().read_model(path)
    assert any(node.get_type_name() == "FakeQuantize" for node in read.get_ops())


def test_weights_of_16_bits_halve_the_file_and_are_those_of_the_model_rounded(run, onnx_file, tmp_path):
    model = onnx.load(onnx_file)
    halve_weights(model.graph)
    onnx.checker.check_model(model)
    onnx.save(model, tmp_path / "half.onnx")
    assert (tmp_path / "half.onnx").stat().st_size < 0.6 * onnx_file.stat().st_size
    predictor = load(run, device="cpu", prepare=False)
    round_to_half(predictor.model)
    exported = load_exported(tmp_path / "half.onnx", threads=1)
    found = verify(predictor, exported, pictures(1), score_threshold=0.0)
    assert found.same and found.objects > 0, found.describe()


def test_weights_too_large_for_16_bits_are_named():
    tensor = onnx.numpy_helper.from_array(np.full((16, 16), 7e4, np.float32), "layer.weight")
    graph = onnx.helper.make_graph([], "g", [], [], [tensor])
    with pytest.raises(ValueError, match=r"layer\.weight has a weight of 7e\+04"):
        halve_weights(graph)


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (7, 300), (60, 41)])
def test_masks_are_encoded_as_coco_encodes_them(shape):
    for share in (0.0, 0.02, 0.5, 1.0):
        mask = np.random.default_rng(0).random(shape) < share
        expected = coco_masks.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert encode(mask) == {"size": list(shape), "counts": expected["counts"].decode()}


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no exported model"):
        load_exported(tmp_path / "gone.onnx")
    for name, message in [("a.onnx", "cannot be loaded"), ("a.pth", "detrex.load"), ("a.pt2", "trust_code")]:
        (tmp_path / name).write_bytes(b"nothing")
        with pytest.raises(ExportedModelError, match=message):
            load_exported(tmp_path / name)
    with pytest.raises(ExportedModelError, match="no program of PyTorch"):
        load_exported(tmp_path / "a.pt2", trust_code=True)
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    other = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [value], [result]), ir_version=10)
    onnx.save(other, tmp_path / "b.onnx")
    with pytest.raises(ExportedModelError, match="not written by 'detrex export'"):
        load_exported(tmp_path / "b.onnx")
    props = {"version": "1", "tasks": '["boxes"]'}
    onnx.helper.set_model_props(other, props)
    onnx.save(other, tmp_path / "b.onnx")
    with pytest.raises(ExportedModelError, match="damaged"):
        load_exported(tmp_path / "b.onnx")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ["boxes"]}, "this model gives instance, panoptic, semantic"),
        ({"batch": 65}, "1 to 64"),
        ({"sides": (100, 50)}, "the smaller number first"),
        ({"size": (1, 50)}, "sides from 1 to 50"),
    ],
)
def test_exports_that_cannot_be_are_explained(options, message):
    with pytest.raises(ExportError, match=message):
        capture(small_model("maskdino"), **options)


def test_models_that_cannot_be_exported_are_explained(tmp_path):
    predictor = small_model("detr")
    with pytest.raises(ExportError, match=r"ends with \.onnx"):
        export(predictor, tmp_path / "model.xml")
    with pytest.raises(ExportError, match="no format 'tflite'"):
        export(predictor, tmp_path / "model.tflite", to="tflite")
    with pytest.raises(ExportError, match="give --size HxW and --batch N"):
        export(predictor, tmp_path / "model.pt2", to="aotinductor", batch=1)
    with pytest.raises(ExportError, match="onnx and openvino alone, not in torch"):
        export(predictor, tmp_path / "model.pt2", to="torch", half=True)
    with pytest.raises(ExportError, match="in its own way"):
        capture(small_model("co_mot"))
    predictor.model.inference = object()
    with pytest.raises(ExportError, match="model.inference=null"):
        capture(predictor)
    predictor.mapper = str
    with pytest.raises(ExportError, match="EvalMapper"):
        capture(predictor)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "torch", "a.pt2", "--half"], "--half goes with --to onnx, --to openvino and --to web"),
        (["--to", "torch", "a.pt2", "--int8", "p"], "--int8 goes with --to onnx, --to openvino and --to web"),
        (["a.onnx", "--int8-float", "encoder.*"], "--int8-float goes with --int8"),
        (["a.onnx", "--half", "--int8", "p"], "not allowed with argument --half"),
    ],
)
def test_options_that_do_not_go_together_are_named(words, message, capsys):
    with pytest.raises(SystemExit):
        parse_arguments(["run", *words])
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_file_for_one_size_takes_no_other(tmp_path):
    predictor = small_model("detr")
    exported = load_exported(export(predictor, tmp_path / "model.onnx", batch=2, size=SIZES[0]), threads=1)
    found = verify(predictor, exported, pictures(1, SIZES[:1] * 3), score_threshold=0.0, batch_size=2)
    assert found.same and found.pictures == 3
    with pytest.raises(ValueError, match="exported for pictures that are 50 pixels high"):
        exported.predict(noise(51, 70), batch_size=2)
    with pytest.raises(ValueError, match="batch_size=1: expected 2"):
        exported.predict(noise(*SIZES[0]))
