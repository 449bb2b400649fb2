"""A server of a tiny model: its answers are the model's, and hostile requests are refused."""

import base64
import copy
import io
import json
import logging
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from detrex.predict import load
from detrex.structures.panoptic import ids_from_rgb
from tests.predict.tiny_run import noise, write_run

pytest.importorskip("fastapi_offline")
import httpx  # noqa: E402
import uvicorn  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

from detrex.serve.app import create_app  # noqa: E402
from detrex.serve.settings import ServerSettings  # noqa: E402

SETTINGS = ServerSettings(
    max_batch=4, queue_size=8, max_body=200_000, max_images=3, max_pixels=20_000, timeout=30
)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    return load(write_run(tmp_path_factory.mktemp("run")).folder, device="cpu")


@pytest.fixture(scope="module")
def client(predictor):
    with TestClient(create_app(predictor, SETTINGS, "tiny")) as client:
        yield client


def picture(height=40, width=60, seed=0, kind="png", **options):
    buffer = io.BytesIO()
    Image.fromarray(noise(height, width, seed)).save(buffer, kind, **options)
    return buffer.getvalue()


def ask(client, *files, **fields):
    return client.post(
        "/predict", files=[("images", (f"{i}.png", f)) for i, f in enumerate(files)], data=fields
    )


def test_answers_are_those_of_the_model(client, predictor):
    answer = ask(client, picture(), picture(50, 30, 1), tasks="instance", score_threshold="0.2").json()
    assert [(i["file_name"], i["height"], i["width"]) for i in answer["images"]] == [
        ("0.png", 40, 60),
        ("1.png", 50, 30),
    ]
    expected = []
    for i, image in enumerate((noise(40, 60), noise(50, 30, 1)), start=1):
        result = predictor.predict(image, tasks=["instance"], score_threshold=0.2)
        expected += json.loads(json.dumps(result.to_coco(i)))
    found = answer["annotations"]
    assert len(found) == len(expected) > 5
    for one, other in zip(found, expected, strict=True):
        assert (one["image_id"], one["category_id"]) == (other["image_id"], other["category_id"])
        assert one["score"] == pytest.approx(other["score"], abs=5e-4)
        assert one["bbox"] == pytest.approx(other["bbox"], abs=1e-2)
    assert [c["name"] for c in answer["categories"]] == ["cat", "dog", "sky"]
    assert len({one["id"] for one in found}) == len(found)


def test_json_and_forms_are_the_same(client):
    texts = [base64.b64encode(picture()).decode()]
    options = {"tasks": ["panoptic", "semantic"], "score_threshold": 0.1}
    sent = client.post("/predict", json={"images": texts, **options}).json()
    form = ask(client, picture(), tasks="panoptic,semantic", score_threshold="0.1").json()
    assert sent["panoptic"] == form["panoptic"] and sent["semantic"] == form["semantic"]
    png = base64.b64decode(sent["panoptic"][0]["png"])
    ids = ids_from_rgb(np.asarray(Image.open(io.BytesIO(png))))
    areas = {s["id"]: s["area"] for s in sent["panoptic"][0]["segments_info"]}
    assert areas and all(int((ids == number).sum()) == area for number, area in areas.items())
    assert sum(coco_mask.area(one["segmentation"]) for one in sent["semantic"]) == 40 * 60


@pytest.mark.parametrize("task", ["instance", "panoptic", "semantic"])
def test_a_drawn_picture(client, task):
    answer = ask(client, picture(), tasks=task, format="png")
    assert answer.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(answer.content)).size == (60, 40)


def test_the_default_is_what_tells_most(client):
    answer = ask(client, picture()).json()
    assert "panoptic" in answer and "annotations" not in answer


BAD_FIELDS = [
    ({"tasks": "boxes"}, 422),
    ({"tasks": ""}, 422),
    ({"score_threshold": "2"}, 422),
    ({"score_threshold": "nan"}, 422),
    ({"max_detections": "0"}, 422),
    ({"max_detections": "1e9"}, 422),
    ({"format": "exe"}, 422),
    ({"precision": "0.9"}, 422),
    ({"precision": "0.9", "score_threshold": "0.5"}, 422),
    ({"unknown": "1"}, 422),
    ({"tasks": "x" * 5000}, 400),
]


@pytest.mark.parametrize(("fields", "status"), BAD_FIELDS)
def test_wrong_options_are_refused(client, fields, status):
    answer = ask(client, picture(), **fields)
    assert answer.status_code == status and answer.json()["detail"]


def bomb():
    """A PNG that claims 50,000 x 50,000 pixels."""
    content = bytearray(picture(10, 10))
    content[16:24] = (50_000).to_bytes(4, "big") * 2
    return bytes(content)


def deep():
    buffer = io.BytesIO()
    Image.new("F", (8, 8)).save(buffer, "tiff")
    return buffer.getvalue()


HOSTILE = [
    (b"", 400),
    (b"no picture", 400),
    (picture()[:60], 400),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 400),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 400),
    (bomb(), (400, 413)),
    (picture(200, 200, kind="jpeg"), 413),
    (deep(), 400),
]


@pytest.mark.parametrize(("content", "status"), HOSTILE)
def test_hostile_pictures_are_refused(client, content, status):
    answer = ask(client, content)
    assert answer.status_code in (status if isinstance(status, tuple) else (status,)), answer.text
    assert "Traceback" not in answer.text and answer.json()["detail"]


def test_hostile_bodies_are_refused(client):
    assert ask(client, *[picture()] * 4).status_code == 413  # of three
    assert ask(client, *[picture()] * 9).status_code in (400, 413)
    assert ask(client, picture(), b"x" * 300_000).status_code == 413
    assert client.post("/predict", content=b"x" * 300_000).status_code == 413
    assert client.post("/predict", content=(b"x" * 50_000 for _ in range(6))).status_code in (413, 415)
    kind = {"content-type": "application/json"}
    assert client.post("/predict", content=(b"[" * 50_000 for _ in range(6)), headers=kind).status_code == 413
    for body, status in [
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 422),
        (b"{}", 422),
        (b'{"images": []}', 422),
        (b'{"images": ["#"]}', 400),
        (b'{"images": [1]}', 422),
        (b'{"images": ["AAAA"], "model": "/etc/passwd"}', 422),
    ]:
        assert client.post("/predict", content=body, headers=kind).status_code == status, body[:40]
    form = {"content-type": "multipart/form-data"}
    assert client.post("/predict", content=b"--x--", headers=form).status_code == 400
    form = {"content-type": "multipart/form-data; boundary=x"}
    assert client.post("/predict", content=b"--x\r\nrubbish", headers=form).status_code in (400, 422)
    assert client.post("/predict", content=b"text").status_code == 415
    assert client.post("/predict", files={"other": picture()}).status_code == 422
    assert client.get("/predict").status_code == 405
    assert ask(client, picture(), picture(), format="png").status_code == 422
    assert ask(client, picture()).status_code == 200  # all is well afterwards


def test_requests_share_batches(client):
    with ThreadPoolExecutor(8) as threads:
        answers = list(
            threads.map(lambda i: ask(client, picture(seed=i % 3), tasks="instance").json(), range(16))
        )
    for i, answer in enumerate(answers):
        expected = answers[i % 3]["annotations"]
        assert [a["category_id"] for a in answer["annotations"]] == [a["category_id"] for a in expected]
    text = client.get("/metrics").text
    count, total = (
        float(
            next(line for line in text.splitlines() if line.startswith(f"detrex_batch_size_{name} ")).split()[
                1
            ]
        )
        for name in ("count", "sum")
    )
    assert total >= 16 and count < total


class Slow:
    """A predictor that waits until it may go on."""

    def __init__(self, predictor):
        self._predictor, self.gate = predictor, threading.Event()

    def __getattr__(self, name):
        return getattr(self._predictor, name)

    def predict_iter(self, *args, **options):
        self.gate.wait(20)
        return self._predictor.predict_iter(*args, **options)


def test_too_many_requests_are_refused_and_those_that_wait_are_answered(predictor):
    slow = Slow(predictor)
    settings = ServerSettings(max_batch=1, queue_size=3, timeout=30)
    with TestClient(create_app(slow, settings)) as client, ThreadPoolExecutor(8) as threads:
        waiting = [threads.submit(ask, client, picture()) for _ in range(3)]
        deadline = time.monotonic() + 20
        while client.get("/health").json()["waiting"] < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        refused = ask(client, picture())
        assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
        slow.gate.set()
        assert [one.result().status_code for one in waiting] == [200] * 3
        text = client.get("/metrics").text
    assert 'detrex_requests_total{status="429"} 1.0' in text
    assert 'detrex_requests_total{status="200"} 3.0' in text


def test_a_server_that_is_stopped_answers_what_it_has_taken(predictor):
    slow = Slow(predictor)
    app = create_app(slow, ServerSettings(max_batch=2, timeout=30))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", timeout_graceful_shutdown=30))
    running = threading.Thread(target=server.run, daemon=True)
    running.start()
    deadline = time.monotonic() + 30
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http,
        ThreadPoolExecutor(8) as threads,
    ):
        taken = [threads.submit(ask, http, picture(seed=seed)) for seed in range(6)]
        while http.get("/health").json()["waiting"] < len(taken) and time.monotonic() < deadline:
            time.sleep(0.02)
        server.handle_exit(signal.SIGTERM, None)
        while server.servers[0].is_serving() and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}/health")
        slow.gate.set()
        assert [one.result().status_code for one in taken] == [200] * len(taken)
    running.join(30)
    assert not running.is_alive()


def test_requests_get_the_thresholds_that_are_kept_with_the_weights(predictor):
    kept = copy.copy(predictor)
    everything = ask_once(kept, tasks="instance", score_threshold="0")
    scores = sorted(one["score"] for one in everything)
    high = scores[len(scores) * 3 // 4]
    kept.score_thresholds, kept.precision_thresholds = [high, high, high], [{0.9: 0.0}, {}, {}]
    best = ask_once(kept, tasks="instance")
    assert [one["score"] for one in best] == [one["score"] for one in everything if one["score"] >= high]
    cats = ask_once(kept, tasks="instance", precision="0.9")
    assert {one["category_id"] for one in cats} == {3}
    assert len(cats) == sum(one["category_id"] == 3 for one in everything)


def ask_once(predictor, **fields):
    with TestClient(create_app(predictor, SETTINGS)) as client:
        return ask(client, picture(), **fields).json()["annotations"]


def test_a_request_that_takes_too_long(predictor):
    slow = Slow(predictor)
    with TestClient(create_app(slow, ServerSettings(timeout=0.2))) as client:
        assert ask(client, picture()).status_code == 504
        slow.gate.set()
        assert client.get("/health").json()["waiting"] == 0


def test_a_picture_that_fails_does_not_spoil_the_others(predictor, caplog):
    class Choosy(Slow):
        def predict_iter(self, images, **options):
            if any(image.size == (33, 33) for image in images):
                raise RuntimeError("not this one")
            return self._predictor.predict_iter(images, **options)

    caplog.set_level(logging.CRITICAL, "detrex.serve")
    with (
        TestClient(create_app(Choosy(predictor), ServerSettings(batch_wait=0.2))) as client,
        ThreadPoolExecutor(4) as threads,
    ):
        files = [picture(), picture(33, 33), picture(seed=2)]
        answers = list(threads.map(lambda f: ask(client, f), files))
    assert [a.status_code for a in answers] == [200, 500, 200]
    assert "not this one" not in answers[1].text


def test_the_pages_need_no_network(client):
    page = client.get("/docs").text
    assert "http://" not in page and "https://" not in page
    script = client.get("/static-offline-docs/swagger-ui-bundle.js")
    assert script.status_code == 200 and len(script.content) > 100_000
    schema = client.get("/openapi.json").json()
    assert set(schema["paths"]) == {"/predict", "/health", "/metrics"}
    body = schema["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert set(body) == {"multipart/form-data", "application/json"}


def test_health(client):
    health = client.get("/health").json()
    assert (
        health["status"] == "ok" and health["model"] == "tiny" and health["classes"] == ["cat", "dog", "sky"]
    )


@pytest.mark.parametrize(
    "settings", [{"max_batch": 0}, {"batch_wait": -1}, {"timeout": 0}, {"max_pixels": 0}, {"batch_wait": 99}]
)
def test_wrong_settings_are_named(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        ServerSettings(**settings)
