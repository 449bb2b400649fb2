from detrex.data.shapes import ensure_shapes, write_shapes_dataset

__all__ = ["ensure_shapes", "write_shapes_dataset"]
