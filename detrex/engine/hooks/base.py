"""What a hook is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detrex.engine.trainer import Trainer


class Hook:
    """Called by the trainer on every process; a subclass fills in what it needs."""

    def before_train(self, trainer: Trainer) -> None:
        """Before the first step; a resumed trainer has its state already."""

    def before_step(self, trainer: Trainer) -> None:
        """Before every step; ``trainer.iteration`` steps are done."""

    def after_step(self, trainer: Trainer) -> None:
        """After every step, which ``trainer.iteration`` counts already."""

    def after_train(self, trainer: Trainer) -> None:
        """After the last step."""

    def close(self) -> None:
        """At the very end, after an error too."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs: tensors and plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`state_dict` returned."""
