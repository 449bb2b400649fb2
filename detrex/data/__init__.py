from detrex.data.categories import (
    category_file,
    class_names,
    count_classes,
    read_categories,
    read_words,
    thing_classes,
)
from detrex.data.coco_instances import CocoInstances
from detrex.data.coco_panoptic import CocoPanoptic
from detrex.data.errors import DataError
from detrex.data.image_dataset import ImageDataset, Record
from detrex.data.loaders import TestLoader, TrainLoader, build_test_loader, build_train_loader
from detrex.data.mappers import (
    DetrMapper,
    EvalMapper,
    KeepOriginal,
    LargeScaleJitterMapper,
    OneClickMapper,
    SemanticMapper,
    TileMapper,
    TrainingMapper,
    with_original,
)
from detrex.data.roots import dataset_root
from detrex.data.sa1b import SegmentAnythingFolder
from detrex.data.semantic_folder import SemanticFolder
from detrex.data.shapes import ensure_shapes, write_shapes_dataset
from detrex.data.transforms import (
    LargeScaleJitter,
    PadToSize,
    PhotometricDistortion,
    RandomScaleCrop,
    RandomShortestSide,
    RandomTile,
)

__all__ = [
    "CocoInstances",
    "CocoPanoptic",
    "DataError",
    "DetrMapper",
    "EvalMapper",
    "ImageDataset",
    "KeepOriginal",
    "LargeScaleJitter",
    "LargeScaleJitterMapper",
    "OneClickMapper",
    "PadToSize",
    "PhotometricDistortion",
    "RandomScaleCrop",
    "RandomShortestSide",
    "RandomTile",
    "Record",
    "SegmentAnythingFolder",
    "SemanticFolder",
    "SemanticMapper",
    "TestLoader",
    "TileMapper",
    "TrainLoader",
    "TrainingMapper",
    "build_test_loader",
    "build_train_loader",
    "category_file",
    "class_names",
    "count_classes",
    "dataset_root",
    "ensure_shapes",
    "read_categories",
    "read_words",
    "thing_classes",
    "with_original",
    "write_shapes_dataset",
]
