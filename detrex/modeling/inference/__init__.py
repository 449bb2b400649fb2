"""Ways to look at an image more than once: windows over it, views of other sizes, tiles of a large one.

One of them is ``model.inference`` of a config; evaluation and prediction then use it.
"""

from detrex.modeling.inference.augmentation import TestTimeAugmentation
from detrex.modeling.inference.strategy import Detect, Inference
from detrex.modeling.inference.tiles import Tiles
from detrex.modeling.inference.windows import SlidingWindow

__all__ = ["Detect", "Inference", "SlidingWindow", "TestTimeAugmentation", "Tiles"]
