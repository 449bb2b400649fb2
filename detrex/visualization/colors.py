"""Distinguishable colours: contrast as defined by WCAG 2, and shades for instances of a class."""

from __future__ import annotations

from detrex.structures import Categories, distinct_colors

Color = tuple[int, int, int]  # RGB in 0..255

WHITE: Color = (255, 255, 255)
BLACK: Color = (0, 0, 0)
# Instances of a class have the class's colour, mixed with these shares of white or black.
_SHADES = ((WHITE, 0.0), (WHITE, 0.45), (BLACK, 0.35), (WHITE, 0.25), (BLACK, 0.18))


def luminance(color: Color) -> float:
    """Relative luminance in [0, 1] of an sRGB colour (https://www.w3.org/TR/WCAG21/#dfn-relative-luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in color)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: Color, second: Color) -> float:
    """Ratio from 1 (the same brightness) to 21 (black and white); text needs 4.5, lines 3."""
    darker, brighter = sorted((luminance(first), luminance(second)))
    return (brighter + 0.05) / (darker + 0.05)


def contrasting(color: Color) -> Color:
    """Black or white, whichever has more contrast with ``color``, at least 4.58."""
    return max(WHITE, BLACK, key=lambda c: contrast(c, color))


def instance_color(categories: Categories, k: int, number: int) -> Color:
    """The colour of instance ``number`` of class ``k``, a shade of the class's; any if there is one class."""
    if len(categories) == 1:
        return distinct_colors(number + 1)[-1]
    other, share = _SHADES[number % len(_SHADES)]
    mixed = (round((1 - share) * c + share * o) for c, o in zip(categories.colors[k], other, strict=True))
    red, green, blue = mixed
    return red, green, blue
