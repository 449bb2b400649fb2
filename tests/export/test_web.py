"""The folder with a page: what is in it, what is refused, and that it finds what Python finds."""

import io
import json
import logging
import os
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_masks

from detrex.cli.main import main
from detrex.data.shapes import write_shapes_dataset
from detrex.export import ExportError, verify, web
from detrex.export.formats import set_metadata
from detrex.export.half import FEW_WEIGHTS
from detrex.runtime.exported import Result
from detrex.runtime.exported import load as load_exported
from tests.export.browser import CHROMIUM, opened, package, served
from tests.export.small_models import description_of, pictures, round_to_half, small_model
from tests.predict.tiny_run import CATEGORIES, write_run

FILES = {
    "index.html",
    "style.css",
    "app.js",
    "common.js",
    "results.js",
    "worker.js",
    "model.onnx",
    "model.json",
    "onnxruntime-web/ort.wasm.bundle.min.mjs",
    "onnxruntime-web/ort-wasm-simd-threaded.wasm",
    "onnxruntime-web/package.json",
}


def archive(folder: Path, path: Path) -> Path:
    """The package as ``npm pack`` writes it."""
    with tarfile.open(path, "w:gz") as file:
        file.add(folder, "package")
    return path


def test_the_runtime_comes_from_a_folder_or_an_archive(tmp_path, caplog):
    folder = package(tmp_path / "package")
    found = web.read_runtime(folder)
    assert set(found) == {Path(name).name for name in FILES if name.startswith("onnxruntime-web/")}
    assert found["ort-wasm-simd-threaded.wasm"] == b"content of ort-wasm-simd-threaded.wasm"
    assert web.read_runtime(archive(folder, tmp_path / "a.tgz")) == found and not caplog.records
    with caplog.at_level(logging.WARNING):
        web.read_runtime(package(tmp_path / "older", version="1.2.3"))
    assert f"the page is tested with {web.RUNTIME_VERSION}" in caplog.text


def test_what_is_no_runtime_is_refused(tmp_path):
    with pytest.raises(ExportError, match=r"gone\.tgz does not exist; get it by 'npm pack"):
        web.read_runtime(tmp_path / "gone.tgz")
    (tmp_path / "text.tgz").write_text("no archive")
    (tmp_path / "empty").mkdir()
    for name in ("text.tgz", "empty"):
        with pytest.raises(ExportError, match="is no package onnxruntime-web"):
            web.read_runtime(tmp_path / name)
    with pytest.raises(ExportError, match="is the package other"):
        web.read_runtime(package(tmp_path / "other", name="other"))
    folder = package(tmp_path / "linked")
    (folder / "dist/ort.wasm.bundle.min.mjs").unlink()
    (folder / "dist/ort.wasm.bundle.min.mjs").symlink_to("/etc/hostname")
    with pytest.raises(ExportError, match="is not what it should be"):
        web.read_runtime(archive(folder, tmp_path / "linked.tgz"))
    with tarfile.open(tmp_path / "bomb.tgz", "w:gz") as file:
        member = tarfile.TarInfo("package/dist/ort.wasm.bundle.min.mjs")
        member.size = 65 * 2**20
        file.addfile(member, io.BytesIO(bytes(member.size)))
    with pytest.raises(ExportError, match="is not what it should be"):
        web.read_runtime(tmp_path / "bomb.tgz")


def test_folders_with_other_files_are_left_alone(tmp_path):
    web.check_folder(tmp_path / "new")
    web.check_folder(tmp_path)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ExportError, match="files that are no page"):
        web.check_folder(tmp_path)
    with pytest.raises(ExportError, match="is a file"):
        web.check_folder(tmp_path / "thesis.txt")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--to", "web"],
            f"--download .*33 MB.* or get it by 'npm pack onnxruntime-web@{web.RUNTIME_VERSION}'",
        ),
        (["--to", "web", "--download", "--onnxruntime-web", "a"], "not allowed with argument"),
        (["--to", "web", "--download", "--size", "50x70"], "--size and --batch do not go with --to web"),
        (["--to", "web", "--download", "--batch", "2"], "--size and --batch do not go with --to web"),
        (["--to", "onnx", "--download"], "go with --to web"),
        (["--to", "torch", "--int8", "photos"], "--int8 goes with --to onnx, --to openvino and --to web"),
    ],
)
def test_arguments_that_do_not_fit_are_explained(words, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["export", "run", "out", *words])
    assert ended.value.code == 2
    error = " ".join(capsys.readouterr().err.split())
    assert re.search(message, error), error


def test_nothing_is_downloaded_unless_asked(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("DETREX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # where nobody listens
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    words = ["export", "run", str(tmp_path / "out"), "--to", "web"]
    for words_of_runtime, message in (
        (["--onnxruntime-web", str(tmp_path / "gone")], "does not exist; get it by 'npm pack"),
        (["--download"], f"{web.RUNTIME_URL} could not be downloaded"),
    ):
        with pytest.raises(SystemExit):
            main([*words, *words_of_runtime])
        assert message in caplog.text
    assert not (tmp_path / "out").exists()


def test_a_page_is_a_folder_of_static_files(tmp_path):
    onnx = pytest.importorskip("onnx")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [value], [value]))
    description = description_of(small_model("maskdino"), ("instance",))
    set_metadata(model, description)
    page = tmp_path / "page"
    page.mkdir()
    onnx.save(model, page / "model.onnx")
    libraries = web.read_runtime(package(tmp_path / "package"))
    web.write_page(page / "model.onnx", libraries)
    assert {file.relative_to(page).as_posix() for file in page.rglob("*") if file.is_file()} == FILES
    described = json.loads((page / "model.json").read_text())
    assert described["class_names"] == ["cat", "dog", "sky"] and described["tasks"] == ["instance"]
    assert described["thresholds"] == description.thresholds
    assert (page / "onnxruntime-web/package.json").read_bytes() == libraries["package.json"]
    # Nothing of the page is fetched from elsewhere, and browsers see to it.
    text = (page / "index.html").read_text()
    assert "default-src 'self'" in text and "connect-src 'self'" in text
    for name in ("index.html", "style.css", "app.js", "common.js", "results.js", "worker.js"):
        assert "https://" not in (page / name).read_text()
    web.check_folder(page)  # so it can be written anew


def test_a_page_keeps_weights_in_16_bits_if_asked(tmp_path):
    onnx = pytest.importorskip("onnx")
    for name in ("onnxruntime", "onnxscript"):
        pytest.importorskip(name)
    predictor = small_model("detr", CATEGORIES, "model.decoder.layers.num_layers=1")
    runtime = package(tmp_path / "package")
    path = web.export_web(predictor, tmp_path / "page", runtime, sides=(64, 64), half=True)
    assert json.loads((tmp_path / "page" / "model.json").read_text())["precision"] == "fp16"
    weights = onnx.load(path).graph.initializer
    large = {tensor.data_type for tensor in weights if np.prod(tensor.dims) >= FEW_WEIGHTS}
    assert onnx.TensorProto.FLOAT16 in large and onnx.TensorProto.FLOAT not in large
    round_to_half(predictor.model)
    exported = load_exported(path, threads=1)
    found = verify(predictor, exported, pictures(1, [(64, 64)]), score_threshold=0.0)
    assert found.same and found.objects > 0, found.describe()


@pytest.mark.parametrize("page", ["docs/deploy.md", "CONTRIBUTING.md", "Makefile"])
def test_pages_name_the_version_that_is_tested(page):
    text = (Path(web.__file__).parents[2] / page).read_text()
    assert set(re.findall(r"onnxruntime-web[@-](\d+\.\d+\.\d+)", text)) == {web.RUNTIME_VERSION}


RUNTIME = os.environ.get("DETREX_ONNXRUNTIME_WEB")
"""The true package, as ``npm pack`` makes it or unpacked."""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.skipif(RUNTIME is None, reason="needs onnxruntime-web, named by DETREX_ONNXRUNTIME_WEB")
def test_a_browser_finds_what_python_finds(tmp_path):
    for name in ("onnx", "onnxruntime", "onnxscript", "websocket"):
        pytest.importorskip(name)
    run, page = write_run(tmp_path / "run").folder, tmp_path / "page"
    shapes = write_shapes_dataset(tmp_path / "shapes", {"val": 1}, image_size=96)
    (picture,) = (shapes / "val").iterdir()
    main(
        [
            "export",
            str(run),
            "--to",
            "web",
            str(page),
            "--onnxruntime-web",
            str(RUNTIME),
            "--verify",
            str(picture),
        ]
    )
    assert {file.relative_to(page).as_posix() for file in page.rglob("*") if file.is_file()} == FILES
    Image.open(picture).resize((2000, 1500)).save(page / "large.png")
    (page / "shapes.png").write_bytes(picture.read_bytes())
    with served(page) as address, opened(address, tmp_path / "browser") as tab:
        tab.evaluate(f"{PAGE}.ready)")
        first = tab.evaluate(f"{PAGE}.predict('shapes.png', 'shapes.png'))")
        tab.evaluate(MOVE_SLIDER)
        found = tab.evaluate(f"{PAGE}.predict('shapes.png', 'shapes.png'))")
        large = tab.evaluate(f"{PAGE}.predict('large.png', 'large.png'))")
        error = tab.evaluate(f"{PAGE}.predict('model.json', 'a.png')).catch((error) => error.message)")
        without = tab.evaluate(f"document.getElementById('none').click(), {PAGE}.coco())")
        assert not tab.complaints and all(url.startswith(address) for url in tab.requested)
    exported = load_exported(page / "model.onnx", threads=1)
    _assert_same(first, exported.predict(picture, score_threshold=0.5))
    _assert_same(found, exported.predict(picture, score_threshold=0.2))
    assert len(found["annotations"]) > len(first["annotations"]) and not without["annotations"]
    assert found["images"] == [{"id": 1, "file_name": "shapes.png", "width": 96, "height": 96}]
    assert found["categories"][1] == {"id": 7, "name": "dog"}
    # Larger pictures are looked at smaller, but saved as they came.
    mask = coco_masks.decode([large["annotations"][0]["segmentation"]])
    assert mask.shape == (1500, 2000, 1) and mask.sum() == large["annotations"][0]["area"]
    assert error == "a.png is no picture that this browser can read."


PAGE = "import('./app.js').then((page) => page"
MOVE_SLIDER = """(() => {
    const slider = document.getElementById("score_threshold");
    slider.value = 0.2;
    slider.dispatchEvent(new Event("input"));
})()"""


def _assert_same(found: dict, expected: Result) -> None:
    """The same objects: classes, boxes within 0.05 pixels, and masks but for single pixels."""
    entries, reference = found["annotations"], expected.to_coco()
    assert [e["category_id"] for e in entries] == [e["category_id"] for e in reference] and reference
    np.testing.assert_allclose([e["score"] for e in entries], [e["score"] for e in reference], atol=1e-4)
    np.testing.assert_allclose([e["bbox"] for e in entries], [e["bbox"] for e in reference], atol=0.05)
    for entry, other in zip(entries, reference, strict=True):
        overlap = coco_masks.iou([entry["segmentation"]], [other["segmentation"]], [0])
        assert overlap.item() > 0.99
