"""Pictures of predictions and ground truth: masks, boxes and labels over images, and grids of such pictures.

All functions return new RGB :class:`PIL.Image.Image` objects. An image may be a (3, H, W) tensor (uint8, or
float in 0..255), an (H, W, 3) uint8 array or a PIL image. If results are at another size than the image, the
image is resized to theirs. Small images are enlarged by a whole factor before drawing, until their longer
side has ``min_size`` pixels, so that outlines and labels are legible.

Outlines have two tones, the object's colour and black or white, one of which is visible on any background.
Text has a contrast of at least 4.5 (WCAG 2). Labels do not overlap, and one that would hide other objects is
left out.
"""

from detrex.visualization.drawing import draw_instances, draw_panoptic, draw_semantic, draw_targets
from detrex.visualization.grid import image_grid
from detrex.visualization.pictures import Picture

__all__ = ["Picture", "draw_instances", "draw_panoptic", "draw_semantic", "draw_targets", "image_grid"]
