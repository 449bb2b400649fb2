"""Reading that is tried again."""

import pytest

from detrex.runtime.files import retried


class Storage:
    """Fails with ``error`` so many times."""

    def __init__(self, error: OSError, times: int):
        self.error, self.times, self.asked = error, times, 0

    def read(self) -> str:
        self.asked += 1
        if self.asked <= self.times:
            raise self.error
        return "content"


def test_errors_of_the_storage_are_tried_again_a_few_times(caplog):
    storage = Storage(OSError(5, "Input/output error"), 2)
    assert retried(storage.read, (0, 0)) == "content" and caplog.text.count("is tried again") == 2
    storage = Storage(OSError(116, "Stale file handle"), 9)
    with pytest.raises(OSError, match="Stale"):
        retried(storage.read, (0, 0))
    assert storage.asked == 3


@pytest.mark.parametrize(
    "error", [FileNotFoundError(2, "no"), PermissionError(13, "no"), OSError("no image")]
)
def test_what_another_try_does_not_help_is_raised_at_once(error):
    storage = Storage(error, 1)
    with pytest.raises(OSError, match="no"):
        retried(storage.read, (9, 9))
    assert storage.asked == 1
