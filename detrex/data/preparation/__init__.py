"""Makes the files that data sets of papers need in addition to the distributed ones."""

from detrex.data.preparation.ade20k import prepare_ade20k
from detrex.data.preparation.cityscapes import prepare_cityscapes

__all__ = ["prepare_ade20k", "prepare_cityscapes"]
