"""Whether freed memory is kept, as the system sees it: new pages are page faults."""

import os
import platform
import subprocess
import sys

import pytest

from detrex.engine import settings
from detrex.predict import loading
from tests.engine.runs import load

COUNT = """
import resource, sys, torch
from detrex.runtime.allocation import keep_freed_memory

if "keep" in sys.argv:
    print(keep_freed_memory())
else:
    print(False)
for round in range(20):  # after some, all gaps fit
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    a, b = torch.ones(2**24), torch.ones(2**25)  # 64 and 128 MB
    del a, b
    after = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print((after - before) * resource.getpagesize() / 2**20)
"""
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has this setting")


def new_megabytes(*arguments, **environment):
    kept, pages = run(COUNT, *arguments, **environment)
    return kept == "True", float(pages)


def run(code, *arguments, **environment):
    """The words that ``code`` prints in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC")} | environment
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


@glibc
def test_memory_of_large_tensors_is_used_again():
    kept, pages = new_megabytes("keep")
    assert kept and pages < 20
    kept, pages = new_megabytes()
    assert not kept and pages > 100


@glibc
def test_settings_in_the_environment_have_precedence():
    kept, pages = new_megabytes("keep", MALLOC_TRIM_THRESHOLD_="131072")
    assert not kept and pages > 100


RELEASE = """
import os, torch
from detrex.runtime.allocation import keep_freed_memory, release_freed_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20

keep_freed_memory()
start = resident()
tensors = [torch.ones(2**22) for _ in range(20)]  # 16 MB each
kept = tensors[10]
del tensors
before = resident()
release_freed_memory()
print(before - start, resident() - start, float(kept.sum()) == 2**22)
"""


@glibc
def test_free_memory_is_released_on_demand():
    kept, left, intact = run(RELEASE)
    assert float(kept) > 300 and float(left) < 60 and intact == "True"


def test_other_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not settings.keep_freed_memory()


@pytest.mark.parametrize("keep", [True, False])
def test_the_config_decides(tmp_path, monkeypatch, keep):
    calls = []
    monkeypatch.setattr(settings, "keep_freed_memory", lambda: calls.append(1))
    settings.prepare_device(load(tmp_path, f"train.keep_memory={keep}").train)
    assert bool(calls) == keep


@pytest.mark.parametrize("keep", [True, False])
def test_prediction_takes_an_argument(tmp_path, monkeypatch, keep):
    calls = []
    monkeypatch.setattr(loading, "keep_freed_memory", lambda: calls.append(1))
    with pytest.raises(FileNotFoundError):
        loading.load(tmp_path / "no" / "file.safetensors", device="cpu", keep_memory=keep)
    assert bool(calls) == keep
