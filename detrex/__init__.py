"""DETR-style detection and segmentation: shared layers, plain-Python configs, one training tool."""

__version__ = "0.1.0"
