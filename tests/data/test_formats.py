"""The formats that people bring: recognised, read without a conversion step, converted to COCO."""

import base64
import gzip
import io
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from detrex.cli.main import main as detrex
from detrex.data import CocoInstances, DataError, SemanticFolder
from detrex.data.categories import read_categories
from detrex.data.formats import recognise
from detrex.data.sources import find_sources, open_path, source_of
from detrex.evaluation import CocoEvaluator
from detrex.structures import Instances

HEIGHT, WIDTH = 40, 60
# By image: class, and a rectangle as x0, y0, x1, y1 in pixels.
OBJECTS = {
    "train": {
        "a": [("cat", (4, 6, 20, 30)), ("dog", (30, 10, 50, 34))],
        "b": [("dog", (10, 10, 25, 22))],
        "c": [],
    },
    "val": {"d": [("cat", (8, 4, 28, 36))], "e": [("cat", (40, 20, 58, 38)), ("cat", (2, 2, 12, 12))]},
}
NAMES = ["cat", "dog"]


def corners(box):
    x0, y0, x1, y1 = box
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def save_images(folder, split):
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(OBJECTS[split]):
        Image.new("RGB", (WIDTH, HEIGHT), (40 * number, 90, 10)).save(folder / f"{name}.png")


def mask_of(box):
    x0, y0, x1, y1 = box
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def coco_content(split):
    images = [
        {"id": k, "file_name": f"{n}.png", "height": HEIGHT, "width": WIDTH}
        for k, n in enumerate(OBJECTS[split])
    ]
    annotations = [
        {
            "id": 100 * k + i,
            "image_id": k,
            "category_id": NAMES.index(name) + 1,
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "segmentation": [corners(box)],
        }
        for k, found in enumerate(OBJECTS[split].values())
        for i, (name, box) in enumerate(found)
    ]
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }


def write_coco_zip(root):
    for split in OBJECTS:
        save_images(root / split, split)
        path = root / "annotations" / f"instances_{split}.json.gz"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(json.dumps(coco_content(split)).encode()))


def write_roboflow(root):
    for split, folder in (("train", "train"), ("val", "valid")):
        save_images(root / folder, split)
        (root / folder / "_annotations.coco.json").write_text(json.dumps(coco_content(split)))


def write_yolo(root, polygons=True, names="names: [cat, dog]"):
    for split, found in OBJECTS.items():
        save_images(root / "images" / split, split)
        (root / "labels" / split).mkdir(parents=True)
        for name, objects in found.items():
            lines = []
            for label, box in objects:
                x0, y0, x1, y1 = box
                points = corners(box) if polygons else [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]
                scaled = [v / (HEIGHT if k % 2 else WIDTH) for k, v in enumerate(points)]
                lines.append(f"{NAMES.index(label)} {' '.join(map(str, scaled))}")
            if lines:  # images without objects have no file
                (root / "labels" / split / f"{name}.txt").write_text("\n".join(lines) + "\n")
    (root / "data.yaml").write_text(f"train: images/train\nval: images/val\nnc: 2\n{names}\n")


def write_yolo_boxes(root):
    write_yolo(root, polygons=False, names="names:\n  0: cat\n  1: dog")


def write_voc(root):
    (root / "Annotations").mkdir(parents=True)
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for split, found in OBJECTS.items():
        save_images(root / "JPEGImages", split)
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(found) + "\n")
        for name, objects in found.items():
            (root / "Annotations" / f"{name}.xml").write_text(voc_xml(f"{name}.png", objects))


def write_voc_folders(root):
    """As Roboflow writes it: pictures and XML side by side."""
    for split, found in OBJECTS.items():
        save_images(root / split, split)
        for name, objects in found.items():
            (root / split / f"{name}.xml").write_text(voc_xml(f"{name}.png", objects))


def voc_xml(name, objects):
    found = "".join(
        f"<object><name>{label}</name><difficult>0</difficult><bndbox>"
        f"<xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for label, (x0, y0, x1, y1) in objects
    )
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    return f"<annotation><filename>{name}</filename>{size}{found}</annotation>"


def write_labelme(root):
    for split, found in OBJECTS.items():
        save_images(root / split, split)
        for name, objects in found.items():
            shapes = [
                {
                    "label": label,
                    "shape_type": "polygon",
                    "group_id": None,
                    "points": np.reshape(corners(box), (-1, 2)).tolist(),
                }
                for label, box in objects
            ]
            content = {
                "version": "5.2.1",
                "flags": {},
                "shapes": shapes,
                "imagePath": f"..\\x\\{name}.png",
                "imageData": None,
                "imageHeight": HEIGHT,
                "imageWidth": WIDTH,
            }
            (root / split / f"{name}.json").write_text(json.dumps(content))


def write_cvat(root):
    for split, found in OBJECTS.items():
        save_images(root / split / "images", split)
        labels = "".join(f"<label><name>{name}</name></label>" for name in NAMES)
        images = "".join(
            f'<image id="{k}" name="{name}.png" width="{WIDTH}" height="{HEIGHT}">'
            + "".join(map(cvat_shape, objects))
            + "</image>"
            for k, (name, objects) in enumerate(found.items())
        )
        meta = f"<version>1.1</version><meta><task><labels>{labels}</labels></task></meta>"
        text = f'<?xml version="1.0" encoding="utf-8"?><annotations>{meta}{images}</annotations>'
        (root / split / "annotations.xml").write_text(text)


def cvat_shape(labelled):
    label, box = labelled
    x0, y0, x1, y1 = box
    if label == "dog":  # a mask, whose box is larger by a row and a column
        inside = mask_of(box)[y0 : y1 + 1, x0 - 1 : x1].ravel().astype(int)
        edges = np.flatnonzero(np.diff(inside)) + 1
        runs = np.diff([0, *edges, len(inside)]).tolist()
        runs = runs if not inside[0] else [0, *runs]
        rle = ", ".join(map(str, runs))
        place = f'left="{x0 - 1}" top="{y0}" width="{x1 - x0 + 1}" height="{y1 - y0 + 1}"'
        return f'<mask label="dog" rle="{rle}" {place}/>'
    points = ";".join(f"{x:.2f},{y:.2f}" for x, y in np.reshape(corners(box), (-1, 2)))
    return f'<polygon label="cat" points="{points}" occluded="0"/>'


def write_via(root):
    for split, found in OBJECTS.items():
        save_images(root / split, split)
        images = {
            f"{name}.png1234": {
                "filename": f"{name}.png",
                "size": 1234,
                "regions": [
                    {
                        "shape_attributes": {
                            "name": "polygon",
                            "all_points_x": corners(box)[::2],
                            "all_points_y": corners(box)[1::2],
                        },
                        "region_attributes": {"label": label},
                    }
                    for label, box in objects
                ],
                "file_attributes": {},
            }
            for name, objects in found.items()
        }
        content = (
            images
            if split == "train"
            else {"_via_settings": {}, "_via_img_metadata": images, "_via_attributes": {}}
        )
        (root / split / "via_region_data.json").write_text(json.dumps(content))


def write_masks(root):
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    for folder in ("SegmentationObject", "SegmentationClass"):
        (root / folder).mkdir()
    colors = {"background": (0, 0, 0), "cat": (250, 50, 83), "dog": (36, 179, 83)}
    (root / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\n"
        + "".join(f"{n}:{r},{g},{b}::\n" for n, (r, g, b) in colors.items())
    )
    for split, found in OBJECTS.items():
        save_images(root / "JPEGImages", split)
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(found) + "\n")
        for name, objects in found.items():
            ids, classes = np.zeros((HEIGHT, WIDTH, 3), np.uint8), np.zeros((HEIGHT, WIDTH, 3), np.uint8)
            for number, (label, box) in enumerate(objects, start=1):
                ids[mask_of(box)] = (number, 7, 0)
                classes[mask_of(box)] = colors[label]
            Image.fromarray(ids).save(root / "SegmentationObject" / f"{name}.png")
            Image.fromarray(classes).save(root / "SegmentationClass" / f"{name}.png")


FORMATS = {
    "COCO JSON": write_coco_zip,
    "COCO JSON of Roboflow": write_roboflow,
    "YOLO": write_yolo,
    "YOLO boxes": write_yolo_boxes,
    "Pascal VOC": write_voc,
    "Pascal VOC folders": write_voc_folders,
    "LabelMe": write_labelme,
    "CVAT for images": write_cvat,
    "VGG Image Annotator": write_via,
    "PNG masks of instances": write_masks,
}
BOXES = {"YOLO boxes", "Pascal VOC", "Pascal VOC folders"}


def found_in(dataset, masks):
    """By name of the image the class, box and number of pixels of each object."""
    found = {}
    for index, (_, name) in enumerate(dataset.image_names()):
        targets = dataset.targets(index)
        names = [dataset.categories.names[k] for k in targets.labels]
        boxes = [tuple(map(round, box)) for box in targets.boxes.tolist()]
        pixels = targets.masks.flatten(1).sum(1).tolist() if masks else [None] * len(names)
        found[name.removesuffix(".png")] = sorted(zip(names, boxes, pixels, strict=True))
    return found


def expected(split, masks):
    def pixels(box):
        return int(mask_of(box).sum()) if masks else None

    return {
        name: sorted((label, box, pixels(box)) for label, box in objects)
        for name, objects in OBJECTS[split].items()
    }


@pytest.mark.parametrize("name", FORMATS)
def test_a_path_opens(tmp_path, name):
    FORMATS[name](tmp_path)
    sources = find_sources(tmp_path)
    masks = name not in BOXES
    assert list(sources) == ["train", "val"]
    assert all(name.startswith(source.format.split(" (")[0]) for source in sources.values())
    for split in OBJECTS:
        dataset = open_path(tmp_path, split, masks=masks)
        assert found_in(dataset, masks) == expected(split, masks)
        assert dataset[0]["image"].shape == (3, HEIGHT, WIDTH)
        # The paths alone suffice in a config, for data sets, classes and evaluators alike.
        source = sources[split]
        assert read_categories(source.annotations).names == ("cat", "dog")
        assert recognise(source.annotations) is None or recognise(source.annotations).name == source.format
        targets = [dataset.targets(index) for index in range(len(dataset))]
        assert perfect_ap(dataset, targets, source, ["bbox", "segm"] if masks else ["bbox"]) == pytest.approx(
            100
        )


def perfect_ap(dataset, targets, source, tasks):
    evaluator = CocoEvaluator(source.annotations, tasks, images=source.images)
    for (image_id, _), found in zip(dataset.image_names(), targets, strict=True):
        instances = Instances((HEIGHT, WIDTH), found.boxes, torch.ones(len(found)), found.labels, found.masks)
        evaluator.process([{"image_id": image_id}], [{"instances": instances}])
    return evaluator.evaluate()[f"{tasks[-1]}/AP"]


@pytest.mark.parametrize("name", FORMATS)
def test_conversion_to_coco_keeps_everything(tmp_path, name, capsys):
    root, masks = tmp_path / "data", name not in BOXES
    FORMATS[name](root)
    command = ["convert-data", str(root), "--output", str(tmp_path / "coco")]
    detrex(command)
    assert "3 images, 3 objects" in capsys.readouterr().out
    for split, source in find_sources(root).items():
        path = tmp_path / "coco" / f"instances_{split}.json"
        assert found_in(CocoInstances(source.images, path, masks=masks), masks) == expected(split, masks)
    with pytest.raises(SystemExit):
        detrex(command)


def test_two_paths_are_enough(tmp_path):
    write_yolo(tmp_path)
    dataset = CocoInstances(tmp_path / "images/val", tmp_path / "labels/val")
    assert found_in(dataset, True) == expected("val", True)
    assert source_of(tmp_path / "images/val", tmp_path / "labels/val").format == "YOLO"
    (tmp_path / "val.txt").write_text("./images/val/d.png\n./images/val/e.png\n")
    listed = CocoInstances(tmp_path, tmp_path / "val.txt")
    assert [name for _, name in listed.image_names()] == ["images/val/d.png", "images/val/e.png"]
    assert len(listed.targets(1)) == 2


def test_yolo_as_roboflow_and_others_lay_it_out(tmp_path):
    write_yolo(tmp_path / "all")
    for split, folder in (("train", "train"), ("val", "valid")):
        for kind in ("images", "labels"):
            shutil.copytree(tmp_path / "all" / kind / split, tmp_path / "roboflow" / folder / kind)
    lines = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnames: ['cat', 'dog']\n"
    (tmp_path / "roboflow" / "data.yaml").write_text(lines)
    (tmp_path / "all" / "data.yaml").unlink()
    (tmp_path / "all" / "classes.txt").write_text("cat\ndog\n")
    flat = tmp_path / "roboflow" / "train"
    (flat / "labels" / "._a.txt").write_bytes(b"\0\1")  # as macOS leaves them
    (flat / "images" / "._a.png").write_bytes(b"\0\1")
    for root in ("all", "roboflow"):
        for split in OBJECTS:
            assert found_in(open_path(tmp_path / root, split), True) == expected(split, True)
    assert found_in(open_path(flat), True) == expected("train", True)
    with pytest.raises(DataError, match="expected is one folder, or a text file"):
        (tmp_path / "roboflow" / "data.yaml").write_text("train: [a, b]\nnames: [cat, dog]\n")
        open_path(tmp_path / "roboflow")


def test_semantic_masks_open(tmp_path):
    for split in OBJECTS:
        save_images(tmp_path / "images" / split, split)
        (tmp_path / "masks" / split).mkdir(parents=True)
        for name in OBJECTS[split]:
            Image.fromarray(mask_of((4, 4, 9, 9)).astype(np.uint8)).save(
                tmp_path / "masks" / split / f"{name}.png"
            )
    with pytest.raises(DataError, match="no list of the classes: add classes.json or classes.txt"):
        open_path(tmp_path)
    (tmp_path / "classes.txt").write_text("background\nleaf\n")
    dataset = open_path(tmp_path, "val")
    assert isinstance(dataset, SemanticFolder) and dataset.categories.names == ("background", "leaf")
    assert len(dataset) == 2 and len(dataset.targets(0)) == 2


def test_damaged_gzip_is_named(tmp_path):
    write_coco_zip(tmp_path)
    path = tmp_path / "annotations/instances_train.json.gz"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match="is packed with gzip, and damaged: .*copied completely"):
        CocoInstances(tmp_path / "train", path)


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


FAULTS = {
    "YOLO class": (
        write_yolo,
        "labels/train/a.txt",
        "0 ",
        "7 ",
        "a.txt, line 1: class 7; the list of names has 0 to 1",
    ),
    "YOLO pixels": (
        write_yolo_boxes,
        "labels/train/a.txt",
        "0 0.2",
        "0 20.2",
        "a.txt, line 1: the coordinate 20.2; expected are shares",
    ),
    "YOLO text": (write_yolo, "labels/train/b.txt", "1 0.", "dog 0.", "b.txt, line 1: 'dog 0"),
    "YOLO names": (write_yolo, "data.yaml", "names: [cat, dog]", "kinds: 2", "no data.yaml with 'names'"),
    "VOC number": (
        write_voc,
        "Annotations/a.xml",
        "<xmin>5<",
        "<xmin>five<",
        "a.xml, object 1 has 'five' as <xmin>",
    ),
    "VOC cut off": (
        write_voc,
        "Annotations/a.xml",
        "</annotation>",
        "",
        "a.xml is not XML: .*copied completely",
    ),
    "VOC image": (write_voc_folders, "train/a.xml", "a.png", "z.png", None),
    "LabelMe shapes": (write_labelme, "train/a.json", '"shapes"', '"shape"', "a.json has no list 'shapes'"),
    "LabelMe points": (
        write_labelme,
        "train/a.json",
        "[[4, 6]",
        "[[4]",
        "a.json, shape 0: it cannot be read",
    ),
    "CVAT points": (
        write_cvat,
        "train/annotations.xml",
        "4.00,6.00",
        "4.00",
        "image 'a.png', shape 1 .polygon.: it cannot be read",
    ),
    "CVAT runs": (
        write_cvat,
        "train/annotations.xml",
        'rle="1, ',
        'rle="3, ',
        "the runs of its mask do not fit",
    ),
    "CVAT size": (
        write_cvat,
        "train/annotations.xml",
        f'name="a.png" width="{WIDTH}"',
        'name="a.png" width="2000000000"',
        "its image is said to have 40 x 2000000000 pixels",
    ),
    "CVAT label": (
        write_cvat,
        "train/annotations.xml",
        'label="cat"',
        'label="cow"',
        "a.png: an object has the class 'cow', which is not",
    ),
    "VIA points": (
        write_via,
        "train/via_region_data.json",
        '"all_points_x"',
        '"all_x"',
        "a.png, region 1: it cannot be read",
    ),
    "mask colour": (
        write_masks,
        "labelmap.txt",
        "dog:36",
        "dog:37",
        "a.png: most pixels of object 1794 have a value that is no class",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_named_with_their_place(tmp_path, name):
    write, file, old, new, message = FAULTS[name]
    write(tmp_path)
    edit(tmp_path / file, old, new)
    if message is None:  # another name in the file; the picture of the same stem is taken
        assert found_in(open_path(tmp_path, masks=False), False) == expected("train", False)
        return
    with pytest.raises(DataError, match=message):
        open_path(tmp_path, masks=name[:3] not in ("VOC",))


UNKNOWN = {
    "single.xml": (voc_xml("a.png", []), "XML of Pascal VOC, of a single image. Give the folder"),
    "other.xml": ("<?xml version='1.0'?><!-- x --><kml><a/></kml>", "XML with the root <kml>"),
    "data.yaml": ("train: images\nnames: [a]\n", "it is YAML"),
    "lines.jsonl": (
        '{"file_name": "a.png", "label": 1}\n{"file_name": "b.png"}\n',
        "JSON lines, .* with the keys file_name, label",
    ),
    "table.csv": ("filename,width,height,class\na.png,3,4,cat\n", "CSV that begins with 'filename,width"),
    "labelme.json": ('{"version": "5", "flags": {}, "shapes": []}', "LabelMe's, of a single image"),
    "tasks.json": ('[{"id": 1, "data": {"image": "x"}, "annotations": []}]', "JSON of Label Studio"),
    "createml.json": ('[{"image": "x.jpg", "annotations": [{"label": "a"}]}]', "JSON of CreateML"),
    "list.json": ("[1, 2]", "lists no images"),
    "other.json": ('{"a": 1, "b": 2}', "lists no images.*its keys are a, b"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_files_are_named(tmp_path, name):
    text, message = UNKNOWN[name]
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        CocoInstances(tmp_path, tmp_path / name)


def test_an_empty_folder_and_nothing(tmp_path):
    with pytest.raises(DataError, match="holds no annotations of a known format .there: nothing"):
        open_path(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        open_path(tmp_path / "nowhere")


def test_shapes_that_are_no_areas_are_counted(tmp_path):
    write_labelme(tmp_path)
    path = tmp_path / "train" / "a.json"
    content = json.loads(path.read_text())
    mask = io.BytesIO()
    Image.fromarray(mask_of((0, 0, 6, 5))[:5, :6]).save(mask, "PNG")
    text = base64.b64encode(mask.getvalue()).decode()
    pieces = [np.reshape(corners(box), (-1, 2)).tolist() for box in ((0, 0, 3, 3), (50, 0, 53, 3))]
    content["shapes"] += [
        {"label": "cat", "shape_type": "line", "points": [[1, 1], [9, 9]]},
        {"label": "cat", "shape_type": "circle", "points": [[30, 20], [30, 30]]},
        {"label": "dog", "shape_type": "rectangle", "points": [[20, 12], [10, 2]]},
        {"label": "dog", "shape_type": "mask", "points": [[50, 30], [56, 35]], "mask": text},
        *({"label": "cat", "shape_type": "polygon", "group_id": 4, "points": points} for points in pieces),
    ]
    path.write_text(json.dumps(content))
    dataset = open_path(tmp_path)
    assert "1 shapes are no areas and are left out (line)" in dataset.warnings
    found = found_in(dataset, True)["a"]
    assert ("dog", (10, 2, 20, 12), 100) in found and ("dog", (50, 30, 56, 35), 30) in found
    assert ("cat", (0, 0, 53, 3), 18) in found
    circle = next(pixels for label, box, pixels in found if label == "cat" and box == (20, 10, 40, 30))
    assert circle == pytest.approx(np.pi * 100, rel=0.03)


def test_classes_are_numbered_alike_in_all_splits(tmp_path):
    """Validation has no dog; its cat is class 0 and the dog still listed."""
    for write in (write_voc_folders, write_labelme, write_via):
        root = tmp_path / write.__name__
        write(root)
        dataset = open_path(root, "val", masks=False)
        assert dataset.categories.names == ("cat", "dog")


def test_difficult_objects_are_ignored_as_in_voc(tmp_path):
    write_voc(tmp_path)
    edit(tmp_path / "Annotations" / "a.xml", "<difficult>0<", "<difficult>1<")
    dataset = open_path(tmp_path, masks=False)
    assert len(dataset.targets(0)) == 1 and dataset.counts().crowds == 1


def test_lvis_names_come_from_addresses(tmp_path):
    save_images(tmp_path / "train2017", "train")
    content = coco_content("train")
    for image in content["images"]:
        image["coco_url"] = f"http://images.cocodataset.org/train2017/{image.pop('file_name')}"
    (tmp_path / "lvis_v1_val.json").write_text(json.dumps(content))
    dataset = CocoInstances(tmp_path, tmp_path / "lvis_v1_val.json")
    assert dataset.entry(0).file_name == "train2017/a.png"
    assert len(dataset.targets(0).masks) == 2
