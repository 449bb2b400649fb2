"""Reads annotations in the formats of labelling tools, in the form of COCO files.

There is one module for each format; :func:`recognise` tells the format of a path.
"""

from detrex.data.formats.collected import NOTES
from detrex.data.formats.recognise import Format, members_of, open_unpacked, recognise

__all__ = ["NOTES", "Format", "members_of", "open_unpacked", "recognise"]
