"""Annotations in the formats of labelling tools, read in the form of COCO files.

One module for each format; :func:`recognise` tells which one a path is of.
"""

from detrex.data.formats.collected import NOTES
from detrex.data.formats.recognise import Format, members_of, open_unpacked, recognise

__all__ = ["NOTES", "Format", "members_of", "open_unpacked", "recognise"]
