import hashlib
import logging
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from detrex.checkpoint import CheckpointError, download
from detrex.checkpoint.download import fetch, is_url
from detrex.runtime.cache import cache_folder

BODY = bytes(range(256)) * 8192  # 2 MiB: several chunks
SHA = hashlib.sha256(BODY).hexdigest()
OTHER = hashlib.sha256(b"other").hexdigest()


class Server(ThreadingHTTPServer):
    """Serves what ``files`` holds and counts the requests by path."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {"/a.pth": BODY}
        self.moved = {"/moved.pth": "/a.pth"}
        self.requests, self.headers = [], []
        self.stop = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        self.server.headers.append(dict(self.headers))
        path = self.path.partition("?")[0]
        if path == "/silent.pth":
            self.server.stop.wait(20)
            return
        if path in self.server.moved:
            self.send_response(302)
            self.send_header("Location", self.server.moved[path])
            self.end_headers()
            return
        if path not in self.server.files:
            self.send_error(404)
            return
        self.reply(path)

    def reply(self, path: str):
        body = self.server.files[path]
        chunked = "chunked" in path
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8" if ".html" in path else "binary/data")
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif "unsized" not in path:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        sent = body[: len(body) // 2] if "cut" in path else body
        if chunked:
            self.wfile.write(f"{len(body):x}\r\n".encode())
        self.wfile.write(sent)
        if chunked and len(sent) == len(body):
            self.wfile.write(b"\r\n0\r\n\r\n")

    def log_message(self, *arguments):
        pass

    def setup(self):
        self.protocol_version = "HTTP/1.1"
        self.close_connection = True
        super().setup()

    def end_headers(self):
        self.send_header("Connection", "close")
        super().end_headers()


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.stop.set()
    server.shutdown()
    server.server_close()
    thread.join(10)
    assert not thread.is_alive()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DETREX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "cache"


def kept(cache):
    """Names of the files in the cache, locks aside."""
    return sorted(p.name for p in cache.rglob("*") if p.is_file() and p.name != ".lock")


def test_a_file_is_downloaded_once(server, caplog):
    caplog.set_level(logging.INFO, "detrex")
    path = fetch(server.url("/a.pth"))
    assert path.read_bytes() == BODY
    assert path.name == "a.pth"
    assert cache_folder("downloads") in path.parents
    (message,) = caplog.messages
    assert all(text in message for text in (server.url("/a.pth"), "2.0 MiB", str(path)))
    assert fetch(server.url("/a.pth")) == path
    assert server.requests == ["/a.pth"]


def test_nothing_is_shown_or_written_outside_the_folder_of_the_url(server, cache, capfd):
    path = fetch(server.url("/a.pth"))
    assert {p.parent for p in cache.rglob("*") if p.is_file()} == {path.parent}
    assert capfd.readouterr() == ("", "")  # no terminal, no progress bar


def test_files_of_one_name_do_not_collide(server):
    server.files |= {"/b/a.pth": b"second", "/a.pth?v=2": b""}
    first, second = fetch(server.url("/a.pth")), fetch(server.url("/b/a.pth"))
    third = fetch(server.url("/a.pth?v=2"))
    assert len({first, second, third}) == 3
    assert {p.name for p in (first, second, third)} == {"a.pth"}
    assert (first.read_bytes(), second.read_bytes()) == (BODY, b"second")


@pytest.mark.parametrize("path", ["/../../x y.pth", "/%2e%2e%2f%2e%2e%2fx y.pth", "/ü/x y.pth", "/.x y.pth"])
def test_odd_names_stay_in_the_cache(server, cache, path):
    server.files = {p: b"1" for p in ("/../../x%20y.pth", "/%2e%2e%2f%2e%2e%2fx%20y.pth", "/.x%20y.pth")}
    server.files["/%C3%BC/x%20y.pth"] = b"1"
    local = fetch(server.url(path))
    assert local.name.endswith("x_y.pth")
    assert not local.name.startswith(".")
    assert cache in local.resolve().parents


@pytest.mark.parametrize("path", ["/a.pth", "/chunked.pth", "/unsized.pth", "/moved.pth"])
def test_all_kinds_of_answers(server, path):
    server.files |= {"/chunked.pth": BODY, "/unsized.pth": BODY}
    assert fetch(server.url(path), SHA).read_bytes() == BODY


def test_a_body_whose_end_cannot_be_told_needs_a_checksum(server, cache):
    server.files["/unsized.pth"] = BODY
    with pytest.raises(CheckpointError, match="how long the file is.*#sha256="):
        fetch(server.url("/unsized.pth"))
    assert kept(cache) == []


@pytest.mark.parametrize("path", ["/cut.pth", "/cut-chunked.pth"])
def test_an_interrupted_download_leaves_nothing(server, cache, path):
    server.files[path] = BODY
    with pytest.raises(CheckpointError, match="the connection ended .*local path"):
        fetch(server.url(path))
    assert kept(cache) == []
    server.files = {path: b""}  # the whole of nothing
    assert fetch(server.url(path)).read_bytes() == b""


def test_an_interrupted_download_leaves_the_previous_file(server, cache):
    server.files["/cut.pth"] = b""
    path = fetch(server.url("/cut.pth"))
    server.files["/cut.pth"] = BODY
    with pytest.raises(CheckpointError):
        fetch(server.url("/cut.pth"), SHA)
    assert path.read_bytes() == b""
    assert kept(cache) == ["cut.pth"]


def test_processes_at_the_same_time_download_once(server):
    paths = []
    threads = [
        threading.Thread(target=lambda: paths.append(fetch(server.url("/a.pth"), SHA))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(paths) == 4
    assert len(set(paths)) == 1
    assert server.requests == ["/a.pth"]


@pytest.mark.parametrize("where", ["argument", "fragment", "both", "upper case"])
def test_a_right_checksum_passes(server, where):
    url = server.url("/a.pth")
    if where == "argument":
        path = fetch(url, SHA)
    elif where == "upper case":
        path = fetch(url, SHA.upper())
    else:
        path = fetch(f"{url}#sha256={SHA}", SHA if where == "both" else None)
    assert path == fetch(url)
    assert len(server.requests) == 1


@pytest.mark.parametrize("fragment", [False, True])
def test_a_wrong_checksum_is_refused_and_nothing_kept(server, cache, fragment):
    url = server.url("/a.pth")
    with pytest.raises(CheckpointError, match=SHA) as error:
        fetch(f"{url}#sha256={OTHER}") if fragment else fetch(url, OTHER)
    assert OTHER in str(error.value)
    assert kept(cache) == []


def test_a_cached_file_of_another_checksum_is_not_used(server, caplog):
    url = server.url("/a.pth")
    server.files["/a.pth"] = b"old"
    path = fetch(url)
    with pytest.raises(CheckpointError):
        fetch(url, SHA)
    assert path.read_bytes() == b"old"
    server.files["/a.pth"] = BODY
    assert fetch(url, SHA).read_bytes() == BODY
    assert any("downloaded again" in m for m in caplog.messages)
    assert len(server.requests) == 3


def test_a_cached_file_that_was_changed_is_found_by_its_checksum(server):
    url = server.url("/a.pth")
    path = fetch(url, SHA)
    path.write_bytes(b"damaged")
    assert fetch(url, SHA).read_bytes() == BODY
    assert len(server.requests) == 2


def test_a_cached_file_is_checked_at_every_call(server):
    """Size and time of a file tell nothing: whoever changes it can set both."""
    path = fetch(server.url("/a.pth"), SHA)
    times = path.stat()
    path.write_bytes(BODY[:-1] + b"x")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert fetch(server.url("/a.pth"), SHA).read_bytes() == BODY
    assert len(server.requests) == 2


def test_a_cache_without_right_to_write_is_used(server):
    path = fetch(server.url("/a.pth"), SHA)
    (path.parent / ".lock").unlink(missing_ok=True)
    (path.parent / ".lock").mkdir()  # whatever would write here fails
    assert fetch(server.url("/a.pth"), SHA) == path


def test_no_such_file(server, cache):
    with pytest.raises(CheckpointError, match="404 Not Found.*by hand.*local path"):
        fetch(server.url("/b.pth"))
    assert kept(cache) == []


@pytest.mark.parametrize(
    ("path", "body"),
    [("/a.html.pth", b"\n hello"), ("/a.pth", b"\n<!DOCTYPE html><html>"), ("/a.pth", b"<HTML>")],
)
def test_a_web_page_is_refused(server, cache, path, body):
    server.files[path] = body
    with pytest.raises(CheckpointError, match="web page.*by hand"):
        fetch(server.url(path))
    assert kept(cache) == []


def test_no_server(cache):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(CheckpointError, match="refused.*by hand"):
        fetch(f"http://127.0.0.1:{port}/a.pth")
    assert kept(cache) == []


def test_a_silent_server(server, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    start = time.monotonic()
    with pytest.raises(CheckpointError, match=r"did not answer for 0\.2 seconds.*by hand"):
        fetch(server.url("/silent.pth"))
    assert time.monotonic() - start < 15


def test_a_cache_that_cannot_be_made(server, cache):
    cache.write_text("a file where the folder should be")
    with pytest.raises(CheckpointError, match="DETREX_CACHE"):
        fetch(server.url("/a.pth"))
    assert server.requests == []


@pytest.mark.parametrize(
    ("url", "sha256", "message"),
    [
        ("ftp://127.0.0.1/a.pth", None, "no https:// or http://"),
        ("file:///etc/passwd", None, "no https:// or http://"),
        ("http://127.0.0.1:1/a.pth", "5c106cde", "64 hexadecimal digits"),
        ("http://127.0.0.1:1/a.pth#sha256=", None, "64 hexadecimal digits"),
        (f"http://127.0.0.1:1/a.pth#sha256={SHA}", OTHER, "two checksums"),
        ("http://127.0.0.1:port/a.pth", None, "nonnumeric port"),
        ("https://[::1/a.pth", None, "no address"),
    ],
)
def test_malformed_requests(cache, url, sha256, message):
    with pytest.raises(CheckpointError, match=message):
        fetch(url, sha256)
    assert kept(cache) == []


def test_urls_are_told_from_paths(tmp_path):
    assert is_url("https://example.org/a.pth")
    assert is_url("HTTP://example.org/a.pth")
    assert not any(is_url(s) for s in ("a.pth", "/http/a", tmp_path, "httpsfile", "C:\\a.pth", "ftp://a"))


@pytest.mark.parametrize("path", ["/a.pth", "/chunked.pth", "/unsized.pth"])
def test_a_file_beyond_the_limit_is_refused(server, cache, monkeypatch, path):
    server.files |= {"/chunked.pth": BODY, "/unsized.pth": BODY}
    monkeypatch.setenv(download.LIMIT_VARIABLE, "0.0005")
    with pytest.raises(CheckpointError, match=r"larger than 0\.0005 GiB.*DETREX_DOWNLOAD_LIMIT_GB"):
        fetch(server.url(path), SHA)
    assert kept(cache) == []
    monkeypatch.setenv(download.LIMIT_VARIABLE, "1")
    assert fetch(server.url(path), SHA).read_bytes() == BODY


def test_a_limit_that_is_no_number(server, monkeypatch):
    monkeypatch.setenv(download.LIMIT_VARIABLE, "much")
    with pytest.raises(CheckpointError, match="DETREX_DOWNLOAD_LIMIT_GB=much"):
        fetch(server.url("/a.pth"))


# 192.0.2.0/24 is kept free for documentation: nobody answers there.
@pytest.mark.parametrize("host", ["192.0.2.1", "weights.example", "127.0.0.1.example", "localhost.example"])
def test_other_machines_need_encryption_or_a_checksum(cache, monkeypatch, host):
    url = f"http://{host}/a.pth"
    with pytest.raises(CheckpointError, match="not encrypted.*https.*#sha256="):
        fetch(url)
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    with pytest.raises(CheckpointError, match="could not be downloaded"):
        fetch(url, SHA)  # is tried
    assert kept(cache) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_needs_neither(server, host):
    assert fetch(f"http://{host}:{server.server_port}/a.pth").read_bytes() == BODY


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("https://127.0.0.1:{port}/a.pth", "from http:// to https://"),
        ("ftp://127.0.0.1/a.pth", "from http:// to ftp://"),
        ("file:///etc/passwd", "not allowed"),
        ("data:,hello", "not allowed"),
        ("http://192.0.2.1/a.pth", "not encrypted"),
        ("http://me:secret@127.0.0.1:{port}/a.pth", "password"),
        ("/moved.pth", "loop|infinite"),
    ],
)
def test_redirects_that_are_not_followed(server, cache, target, message):
    server.moved["/moved.pth"] = target.format(port=server.server_port)
    with pytest.raises(CheckpointError, match=message):
        fetch(server.url("/moved.pth"))
    assert kept(cache) == []
    assert set(server.requests) == {"/moved.pth"}


def test_from_encrypted_to_not_encrypted(server, tmp_path, monkeypatch):
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    names = {"-keyout": tmp_path / "key.pem", "-out": tmp_path / "cert.pem"}
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = [str(word) for pair in names.items() for word in pair]
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject, *files]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(names["-out"], names["-keyout"])
    server.socket = context.wrap_socket(server.socket, server_side=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(names["-out"]))
    url = f"https://127.0.0.1:{server.server_port}"
    assert fetch(f"{url}/a.pth").read_bytes() == BODY
    server.moved["/moved.pth"] = "http://127.0.0.1:1/a.pth"
    with pytest.raises(CheckpointError, match="from https:// to http://"):
        fetch(f"{url}/moved.pth", SHA)


def test_no_secrets_are_sent(server, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    netrc.chmod(0o600)
    fetch(server.url("/moved.pth"), SHA)
    names = {name.lower() for headers in server.headers for name in headers}
    assert names == {"host", "user-agent", "accept-encoding", "connection"}
    with pytest.raises(CheckpointError, match="password.*local path") as error:
        fetch(f"http://me:secret@127.0.0.1:{server.server_port}/a.pth")
    assert "secret" not in str(error.value)
    assert len(server.requests) == 2
