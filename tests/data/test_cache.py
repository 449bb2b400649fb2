import multiprocessing
import os
import pickle
import re
import shutil
from pathlib import Path

import pytest

import detrex
from detrex.data import CocoInstances, CocoPanoptic, DataError
from detrex.data.coco import cache
from detrex.evaluation import CocoEvaluator


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The cache's."""
    monkeypatch.setenv("DETREX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/annotations"


@pytest.fixture
def files(coco):
    """Three images, with two, no and one object."""
    first, _, third = (coco.add_image() for _ in range(3))
    coco.add_object(third, bbox=[4.5, 2, 9, 8])
    coco.add_object(first)
    coco.add_object(first, ((0, 0, 5.25, 0, 5, 5), (1, 1, 2, 2)), bbox=None)
    coco.write()
    return coco


def opened(files, **options) -> CocoInstances:
    return CocoInstances(files.images, files.annotations, **options)


def contents(dataset: CocoInstances) -> list:
    """All that a data set knows without opening an image."""
    objects = [dataset.file.objects(dataset.place(i), dataset.masks) for i in range(len(dataset))]
    sizes = [dataset.image_size(i) for i in range(len(dataset))]
    return [dataset.categories, dataset.image_names(), sizes, objects, dataset.counts()]


@pytest.fixture
def parsed(monkeypatch) -> list[str]:
    """Names of the files that are parsed from here on."""
    names, stream = [], cache.stream_members

    def noting(file, seen):
        names.append(Path(file.name).name)
        return stream(file, seen)

    monkeypatch.setattr(cache, "stream_members", noting)
    return names


def entry(folder: Path) -> Path:
    (path,) = folder.glob("*.store")
    return path


@pytest.mark.parametrize(
    "options",
    [{}, {"masks": False}, {"skip_empty": True}, {"targets": False}, {"skip_empty": True, "masks": False}],
)
def test_the_second_start_gives_the_same_without_parsing(files, folder, monkeypatch, parsed, options):
    monkeypatch.setenv("DETREX_DATA_CACHE", "0")
    in_memory = contents(opened(files, **options))
    monkeypatch.delenv("DETREX_DATA_CACHE")
    first = contents(opened(files, **options))
    parsed.clear()
    assert contents(opened(files, **options)) == first == in_memory and parsed == []
    assert entry(folder).exists()


@pytest.mark.usefixtures("folder")
def test_all_ways_to_use_a_file_share_an_entry(files, parsed):
    lengths = [len(opened(files, skip_empty=skip, masks=masks)) for skip in (0, 1) for masks in (0, 1)]
    assert lengths == [3, 3, 2, 2] and len(parsed) == 1
    CocoEvaluator(files.annotations, images=files.images)
    opened(files, targets=False)
    assert len(parsed) == 1
    opened(files, orientation="stored")
    assert len(parsed) == 2


@pytest.mark.usefixtures("folder")
def test_targets_read_from_the_cache_are_those_of_the_file(files):
    for _ in range(2):
        dataset = opened(files)
        assert [len(dataset[i]["targets"]) for i in range(3)] == [2, 0, 1]
        assert dataset[0]["targets"].boxes.tolist()[0] == [4, 2, 14, 10]
    assert opened(files, masks=False)[2]["targets"].boxes.tolist() == [[4.5, 2, 13.5, 10]]


@pytest.mark.usefixtures("folder")
def test_panoptic_files(shared_data, parsed):
    root = shared_data / "coco"
    name = root / "annotations/panoptic_val2017"
    paths = root / "val2017", name.with_suffix(".json"), name
    first, second = CocoPanoptic(*paths), CocoPanoptic(*paths)
    entries = [[d.file.entry(i) for i in range(len(d))] for d in (first, second)]
    assert len(parsed) == 1 and entries[0] == entries[1] and any(entries[0])
    assert first.image_names() == second.image_names() and first.counts() == second.counts()


def test_a_changed_file_is_parsed_again(files, folder, parsed):
    opened(files)
    before = files.annotations.stat()
    files.content["images"][0]["width"] = 31
    files.write()
    assert files.annotations.stat().st_size == before.st_size
    os.utime(files.annotations, ns=(0, before.st_mtime_ns + 1))
    assert opened(files).image_size(0) == (20, 31) and len(parsed) == 2
    entry(folder)  # there is one, as before


@pytest.mark.usefixtures("folder")
def test_a_file_that_was_copied_or_touched_is_not(files, parsed):
    opened(files)
    os.utime(files.annotations, ns=(0, 12345))
    opened(files)
    assert len(parsed) == 1


def test_an_entry_of_another_version_is_made_anew(files, folder, monkeypatch, parsed):
    opened(files)
    monkeypatch.setattr(detrex, "__version__", "another")
    opened(files)
    assert len(parsed) == 2 and len(list(folder.glob("*.store"))) == 1


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
def test_a_damaged_entry_is_made_anew(files, folder, parsed, caplog, share):
    expected = contents(opened(files))
    data = bytearray(entry(folder).read_bytes())
    data[int(share * (len(data) - 1))] ^= 0x55
    entry(folder).write_bytes(data)
    assert contents(opened(files)) == expected
    assert len(parsed) == 2 and "is damaged" in caplog.text


@pytest.mark.parametrize("share", [0.0, 0.4, 0.99])
def test_an_entry_cut_short_is_made_anew(files, folder, caplog, share):
    expected = contents(opened(files))
    data = entry(folder).read_bytes()
    entry(folder).write_bytes(data[: int(share * len(data))])
    assert contents(opened(files)) == expected and "is damaged" in caplog.text


def test_what_a_killed_process_left_is_overwritten(files, folder):
    opened(files)
    left = entry(folder).rename(folder / f".tmp-1-{entry(folder).name}")
    left.write_bytes(b"half of it")
    opened(files)
    assert entry(folder).exists() and not left.exists()


def test_errors_come_at_every_start_and_leave_nothing(files, folder, capfd):
    files.content["annotations"][1]["category_id"] = 5
    files.write()
    for _ in range(2):
        with pytest.raises(
            DataError, match=r"instances.json: annotation id 2 of image id 1 has category id 5"
        ):
            opened(files)
    assert not [p for p in folder.iterdir() if p.suffix != ".lock"]
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("folder")
def test_errors_that_come_later_are_found(files):
    opened(files)
    files.annotations.write_text(files.annotations.read_text()[:-9])
    with pytest.raises(DataError, match="instances.json is not JSON"):
        opened(files)
    files.write()
    (files.images / "2.png").unlink()
    with pytest.raises(DataError, match=r"1 of 3 files .*2.png \(image id 2\)"):
        opened(files)


@pytest.mark.usefixtures("folder")
def test_warnings_come_at_every_start(files, caplog):
    files.add_object(1, ((1, 1, 5, 5),))
    files.write()
    for _ in range(2):
        caplog.clear()
        opened(files, skip_empty=True)
        assert "1 objects with a degenerate segmentation are left out (annotation id 4 of" in caplog.text
        assert "1 images without objects are left out (2.png)" in caplog.text


@pytest.mark.usefixtures("folder")
def test_a_file_may_list_its_images_last(files):
    expected = contents(opened(files))
    files.content["images"] = files.content.pop("images")
    files.write()
    assert list(files.content)[-1] == "images" and contents(opened(files)) == expected


def test_a_file_that_changes_while_it_is_read(files, folder, monkeypatch):
    stream = cache.stream_members

    def changing(file, seen):
        files.annotations.write_text(files.annotations.read_text() + " ")
        return stream(file, seen)

    monkeypatch.setattr(cache, "stream_members", changing)
    with pytest.raises(DataError, match=r"instances.json was changed while it was read"):
        opened(files)
    assert not list(folder.glob("*.store"))


def test_the_cache_can_be_switched_off(files, folder, monkeypatch, parsed):
    monkeypatch.setenv("DETREX_DATA_CACHE", "0")
    assert contents(opened(files)) == contents(opened(files)) and len(parsed) == 2
    assert not folder.exists()


def test_without_a_folder_to_write_to_it_goes_on_with_a_warning(files, tmp_path, folder, caplog):
    expected = contents(opened(files))
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("a file in the folder's place")
    assert contents(opened(files)) == expected
    assert re.search(rf"{folder} cannot be used \(.*DETREX_CACHE sets another", caplog.text)


def test_on_a_full_disk_it_goes_on_with_a_warning(files, folder, monkeypatch, caplog):
    expected = contents(opened(files))
    entry(folder).unlink()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert contents(opened(files)) == expected and "No space left" in caplog.text
    assert not list(folder.glob(".tmp-*"))


def _open_at_once(barrier, results, files):
    stream, parsed = cache.stream_members, []
    cache.stream_members = lambda *args: parsed.append(1) or stream(*args)
    barrier.wait()
    dataset = opened(files)
    results.put((len(parsed), contents(dataset)))


@pytest.mark.usefixtures("folder")
def test_of_processes_that_start_together_one_parses(files):
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(4), context.Queue()
    processes = [context.Process(target=_open_at_once, args=(barrier, results, files)) for _ in range(4)]
    for process in processes:
        process.start()
    found = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert sum(count for count, _ in found) == 1
    assert all(content == contents(opened(files)) for _, content in found)


def test_a_pickled_data_set_names_the_file_instead_of_holding_it(files, folder):
    for _ in range(200):
        files.add_object(2)
    files.write()
    dataset = opened(files)
    pickled = pickle.dumps(dataset)
    assert len(pickled) < entry(folder).stat().st_size / 2
    assert contents(pickle.loads(pickled)) == contents(dataset)

    files.content["images"][0]["width"] = 31
    files.write()
    opened(files)
    assert dataset.image_size(0) == (20, 30) and len(dataset.targets(1)) == 200
    with pytest.raises(DataError, match="was replaced while it was in use"):
        pickle.loads(pickled)
