import io
import json
import random

import pytest

from detrex.data import DataError
from detrex.data.coco.json_stream import stream_members

CONTENT = {
    "info": {"year": 2017, "näme": 'a "quoted" \\ \u2028 ü 𝄞', "nothing": None},
    "images": [{"id": 1, "sizes": [480, 640.25, -3e-7]}, {"id": 2}, [], "text", 17, True],
    "empty": [],
    "numbers": [-12.5, 1.5e30, 2e-7, 0, -1],
    "number": -12.5,
    "annotations": [{"segmentation": [[random.Random(i).random() for i in range(40)]], "text": "]}"}] * 5,
    "last": 123456,
}


def read(text, encoding="utf-8", window=64):
    file = io.BytesIO(text.encode(encoding))
    file.name = "x.json"
    members = stream_members(file, window=window)
    return {k: list(v) if hasattr(v, "__next__") else v for k, v in members}


windows = pytest.mark.parametrize("window", [1, 7, 64, 1 << 22])


@windows
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_it_reads_what_the_standard_library_reads(indent, ascii_only, window):
    text = json.dumps(CONTENT, indent=indent, ensure_ascii=ascii_only)
    assert list(read(text, window=window).items()) == list(CONTENT.items())
    assert read(f" \n{text}\t\r\n ", window=window) == CONTENT
    assert read("{}", window=window) == read(" { } ", window=window) == {}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32-le"])
def test_encodings(encoding):
    assert read(json.dumps(CONTENT, ensure_ascii=False), encoding) == CONTENT


@windows
def test_a_file_cut_short_anywhere_is_an_error(window):
    text = json.dumps({"a": [1, {"b": "c"}], "d": None, "e": [[], 2.5]})
    for end in range(1, len(text)):
        with pytest.raises(
            DataError, match=r"x.json is not JSON: .* at character \d+. Was it copied completely"
        ):
            read(text[:end], window=window)


@windows
@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1,}',
        '{"a": [1,]}',
        '{"a" 1}',
        '{"a": [1 2]}',
        '{"a": nul}',
        "{1: 2}",
        '{"a": 1} x',
        '{"a": 1}}',
    ],
)
def test_what_is_not_json(text, window):
    with pytest.raises(ValueError):
        json.loads(text)
    with pytest.raises(DataError, match="x.json is not JSON"):
        read(text, window=window)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation><size/></annotation>", "at character 0. It is XML"),
        ("0 0.5 0.5 0.2 0.2", "Extra data"),
        ("file,x,y", "Expecting value"),
        ('{"a": [' + "[" * 100_000, "recursion"),
        ('{"a": ' + "9" * 5000 + "}", "digits"),
    ],
)
def test_other_formats_and_hostile_texts(text, message):
    with pytest.raises(DataError, match=f"x.json is not JSON: .*{message}"):
        read(text)


def test_the_place_of_an_error_is_counted_from_the_beginning():
    text = '{"a": [1, 2, 3, 4, 5, 6, 7, oops]}'
    with pytest.raises(DataError, match=f"at character {text.index('oops')}\\."):
        read(text, window=8)


def test_bytes_that_are_no_text():
    file = io.BytesIO(b'{"a": "\xff\xfe"}')
    file.name = "x.json"
    with pytest.raises(DataError, match="x.json is not JSON: .*can't decode"):
        list(stream_members(file))


@pytest.mark.parametrize("text", ["[1, 2]", "17", '"a"', ""])
def test_other_than_an_object_has_no_members(text):
    assert read(text) == {}


def test_lists_that_are_not_used_are_skipped():
    file = io.BytesIO(json.dumps(CONTENT).encode())
    assert [name for name, _ in stream_members(file)] == list(CONTENT)


def test_every_byte_is_reported_once():
    data, seen = json.dumps(CONTENT).encode(), []
    list(stream_members(io.BytesIO(data), seen.append, window=16))
    assert b"".join(seen) == data


def test_only_a_part_of_the_file_is_in_memory():
    file = io.BytesIO(json.dumps({"a": [{"k": "x" * 50}] * 1000}).encode())
    _, items = next(stream_members(file, window=1000))
    next(items)
    assert file.tell() == 1000
