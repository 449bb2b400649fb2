import base64
import copyreg
import importlib
import json
import os
import pickle
import pickletools
import struct
import sys
from collections import OrderedDict

import numpy as np
import pytest
import torch

from detrex.checkpoint import CheckpointError
from detrex.checkpoint.pickles import read_pickle

# Written by Python 2.7 in protocols 0, 1 and 2, with classes of the names and states of numpy's:
# {"blobs": OrderedDict([("conv1_w", float32 (2, 3)), (u"\xe9", float32 (1,))]), "cfg": "a: 'b'\n",
#  "note": "\xe9\\x41\"'", "long": 12L, "flag": True}
PYTHON2 = [
    "KGRwMQpTJ25vdGUnCnAyClMnXHhlOVxceDQxIlwnJwpwMwpzUydjZmcnCnA0ClMiYTogJ2InXG4iCnA1CnNTJ2ZsYWcnCnA2CkkwMQpzUydibG9i"
    "cycKcDcKY2NvbGxlY3Rpb25zCk9yZGVyZWREaWN0CnA4CigobHA5CihscDEwClMnY29udjFfdycKcDExCmFjbnVtcHkuY29yZS5tdWx0aWFycmF5"
    "Cl9yZWNvbnN0cnVjdApwMTIKKGNudW1weQpuZGFycmF5CnAxMwooSTAKdHAxNApTJ2InCnRScDE1CihJMQooSTIKSTMKdHAxNgpjbnVtcHkKZHR5"
    "cGUKcDE3CihTJ2Y0JwpwMTgKSTAKSTEKdHAxOQpScDIwCihJMwpTJzwnCk5OTkktMQpJLTEKSTAKdHAyMQpiSTAwClMnXHgwMFx4MDBceDAwXHgw"
    "MFx4MDBceDAwXHhjMFx4YmZceDAwXHgwMFx4MDBAXHgwMFx4MDBAQFx4Y2FceGYySXFceDAwXHgwMFx4YTBAJwpwMjIKdGJhYShscDIzClbpCmFn"
    "MTIKKGcxMwpnMTQKUydiJwp0UnAyNAooSTEKKEkxCnRwMjUKZzIwCkkwMApTJ1x4MDBceDAwXHg4MD4nCnAyNgp0YmFhdFJwMjcKc1MnbG9uZycK"
    "cDI4CkwxMkwKcy4=",
    "fXEBKFUEbm90ZXECVQfpXHg0MSIncQNVA2NmZ3EEVQdhOiAnYicKcQVVBGZsYWdxBkkwMQpVBWJsb2JzcQdjY29sbGVjdGlvbnMKT3JkZXJlZERp"
    "Y3QKcQgoXXEJKF1xCihVB2NvbnYxX3dxC2NudW1weS5jb3JlLm11bHRpYXJyYXkKX3JlY29uc3RydWN0CnEMKGNudW1weQpuZGFycmF5CnENKEsA"
    "dHEOVQFidFJxDyhLAShLAksDdHEQY251bXB5CmR0eXBlCnERKFUCZjRxEksASwF0cRNScRQoSwNVATxOTk5K/////0r/////SwB0cRViSTAwClUY"
    "AAAAAAAAwL8AAABAAABAQMrySXEAAKBAcRZ0YmVdcRcoWAIAAADDqWgMKGgNaA5VAWJ0UnEYKEsBKEsBdHEZaBRJMDAKVQQAAIA+cRp0YmVldFJx"
    "G1UEbG9uZ3EcTDEyTAp1Lg==",
    "gAJ9cQEoVQRub3RlcQJVB+lceDQxIidxA1UDY2ZncQRVB2E6ICdiJwpxBVUEZmxhZ3EGiFUFYmxvYnNxB2Njb2xsZWN0aW9ucwpPcmRlcmVkRGlj"
    "dApxCF1xCShdcQooVQdjb252MV93cQtjbnVtcHkuY29yZS5tdWx0aWFycmF5Cl9yZWNvbnN0cnVjdApxDGNudW1weQpuZGFycmF5CnENSwCFcQ5V"
    "AWKHUnEPKEsBSwJLA4ZxEGNudW1weQpkdHlwZQpxEVUCZjRxEksASwGHcRNScRQoSwNVATxOTk5K/////0r/////SwB0cRViiVUYAAAAAAAAwL8A"
    "AABAAABAQMrySXEAAKBAcRZ0YmVdcRcoWAIAAADDqWgMaA1oDlUBYodScRgoSwFLAYVxGWgUiVUEAACAPnEadGJlZYVScRtVBGxvbmdxHIoBDHUu",
]

ARRAYS = {
    "plain": np.arange(6, dtype="f4").reshape(2, 3),
    "big endian": np.arange(6, dtype=">f8").reshape(3, 2),
    "fortran": np.asfortranarray(np.arange(24, dtype="f4").reshape(2, 3, 4)),
    "big endian fortran": np.asfortranarray(np.arange(6, dtype=">i4").reshape(2, 3)),
    "permuted": np.arange(24, dtype="f4").reshape(2, 3, 4).transpose(1, 2, 0),
    "strided": np.arange(24, dtype="f4").reshape(4, 6)[::2, ::3],
    "empty": np.zeros((0, 3), "f4"),
    "one number": np.array(2.5),
    "half": np.array([1.5, -np.inf], "f2"),
    "integers": np.array([-(2**62), 2**62]),
    "bytes": np.arange(256).astype("u1"),
    "booleans": np.array([True, False]),
}


@pytest.fixture
def file(tmp_path):
    return tmp_path / "weights.pkl"


def read(file, data: bytes):
    file.write_bytes(data)
    return read_pickle(file)


def same(tensor: torch.Tensor, array: np.ndarray) -> bool:
    return (
        tensor.shape == array.shape
        and tensor.numpy().dtype == array.dtype.newbyteorder("=")
        and np.array_equal(tensor.numpy(), array)
    )


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_come_back(file, protocol):
    content = {"model": ARRAYS, "__author__": "Äé\n\\u", "matching_heuristics": True}
    state = read(file, pickle.dumps(content, protocol))
    assert state.keys() == content.keys()
    assert (state["__author__"], state["matching_heuristics"]) == ("Äé\n\\u", True)
    assert state["model"].keys() == ARRAYS.keys()
    assert [n for n, array in ARRAYS.items() if not same(state["model"][n], array)] == []
    state["model"]["plain"].add_(1)  # memory of its own


@pytest.mark.parametrize("protocol", range(6))
def test_numbers_text_and_nested_values_come_back(file, protocol):
    shared = [1.5, -3, 2**70, -(2**33), None, False, True]
    content = {
        "scalar": np.float32(0.5),
        "count": np.int64(-7),
        "both": [shared, (shared, ("a", b"b\xff")), {}],
        7: OrderedDict([("z", 1), ("a", {"b": ()})]),
        "long text": "é" * 300,
        "long bytes": bytes(range(256)) * 2,
        "many": list(range(3000)),
    }
    state = read(file, pickle.dumps(content, protocol))
    assert state == content
    assert list(state[7]) == ["z", "a"]
    assert isinstance(state["scalar"], float)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("optimised", [False, True])
def test_files_of_numpy_1_are_read(file, protocol, optimised):
    data = pickle.dumps({"model": {"a": ARRAYS["fortran"]}}, min(protocol, 3))
    old = data.replace(b"numpy._core", b"numpy.core")
    if optimised:
        old = pickletools.optimize(old)
    assert b"numpy.core" in old
    assert same(read(file, old)["model"]["a"], ARRAYS["fortran"])


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_files_of_python_2_are_read(file, protocol):
    state = read(file, base64.b64decode(PYTHON2[protocol]))
    blobs = state.pop("blobs")
    assert state == {"cfg": "a: 'b'\n", "note": "\xe9\\x41\"'", "long": 12, "flag": True}
    assert list(blobs) == ["conv1_w", "é"]
    assert torch.equal(blobs["conv1_w"], torch.tensor([[0, -1.5, 2], [3, 1e30, 5]]))
    assert torch.equal(blobs["é"], torch.tensor([0.25]))


@pytest.mark.parametrize("protocol", range(6))
def test_a_read_only_array_comes_back(file, protocol):
    array = np.arange(5.0)
    array.flags.writeable = False
    assert same(read(file, pickle.dumps({"a": array}, protocol))["a"], array)


# What must not be read. A file named "ran" shows that something was run.


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.fixture
def marker(tmp_path, monkeypatch):
    """A path at which every attack tries to leave a file, and a module that does so when imported."""
    path = tmp_path / "ran"
    (tmp_path / "module_of_attack.py").write_text(f"open({str(path)!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield path
    sys.modules.pop("module_of_attack", None)


def system(path):
    return Call(os.system, f"touch {path}")


def evaluate(path):
    return Call(eval, f"open({str(path)!r}, 'w').close()")


def getattr_chain(path):
    """The way to a function over attributes of what is harmless, one call at a time."""
    module = Call(getattr, json.JSONDecoder.__init__, "__globals__")
    builtins = Call(dict.get, module, "__builtins__")
    return Call(eval, f"open({str(path)!r}, 'w').close()", builtins)


def imported(path):
    return Call(importlib.import_module, "module_of_attack", str(path))


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


NEW_ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n"
# Name, pickle (PATH is the file to leave), and what the message says.
TRICKS = [
    ("inst", b"(S'touch PATH'\nios\nsystem\n.", "INST"),
    ("obj", b"(cos\nsystem\nS'touch PATH'\no.", "os.system"),
    ("newobj", b"cos\nsystem\n(S'touch PATH'\nt\x81.", "os.system"),
    ("newobj of a known name", b"ccollections\nOrderedDict\n)\x81.", "NEWOBJ"),
    ("newobj_ex", b"ccollections\nOrderedDict\n)}\x92.", "NEWOBJ_EX"),
    ("stack global", text("os") + text("system") + b"\x93(S'touch PATH'\ntR.", "os.system"),
    ("dotted name", text("numpy") + text("ndarray.__class__.__base__") + b"\x93)R.", "__class__"),
    ("dotted module", text("numpy.core") + text("multiarray.os.system") + b"\x93.", "os.system"),
    ("empty module", text("") + text("numpy.dtype") + b"\x93.", "numpy.dtype"),
    ("name that is no text", text("os") + b"(S'system'\nt\x93.", "requires str"),
    ("name that is a list", text("os") + b"]\x93.", "requires str"),
    ("import alone", b"cmodule_of_attack\nx\n.", "module_of_attack.x"),
    ("builtin of python 2", b"c__builtin__\neval\n(S'1'\ntR.", "__builtin__.eval"),
    ("bytes of a size", b"cbuiltins\nbytes\n(I1000000000000\ntR.", "damaged"),
    ("persistent id", b"Px\n.", "PERSID"),
    ("binary persistent id", b"S'x'\nQ.", "BINPERSID"),
    ("extension", b"\x82\xf0.", "EXT1"),
    ("large extension", b"\x84\xf0\x00\x00\x00.", "EXT4"),
    ("set", b"\x8f.", "EMPTY_SET"),
    ("buffer from outside", b"\x97.", "NEXT_BUFFER"),
    ("call of text", b"S'eval'\n(S'1'\ntR.", "no function"),
    ("call of an array", b"cnumpy\nndarray\n(I10\ntR.", "only be named"),
    ("call of what a call gave", b"ccollections\nOrderedDict\n)R)R.", "no function"),
    ("call with a list", b"ccollections\nOrderedDict\n]R.", "no function"),
    ("codec", b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.", "unusual"),
    ("codec with errors", b"c_codecs\nencode\n(S'x'\nS'latin1'\nS'ignore'\ntR.", "damaged"),
    ("array of a subclass", NEW_ARRAY + b"(cnumpy\ndtype\n(I0\ntS'b'\ntR.", "unusual"),
    ("array of a size", NEW_ARRAY + b"(cnumpy\nndarray\n(I9\ntS'b'\ntR.", "unusual"),
    ("object array", b"cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR.", "'O8'"),
    ("text array", b"cnumpy\ndtype\n(S'U3'\nI0\nI1\ntR.", "'U3'"),
    ("void array", b"cnumpy\ndtype\n(S'V16'\nI0\nI1\ntR.", "'V16'"),
    ("dtype of a dict", b"cnumpy\ndtype\n(}I0\nI1\ntR.", "a dict"),
    ("dtype with fields", b"cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'<'\nN(S'a'\nt}tb.", "fields"),
    ("dtype of an odd order", b"cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'!'\nNNNtb.", "fields"),
    ("dtype with an odd state", b"cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR}b.", "no new array"),
    ("state of a dict", b"}}b.", "no new array"),
    ("state of an ordered dict", b"ccollections\nOrderedDict\n)R}b.", "no new array"),
    ("state of a name", b"cnumpy\nndarray\n}S'x'\nI1\nsb.", "no new array"),
    ("dict with a nested key", b"}" + b")" + b"\x85" * 100_000 + b"Ns.", "tuple as key"),
    ("deep lists", b"]" * 100_000 + b"a" * 99_999 + b".", "nested deeper"),
    ("deep dict", b"}S'a'\n" * 100_000 + b"N" + b"s" * 100_000 + b".", "nested deeper"),
    ("list in itself", b"}S'a'\n]q\x00h\x00as.", "contains itself"),
    ("dict in itself", b"}q\x00S'a'\nh\x00s.", "contains itself"),
]


@pytest.mark.parametrize("attack", [system, evaluate, getattr_chain, imported])
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_that_calls_functions_is_refused(file, marker, attack, protocol):
    data = pickle.dumps({"model": {"a": ARRAYS["plain"], "b": attack(marker)}}, protocol)
    with pytest.raises(CheckpointError, match=rf"{file} asks for .*(system|eval|getattr|import_module)"):
        read(file, data)
    assert not marker.exists()
    pickle.loads(data)
    assert marker.exists()  # the attack is one


@pytest.mark.parametrize(("data", "named"), [c[1:] for c in TRICKS], ids=[c[0] for c in TRICKS])
def test_other_tricks_are_refused(file, marker, data, named):
    with pytest.raises(CheckpointError, match=named):
        read(file, data.replace(b"PATH", str(marker).encode()))
    assert not marker.exists()
    assert "module_of_attack" not in sys.modules


def test_a_registered_extension_is_refused(file, marker):
    """Python's own unpickler takes these from a cache, past any check of names."""
    code = 0xE7
    copyreg.add_extension("builtins", "eval", code)
    try:
        data = pickle.dumps(evaluate(marker), 2)
        assert b"eval" not in data[:20]
        pickle.loads(data)
        marker.unlink()
        with pytest.raises(CheckpointError, match="EXT1"):
            read(file, data)
    finally:
        copyreg.remove_extension("builtins", "eval", code)
    assert not marker.exists()


def array_with(shape: bytes, data: bytes, state: bytes = b"") -> bytes:
    """A dict with one array by numpy 1, protocol 0, of the given shape and data."""
    dtype = b"cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
    new = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    return b"}S'a'\n" + new + b"(I1\n" + shape + dtype + b"I00\n" + data + state + b"tbs."


def test_the_array_of_the_tests_below_is_fine_by_itself(file):
    assert read(file, array_with(b"(I1\nI2\nt", b"S'01234567'\n"))["a"].shape == (1, 2)


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        (b"(I3\nt", b"S'01234567'\n"),
        (b"(I1\nt", b"S'01234567'\n"),
        (b"(I-1\nI-2\nt", b"S'01234567'\n"),
        (b"(I-2\nt", b"S'01234567'\n"),
        (b"(I4611686018427387904\nI4\nt", b"S''\n"),  # 2**64 elements: none, where sizes overflow
        (b"(I4294967296\nI4294967296\nI0\nt", b"S''\n"),
        (b"(I99999999999999999999999999999999\nt", b"S'01234567'\n"),
        (b"(" + b"I1\n" * 40 + b"I2\nt", b"S'01234567'\n"),
        (b"(F2.0\nt", b"S'01234567'\n"),
        (b"(I01\nI2\nt", b"S'01234567'\n"),  # True
        (b"(S'2'\nt", b"S'01234567'\n"),
        (b"]I2\na", b"S'01234567'\n"),
        (b"N", b"S'01234567'\n"),
        (b"(I2\nt", b"(lI1\naI2\na"),
        (b"(I2\nt", b"N"),
        (b"(I2\nt", b"V\\u0394\\u03940123456\n"),
        (b"(I2\nt", b"S'01234567'\nI1\n"),
    ],
)
def test_arrays_of_absurd_sizes_are_refused(file, shape, data):
    with pytest.raises(CheckpointError):
        read(file, array_with(shape, data))


@pytest.mark.parametrize("buffer", [b"B\x08\x00\x00\x0001234567", b"N", b"]"])
@pytest.mark.parametrize("shape", [b"K\x02\x85", b"K\x03\x85", b"N"])
@pytest.mark.parametrize(
    "order", [b"U\x01C", b"U\x01A", b"N", b"U\x01K", b"U\x01KK\x00\x85", b"U\x01KK\x01\x85"]
)
def test_arrays_of_protocol_5_are_checked(file, buffer, shape, order):
    dtype = b"cnumpy\ndtype\n(U\x02f4K\x00K\x01tR"
    data = b"}U\x01acnumpy.core.numeric\n_frombuffer\n(" + buffer + dtype + shape + order + b"tRs."
    if buffer[:1] == b"B" and shape == b"K\x02\x85" and order in (b"U\x01C", b"U\x01KK\x00\x85"):
        assert read(file, data)["a"].shape == (2,)
        return
    with pytest.raises(CheckpointError):
        read(file, data)


def test_an_array_cannot_be_filled_twice(file):
    data = array_with(b"(I2\nt", b"S'01234567'\n")
    twice = data[: data.rindex(b"s.")] + data[data.index(b"(I1\n") :]
    with pytest.raises(CheckpointError, match="no new array"):
        read(file, twice)


@pytest.mark.parametrize(
    "data",
    [
        b"}S'a'\ncnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntRs.",
        b"}S'a'\ncnumpy\ndtype\n(S'f4'\nI0\nI1\ntRs.",
        b"}S'a'\ncnumpy\nndarray\ns.",
    ],
)
def test_parts_of_arrays_are_refused(file, data):
    with pytest.raises(CheckpointError, match="without its place"):
        read(file, data)


def test_repeated_references_do_not_multiply(file):
    """Twelve lists, each holding the next a hundred times: a hundred to the twelfth elements."""
    levels = b"".join(b"](" + b"h%c" % level * 100 + b"eq%c" % (level + 1) for level in range(12))
    state = read(file, b"]q\x00" + levels + b"}U\x01ah\x0cs.")
    assert len(state["a"]) == 100
    assert state["a"][0] is state["a"][99]


def test_one_array_asked_for_many_times_is_refused(file):
    size = 1_000_000
    arguments = b"(B" + struct.pack("<I", size) + bytes(size) + b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR"
    arguments += b"J" + struct.pack("<i", size) + b"\x85U\x01Ctq\x01"
    call = b"cnumpy.core.numeric\n_frombuffer\n"
    once = b"](" + call + arguments + b"R"
    again = call + b"h\x01R"
    assert len(read(file, b"}U\x01a" + once + b"es.")["a"]) == 1
    with pytest.raises(CheckpointError, match="repeats its data"):
        read(file, b"}U\x01a" + once + again * 1000 + b"es.")


@pytest.mark.parametrize("protocol", range(6))
def test_truncated_files(file, protocol):
    data = pickle.dumps({"model": {"a": ARRAYS["plain"], "b": ARRAYS["permuted"]}, "n": 1}, protocol)
    for length in range(len(data)):
        with pytest.raises(CheckpointError, match=f"{length} bytes"):
            read(file, data[:length])


def test_damaged_files_give_no_other_error(file):
    """Each byte of a file in turn is replaced; what is read then is a dict, or an error for users."""
    for protocol in (0, 5):
        data = pickle.dumps({"model": {"a": ARRAYS["plain"], "s": np.float32(1)}, "n": 1.5}, protocol)
        for position in range(len(data)):
            for value in b"\x00.Rb":
                damaged = data[:position] + bytes([value]) + data[position + 1 :]
                try:
                    assert isinstance(read(file, damaged), dict)
                except CheckpointError as error:
                    assert str(file) in str(error)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "0 bytes"),
        (b"PK\x03\x04", "PERSID"),
        (b"garbage", "."),
        (b"\x80\x09.", "protocol: 9"),
        (b"\xff.", "no instruction"),
        (b"].", "no dict but a list"),
        (b".", "stack"),
        (b"h\x07.", "at index 7"),
        (b"e.", "mark"),
        (b"}(S'a'\nu.", "shorter"),
        (b"I" + b"9" * 10_000 + b"\n.", "digits"),
        (b"\x8a\xff" + b"1" * 255 + b".", "no dict but a int"),
        (b"S'a\n.", "no end|quoted"),
        (b"T\xff\xff\xff\xff.", "negative"),
        (b"\x8e" + b"\xff" * 8 + b".", "exceeds"),
        (b"\x96" + b"\xff" * 7 + b"\x0f.", "bytes are due"),
        (b"\x95" + b"\xff" * 7 + b"\x0f.", "bytes are due"),
        (b"X\x01\x00\x00\x00\xff.", "utf-8"),
        (b"}I1\na.", "append"),
        (b"]S'a'\nI1\ns.", "no dict"),
        (b"ccollections\nOrderedDict\n(I1\ntR.", "not iterable"),
        (b"ccollections\nOrderedDict\n((I1\ntR.", "mark|no"),
        (b"ccollections\nOrderedDict\n((lI1\natR.", "unpack"),
    ],
)
def test_malformed_files(file, data, message):
    with pytest.raises(CheckpointError, match=message) as error:
        read(file, data)
    assert str(file) in str(error.value)


def test_a_state_dict_of_torch_is_named(file):
    torch.save({"a": torch.ones(2)}, file, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"torch\._utils.*another format|no dict"):
        read_pickle(file)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_pickle(tmp_path / "none.pkl")
