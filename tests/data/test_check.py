"""Damage planted in data sets is found, and a clean data set gives no finding."""

import copy
import json
import math
import random

import numpy as np
import pytest
from PIL import Image

from detrex.cli.main import main as detrex
from detrex.data import CocoInstances, DataError
from detrex.data.check import KINDS, CheckOptions, check_sources, write_fixed
from detrex.data.sources import Source, find_sources, source_of
from detrex.report.dataset_page import save_dataset_page

SIZE = (48, 64)


def picture(seed, size=SIZE):
    """A picture with structure, unlike those of other seeds."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return small.resize(size[::-1], Image.Resampling.BICUBIC)


def square(x, y, side=12):
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def clean_content(count=4, first=0):
    """COCO's content: two objects of two classes in each image."""
    annotations = []
    for image in range(first + 1, first + count + 1):
        for category, x in ((1, 4), (7, 30)):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": category,
                    "segmentation": [square(x, 8)],
                    "bbox": [x, 8, 12, 12],
                    "area": 144,
                    "iscrowd": 0,
                }
            )
    images = range(first + 1, first + count + 1)
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "height": SIZE[0], "width": SIZE[1]} for i in images],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "cat"}, {"id": 7, "name": "dog"}],
    }


class Split:
    """A clean split of instances, to be damaged."""

    def __init__(self, root, name="train", first=0):
        self.images, self.name = root / name, name
        self.images.mkdir(parents=True)
        self.content = clean_content(first=first)
        for image in self.content["images"]:
            picture(image["id"]).save(self.images / image["file_name"])
        self.annotations = root / f"instances_{name}.json"

    def source(self):
        if isinstance(self.content, dict):
            self.annotations.write_text(json.dumps(self.content))
        else:
            self.annotations.write_text(self.content)
        return Source(self.name, "instances", "COCO JSON", self.images, self.annotations)


@pytest.fixture
def split(tmp_path):
    return Split(tmp_path)


def kinds(report):
    return {finding.kind: finding.count for finding in report.findings.sorted()}


def set_in(key, value, index=0, where="annotations"):
    def damage(split):
        split.content[where][index][key] = value

    return damage


def set_all(key, value):
    def damage(split):
        for annotation in split.content["annotations"]:
            annotation[key] = value(annotation) if callable(value) else copy.deepcopy(value)

    return damage


def without(key, index=0, where="annotations"):
    return lambda split: split.content[where][index].pop(key)


def runs(*counts, size=SIZE):
    return {"size": list(size), "counts": list(counts)}


def boxes_only(change):
    def damage(split):
        for annotation in split.content["annotations"]:
            del annotation["segmentation"]
        change(split)

    return damage


def save(name, image, **options):
    return lambda split: image.save(split.images / name, **options)


def turned(split):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(1).save(split.images / "1.png", exif=exif)


def twice(where, index=0, **changes):
    return lambda split: split.content[where].append(
        {**copy.deepcopy(split.content[where][index]), **changes}
    )


def deep(split):
    pixels = np.random.default_rng(0).integers(0, 4096, SIZE).astype(np.uint16)
    Image.fromarray(pixels).save(split.images / "1.png")


def frames(split):
    split.content["images"][0]["file_name"] = "1.gif"
    (split.images / "1.png").unlink()
    picture(1).save(split.images / "1.gif", save_all=True, append_images=[picture(2)])


def renamed_to_jpg(split):
    split.content["images"][0]["file_name"] = "1.jpg"
    (split.images / "1.png").rename(split.images / "1.jpg")


def copied(one, two):
    return lambda split: (split.images / two).write_bytes((split.images / one).read_bytes())


def nearly(split):
    pixels = np.asarray(Image.open(split.images / "1.png")).copy()
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(split.images / "2.png")


def cut(split):
    whole = (split.images / "1.png").read_bytes()
    (split.images / "1.png").write_bytes(whole[: len(whole) // 2])


def per_cent(split):
    for image in split.content["images"]:
        image.update(height=480, width=640)
        picture(image["id"], (480, 640)).save(split.images / image["file_name"])
    split.content["annotations"] *= 2
    for number, annotation in enumerate(split.content["annotations"]):
        split.content["annotations"][number] = {
            **annotation,
            "id": number + 1,
            "segmentation": [square(number, 9)],
            "bbox": [number, 9, 12, 12],
        }


def unit(annotation):
    return [[v / (SIZE[0] if k % 2 else SIZE[1]) for k, v in enumerate(annotation["segmentation"][0])]]


def unlisted(split):
    picture(99).save(split.images / "99.png")


def imbalanced(split):
    for k in range(300):
        split.content["annotations"].append(
            {
                **split.content["annotations"][0],
                "id": 100 + k,
                "segmentation": [square(k / 10, 20)],
                "bbox": [k / 10, 20, 12, 12],
            }
        )
    split.content["annotations"] = [
        a for a in split.content["annotations"] if a["category_id"] == 1 or a["id"] == 2
    ]


DAMAGES = {
    "cut off": ("unreadable", lambda s: setattr(s, "content", json.dumps(s.content)[:300])),
    "XML": ("unknown-format", lambda s: setattr(s, "content", "<data><x/></data>")),
    "YAML": ("unknown-format", lambda s: setattr(s, "content", "names: [a]\ntrain: x\n")),
    "JSON lines": ("unknown-format", lambda s: setattr(s, "content", '{"a": 1}\n{"a": 2}\n')),
    "no images": ("no-images", lambda s: s.content.update(images=[])),
    "no annotations": ("no-annotations", lambda s: s.content.pop("annotations")),
    "empty annotations": ("nothing-to-learn", lambda s: s.content.update(annotations=[])),
    "no categories": ("no-categories", lambda s: s.content.pop("categories")),
    "category id of two names": ("category-id-twice", twice("categories", name="horse")),
    "a name with two ids": ("category-name-twice", twice("categories", id=9)),
    "unlisted category": ("unknown-category", set_in("category_id", 5)),
    "category of a wrong type": ("invalid-entry", set_in("category_id", [1])),
    "class without objects": ("class-without-objects", twice("categories", id=9, name="bird")),
    "imbalance": ("class-imbalance", imbalanced),
    "image id twice": ("image-id-twice", twice("images", file_name="2.png")),
    "image under two ids": ("image-listed-twice", twice("images", id=50)),
    "width of a wrong type": ("invalid-entry", set_in("width", "wide", where="images")),
    "size missing, no image": (
        "size-missing",
        lambda s: (s.content["images"][0].pop("width"), (s.images / "1.png").unlink()),
    ),
    "name leaves the folder": ("file-name-leaves-folder", set_in("file_name", "../1.png", where="images")),
    "object of an unlisted image": ("unknown-image", set_in("image_id", 77)),
    "annotation id twice": ("annotation-id-twice", set_in("id", 2)),
    "annotation twice": ("annotation-twice", twice("annotations", id=90)),
    "all crowds": ("all-crowds", set_all("iscrowd", 1)),
    "many crowds": ("many-crowds", lambda s: [set_in("iscrowd", 1, k)(s) for k in range(4)]),
    "iscrowd of a wrong type": ("invalid-entry", set_in("iscrowd", "maybe")),
    "box of two numbers": ("invalid-entry", set_in("bbox", [1, 2])),
    "box not finite": ("bbox-broken", boxes_only(set_in("bbox", [math.nan, 2, 3, 4]))),
    "box without extent": ("bbox-degenerate", boxes_only(set_in("bbox", [4, 8, 0, 12]))),
    "box out of the image": ("bbox-outside", boxes_only(set_in("bbox", [50, 8, 30, 12]))),
    "boxes of corners": ("bbox-corners", set_all("bbox", lambda a: [a["bbox"][0], 8, a["bbox"][0] + 12, 20])),
    "box unlike its mask": ("bbox-unlike-mask", set_in("bbox", [20, 20, 12, 12])),
    "wrong area": ("area-wrong", set_in("area", 5000)),
    "negative area": ("area-wrong", set_in("area", -1)),
    "a mask missing": ("segmentation-missing", without("segmentation")),
    "neither box nor mask": ("no-shape", lambda s: [without(key)(s) for key in ("segmentation", "bbox")]),
    "polygon of two points": ("segmentation-degenerate", set_in("segmentation", [[1, 1, 5, 5]])),
    "polygon far out": ("polygon-broken", set_in("segmentation", [square(9000, 8)])),
    "polygon with NaN": ("polygon-broken", set_in("segmentation", [[1, 1, math.nan, 4, 9, 9]])),
    "polygon of pairs": ("polygon-broken", set_in("segmentation", [[[4, 8], [16, 8], [16, 20]]])),
    "flat polygon": ("polygon-broken", set_in("segmentation", square(4, 8))),
    "polygon out of the image": ("polygon-outside", set_in("segmentation", [[-6, 8, 16, 8, 16, 20, -6, 20]])),
    "RLE too short": ("rle-broken", set_in("segmentation", runs(100, 200))),
    "RLE of another size": ("rle-broken", set_in("segmentation", runs(100, size=(10, 10)))),
    "RLE as Python bytes": ("rle-broken", set_in("segmentation", {"size": list(SIZE), "counts": "b'abc'"})),
    "RLE of no pixel": ("segmentation-degenerate", set_in("segmentation", runs(SIZE[0] * SIZE[1]))),
    "normalised": ("normalised", lambda s: (set_all("segmentation", unit)(s), set_all("bbox", None)(s))),
    "per cent": ("per-cent", per_cent),
    "tiny": (
        "tiny-object",
        lambda s: (
            set_in("segmentation", [square(4, 8, 1)])(s),
            set_in("bbox", [4, 8, 1, 1])(s),
            set_in("area", 1)(s),
        ),
    ),
    "huge": (
        "huge-object",
        lambda s: (
            set_in("segmentation", [[0, 0, 64, 0, 64, 48, 0, 48]])(s),
            set_in("bbox", [0, 0, 64, 48])(s),
            set_in("area", 3072)(s),
        ),
    ),
    "image missing": ("image-missing", lambda s: (s.images / "1.png").unlink()),
    "image cut off": ("image-broken", cut),
    "image is text": ("image-broken", lambda s: (s.images / "1.png").write_text("hello")),
    "image of another size": ("image-size", lambda s: picture(1, (32, 64)).save(s.images / "1.png")),
    "image to be turned": ("image-turned", turned),
    "12 bits": ("image-deep", deep),
    "animation": ("image-frames", frames),
    "blank": ("image-blank", save("1.png", Image.new("RGB", SIZE[::-1], (9, 9, 9)))),
    "another type": ("image-type", renamed_to_jpg),
    "not listed": ("image-unlisted", unlisted),
    "same picture": ("image-twice", copied("1.png", "2.png")),
    "nearly the same picture": ("image-alike", nearly),
}


def test_a_clean_data_set_gives_no_finding(tmp_path):
    splits = [Split(tmp_path, "train"), Split(tmp_path, "val", first=10)]
    report = check_sources([split.source() for split in splits], CheckOptions(queries=2))
    assert kinds(report) == {}
    assert report.findings.worst() is None
    assert "num_queries" in report.advice


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found(split, damage):
    kind, plant = DAMAGES[damage]
    plant(split)
    report = check_sources([split.source()])
    assert kind in kinds(report)
    finding = next(f for f in report.findings.sorted() if f.kind == kind)
    assert finding.count >= 1 and finding.examples and finding.severity == KINDS[kind].severity


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_stops_training_is_an_error(split, damage):
    """The checker is at least as strict as the data set for training."""
    _, plant = DAMAGES[damage]
    plant(split)
    source = split.source()
    try:
        dataset = CocoInstances(source.images, source.annotations, masks=damage not in BOXES_ONLY)
        [dataset[index] for index in range(len(dataset))]
    except DataError:
        assert check_sources([source]).findings.worst() == "error"


BOXES_ONLY = {"box not finite", "box without extent", "box out of the image"}


def test_splits_are_compared(tmp_path):
    train, val = Split(tmp_path, "train"), Split(tmp_path, "val", first=10)
    (val.images / "11.png").write_bytes((train.images / "1.png").read_bytes())
    pixels = np.asarray(Image.open(train.images / "2.png")).copy()
    pixels[:2] //= 2
    Image.fromarray(pixels).save(val.images / "12.png")
    val.content["categories"][1]["name"] = "horse"
    found = kinds(check_sources([train.source(), val.source()], CheckOptions(queries=1)))
    assert found["leak"] == 1 and found["leak-alike"] == 1
    assert found["splits-disagree"] == 1
    assert found["too-many-objects"] == 4


FIXED = [
    "unlisted category",
    "a name with two ids",
    "image id twice",
    "image under two ids",
    "annotation id twice",
    "annotation twice",
    "all crowds",
    "box of two numbers",
    "box without extent",
    "box out of the image",
    "boxes of corners",
    "box unlike its mask",
    "wrong area",
    "negative area",
    "polygon of two points",
    "polygon of pairs",
    "flat polygon",
    "polygon out of the image",
    "RLE too short",
    "RLE of another size",
    "normalised",
    "object of an unlisted image",
    "image missing",
    "image cut off",
    "polygon far out",
    "name leaves the folder",
    "a mask missing",
]


@pytest.mark.parametrize("damage", FIXED)
def test_a_cleaned_copy_has_no_such_finding(split, damage, tmp_path):
    kind, plant = DAMAGES[damage]
    plant(split)
    source = split.source()
    before = source.annotations.read_bytes()
    report = check_sources([source])
    changes = write_fixed(report, tmp_path / "clean", CheckOptions())
    assert source.annotations.read_bytes() == before
    assert sum(changes["train"].values()) >= 1
    again = kinds(check_sources([source_of(source.images, tmp_path / "clean" / "train.json")]))
    assert set(again) - {"image-unlisted", "class-without-objects"} == set(), changes
    kept = json.loads((tmp_path / "clean" / "train.json").read_text())
    assert len(kept["annotations"]) >= 4


def test_cleaning_keeps_objects(split, tmp_path):
    set_all("segmentation", unit)(split)
    set_all("bbox", None)(split)
    source = split.source()
    write_fixed(check_sources([source]), tmp_path / "clean", CheckOptions())
    kept = json.loads((tmp_path / "clean" / "train.json").read_text())
    assert [a["bbox"] for a in kept["annotations"]] == [[x, 8, 12, 12] for x in (4, 30)] * 4
    with pytest.raises(DataError, match="exists"):
        write_fixed(check_sources([source]), tmp_path / "clean", CheckOptions())


ODD = [
    None, 0, -1, 1.5, math.nan, math.inf, "", "x", "7", True, [], {}, [[]], [None], {"a": 1}, [1, 2, 3],
    10**30, [[1, 2], [3, 4], [5, 6]], {"size": [48, 64], "counts": "b'1'"}, 1e30, [1e30] * 4,
    {"size": [48, 64], "counts": [1]}, [[1e30] * 6], [["a"] * 6],
]  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_no_value_ends_the_check_or_the_cleaning(split, tmp_path, seed):
    rng = random.Random(seed)
    clean = split.content
    for number in range(20):
        split.content = copy.deepcopy(clean)
        for _ in range(rng.randint(1, 3)):
            key = rng.choice(["images", "annotations", "categories"])
            entries = split.content[key]
            if not isinstance(entries, list) or rng.random() < 0.1:
                split.content[key] = rng.choice(ODD)
                continue
            entry = rng.choice(entries)
            if isinstance(entry, dict) and rng.random() < 0.8:
                entry[rng.choice(list(entry))] = rng.choice(ODD)
            else:
                entries[rng.randrange(len(entries))] = rng.choice(ODD)
        report = check_sources([split.source()], CheckOptions(pictures=0))
        write_fixed(report, tmp_path / f"clean{number}", CheckOptions())
        json.dumps(report.to_dict())
        save_dataset_page(tmp_path / "page.html", "odd", report)


def test_label_maps(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    (tmp_path / "classes.txt").write_text("road\ncar\nsky\n")
    maps = {
        "fine": np.tile(np.arange(3, dtype=np.uint8), (48, 22))[:, :64],
        "void": np.full(SIZE, 255, np.uint8),
        "unknown": np.full(SIZE, 9, np.uint8),
        "size": np.zeros((20, 20), np.uint8),
        "colour": np.zeros((*SIZE, 3), np.uint8),
    }
    for number, (name, pixels) in enumerate(maps.items()):
        picture(number).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(pixels).save(tmp_path / "masks" / f"{name}.png")
    picture(9).save(tmp_path / "images" / "alone.png")
    found = kinds(check_sources(list(find_sources(tmp_path).values())))
    expected = {"labels-void", "labels-unknown", "labels-size", "labels-broken", "labels-missing"}
    assert set(found) == expected
    for name in ("void", "unknown", "size", "colour", "alone"):
        (tmp_path / "images" / f"{name}.png").unlink()
    assert kinds(check_sources(list(find_sources(tmp_path).values()))) == {}
    half = np.full(SIZE, 255, np.uint8)
    half[:, :20] = 0
    Image.fromarray(half).save(tmp_path / "masks" / "fine.png")
    found = kinds(check_sources(list(find_sources(tmp_path).values()), CheckOptions(crop=16)))
    assert set(found) == {"labels-void-crops", "labels-absent"}


def test_panoptic_pngs(tmp_path):
    content = clean_content(2)
    ids = np.zeros((*SIZE, 3), np.uint8)
    ids[:20, :, 0], ids[20:, :, 0] = 1, 2
    (tmp_path / "panoptic_val").mkdir()
    (tmp_path / "val").mkdir()
    for image in content["images"]:
        picture(image["id"]).save(tmp_path / "val" / image["file_name"])
        Image.fromarray(ids).save(tmp_path / "panoptic_val" / image["file_name"])
    segments = [{"id": 1, "category_id": 1, "area": 20 * 64}, {"id": 2, "category_id": 7, "area": 28 * 64}]
    content["annotations"] = [
        {"image_id": i, "file_name": f"{i}.png", "segments_info": copy.deepcopy(segments)} for i in (1, 2)
    ]
    content["categories"] = [{"id": 1, "name": "cat", "isthing": 1}, {"id": 7, "name": "sky", "isthing": 0}]
    path = tmp_path / "panoptic_val.json"

    def found():
        path.write_text(json.dumps(content))
        return set(kinds(check_sources(list(find_sources(path).values()))))

    assert found() == set()
    content["annotations"][0]["segments_info"][0]["area"] = 3
    assert found() == {"segment-area"}
    content["annotations"][0]["segments_info"][0]["id"] = 5
    assert found() == {"segments-disagree"}
    (tmp_path / "panoptic_val" / "1.png").unlink()
    assert found() == {"segments-missing"}
    for category in content["categories"]:
        del category["isthing"]
    assert found() == {"segments-missing", "isthing-missing"}


def main(arguments):
    """The exit code of ``detrex check``."""
    with pytest.raises(SystemExit) as stopped:
        detrex(["check", *arguments])
    return stopped.value.code


def test_the_command_reports_in_every_form(split, tmp_path, capsys):
    DAMAGES["wrong area"][1](split)
    source = split.source()
    paths = [str(source.images), str(source.annotations)]
    html, data = tmp_path / "check.html", tmp_path / "check.json"
    assert main([*paths, "--html", str(html), "--json", str(data), "--fix", str(tmp_path / "clean")]) == 0
    text = capsys.readouterr().out
    assert "WARNING  train: areas cannot be right (1)  [area-wrong]" in text
    assert "1 areas cannot be right: computed" in text
    found = json.loads(data.read_text())
    assert [f["kind"] for f in found["findings"]] == ["area-wrong"]
    assert found["census"]["train"]["objects"] == 8
    page = html.read_text()
    assert page.count("data:image/jpeg") == 1 and "http" not in page.replace("http://www.w3.org", "")
    assert main([*paths, "--fail-on", "warning"]) == 1
    DAMAGES["flat polygon"][1](split)
    split.source()
    assert main(paths) == 1
    assert main([*paths, "--fail-on", "never", "--pictures", "0"]) == 0
    assert main([]) == 2


def test_the_data_of_a_config(capsys, tmp_path):
    split, other = Split(tmp_path, "train"), Split(tmp_path, "val", first=10)
    split.source(), other.source()
    (tmp_path / "annotations").mkdir()
    for path in tmp_path.glob("*.json"):
        path.rename(tmp_path / "annotations" / path.name)
    config = "projects/maskdino/configs/maskdino_custom_instance.py"
    code = main(["--config-file", config, f"dataloader.root={tmp_path}", "--json", "-"])
    found = json.loads(capsys.readouterr().out)
    assert code == 0 and found["findings"] == [] and len(found["splits"]) == 2
