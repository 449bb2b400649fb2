"""Models on the Hugging Face hub, against a small hub on this machine."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import yaml

from detrex.checkpoint import CheckpointError
from detrex.engine.thresholds import keep_thresholds
from detrex.evaluation.report import write_results
from detrex.evaluation.thresholds import BestThreshold
from detrex.hub import download, model_card, push_to_hub
from detrex.predict import load
from tests.predict.tiny_run import noise, write_run

COMMIT = "0123456789" * 4


class SmallHub(BaseHTTPRequestHandler):
    """What the client of the hub asks for when a folder is uploaded and a file downloaded."""

    files: dict[str, bytes] = {}
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _answer(self, content, status=200, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        name = self.path.partition("/resolve/main/")[2].partition("?")[0]
        if self.path.startswith("/me/tiny/resolve/") and name in self.files:
            headers = {"ETag": '"abc"', "X_Repo_Commit": COMMIT, "Accept_Ranges": "bytes"}
            self._answer(self.files[name], **headers)
        elif self.path.startswith("/api/models/me/tiny"):
            self._answer({"id": "me/tiny", "sha": COMMIT, "siblings": []})
        else:
            self._answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        home = f"http://{self.headers['Host']}"
        if self.path == "/api/repos/create":
            self._answer({"url": f"{home}/me/tiny"})
        elif self.path == "/api/validate-yaml":
            assert json.loads(body)["content"].startswith("---\n")
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            entries = [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]
            self._answer({"files": entries})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    type(self).files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._answer({"commitUrl": f"{home}/me/tiny/commit/{COMMIT}", "commitOid": COMMIT})
        else:
            self._answer({}, 404)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The address of a hub that has nothing yet; its client keeps downloads in a folder of the test."""
    SmallHub.files = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), SmallHub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def weights(tmp_path) -> Path:
    """Of a run with metrics and a score threshold."""
    (path,) = write_run(tmp_path / "run").folder.glob("*.safetensors")
    best = {3: BestThreshold(0.25, 0.8)}
    keep_thresholds(path, best)
    write_results(path.parent / "results.json", {"segm/AP": 41.234}, {}, best)
    return path


def test_a_model_travels_over_the_hub(hub, weights):
    push_to_hub(weights.parent, "hf://me/tiny", endpoint=hub, token="secret", license="apache-2.0")
    assert set(SmallHub.files) == {"model.safetensors", "README.md", "results.json"}
    path = download("hf://me/tiny", endpoint=hub)
    local, downloaded = load(weights.parent, device="cpu"), load(path, device="cpu")
    assert downloaded.score_thresholds == local.score_thresholds and downloaded.names == local.names
    picture = noise(48, 64)
    assert torch.equal(local(picture).scores, downloaded(picture).scores)


def test_load_takes_a_name_on_the_hub(hub, weights):
    SmallHub.files = {"model.safetensors": weights.read_bytes()}
    assert hub and load("hf://me/tiny", device="cpu").names == ("cat", "dog", "sky")


def test_what_is_not_there_is_said(hub):
    with pytest.raises(CheckpointError, match=r"hf://me/nothing cannot be loaded from the hub"):
        download("hf://me/nothing", endpoint=hub)
    with pytest.raises(CheckpointError, match="hf://no such name"):
        download("hf://no such name", endpoint=hub)


def test_the_card(weights):
    card = model_card(weights, "me/tiny", "mit")
    _, front, text = card.split("---\n", 2)
    content = yaml.safe_load(front)
    assert content["library_name"] == "detrex-maskdino" and content["license"] == "mit"
    (metric,) = content["model-index"][0]["results"][0]["metrics"]
    assert metric == {"type": "segm/AP", "value": 41.23}
    for words in ('detrex.load("hf://me/tiny")', "| cat | 0.25 | 0.80 |", "| segm/AP | 41.23 |"):
        assert words in text


def test_weights_without_config_get_no_card(tmp_path):
    with pytest.raises(FileNotFoundError):
        model_card(tmp_path / "model_final.safetensors", "me/x")
