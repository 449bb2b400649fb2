"""One folder of caches for the whole package."""

import sys

import pytest

from detrex.runtime.cache import cache_folder


def test_the_folder_that_a_user_chooses(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DETREX_CACHE", "~/own")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder("downloads") == tmp_path / "own" / "downloads"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other folders")
def test_the_folder_of_the_system(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DETREX_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder("kernels") == tmp_path / "xdg" / "detrex" / "kernels"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder("kernels") == tmp_path / ".cache" / "detrex" / "kernels"
