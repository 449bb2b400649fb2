import json
import os

import pytest

from detrex.data import DataError, category_file, count_classes, read_categories, thing_classes


def write(path, content):
    path.write_text(json.dumps(content))
    return path


PANOPTIC = [
    {"id": 9, "name": "sky", "isthing": 0, "color": [1, 2, 3]},
    {"id": 4, "name": "car", "isthing": 1, "color": [4, 5, 6]},
]


@pytest.mark.parametrize("content", [{"categories": PANOPTIC}, PANOPTIC])
def test_categories_are_ordered_by_id(tmp_path, content):
    path = write(tmp_path / "x.json", content)
    categories = read_categories(path)
    assert categories.names == ("car", "sky")
    assert categories.ids == (4, 9)
    assert categories.colors == ((4, 5, 6), (1, 2, 3))
    assert (count_classes(path), thing_classes(str(path))) == (2, [0])


@pytest.mark.parametrize("content", [{"classes": ["road", "car"]}, ["road", "car"]])
def test_names_alone(tmp_path, content):
    categories = read_categories(write(tmp_path / "x.json", content))
    assert categories.names == ("road", "car") and categories.ids == (0, 1)
    assert not any(categories.is_thing)


def test_a_changed_file_is_read_again(tmp_path):
    path = write(tmp_path / "x.json", ["a"])
    assert count_classes(path) == 1
    write(path, ["a", "b"])
    os.utime(path, ns=(1, 1))
    assert count_classes(path) == 2


@pytest.mark.parametrize("content", [{}, [], {"categories": []}, {"categories": "cat"}, 7])
def test_no_classes(tmp_path, content):
    with pytest.raises(DataError, match="x.json lists no classes"):
        count_classes(write(tmp_path / "x.json", content))


def test_missing_file_is_an_error_each_time_and_found_once_it_is_there(tmp_path):
    path = tmp_path / "x.json"
    for _ in range(2):
        with pytest.raises(FileNotFoundError, match="x.json does not exist"):
            count_classes(path)
    assert count_classes(write(path, ["a"])) == 1


def test_real_files(shared_data):
    assert count_classes(shared_data / "coco/annotations/instances_val2017.json") == 80
    panoptic = shared_data / "coco/annotations/panoptic_val2017.json"
    assert count_classes(panoptic) == 133 and len(thing_classes(panoptic)) == 80
    assert count_classes(shared_data / "camvid/classes.json") == 11
    ade = shared_data / "ade20k_sample/categories150.json"
    assert count_classes(ade) == 150 and len(thing_classes(ade)) == 100


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("coco_instance", "coco/annotations/instances_train2017.json"),
        ("coco_panoptic", "coco/annotations/panoptic_val2017.json"),
        ("ade20k_semantic", "ade20k_sample/categories150.json"),
    ],
)
def test_lists_of_classes_are_those_of_the_data(shared_data, name, file):
    assert read_categories(category_file(name)) == read_categories(shared_data / file)


def test_cityscapes_classes_have_the_ids_of_its_label_files():
    categories = read_categories(category_file("cityscapes_semantic"))
    ids = (7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33)  # those that count in its evaluation
    assert categories.ids == ids
    assert (categories.names[0], categories.names[-1]) == ("road", "bicycle")
    assert [categories.ids[k] for k in categories.thing_classes] == [24, 25, 26, 27, 28, 31, 32, 33]


def test_unknown_list_of_classes():
    with pytest.raises(DataError, match="did you mean 'coco_panoptic'.*ade20k_semantic, cityscapes_instance"):
        category_file("coco_panoptik")
