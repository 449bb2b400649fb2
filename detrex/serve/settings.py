"""The limits of a server."""

from __future__ import annotations

from dataclasses import dataclass

MEBIBYTE = 2**20


@dataclass(frozen=True)
class ServerSettings:
    """Limits of a server, and settings of batches.

    Attributes:
        max_batch: largest number of images that go through the model together; 1: one by one.
        batch_wait: seconds that the first image of a batch waits for others.
        queue_size: largest number of images that may wait; further requests get status 429.
        timeout: seconds for one request; after that, status 504.
        max_body: largest number of bytes in a request; larger ones get status 413.
        max_images: largest number in one request.
        max_pixels: of an image, height times width; larger ones get status 413 before they are decoded.
    """

    max_batch: int = 8
    batch_wait: float = 0.005
    queue_size: int = 64
    timeout: float = 60.0
    max_body: int = 32 * MEBIBYTE
    max_images: int = 16
    max_pixels: int = 50_000_000

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: a setting is out of its range.
        """
        for name in ("max_batch", "queue_size", "max_body", "max_images", "max_pixels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected at least 1")
        if not 0 <= self.batch_wait <= 10:  # noqa: PLR2004
            raise ValueError(f"batch_wait={self.batch_wait}: expected seconds from 0 to 10")
        if not self.timeout > 0:
            raise ValueError(f"timeout={self.timeout}: expected seconds above 0")
