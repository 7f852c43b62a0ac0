"""The training curve as TensorBoard event files, in addition to the CSV."""

from pathlib import Path

EXTRA = "pip install 'poseglass[tensorboard]'"


class Board:
    """Writes event files into ``tensorboard`` in the run folder.

    Args:
        folder: The run folder.
        start_step: Step at which a resumed run continues; later entries of an earlier process are discarded.

    Raises:
        RuntimeError: TensorBoard is not installed; the message gives the command.
    """

    def __init__(self, folder: Path, *, start_step: int = 0) -> None:
        check_installed()
        from torch.utils.tensorboard import SummaryWriter

        purge = start_step + 1 if start_step else None
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=purge)

    def write(self, values: dict[str, float], step: int, *, flush: bool = False) -> None:
        """Write results at a step."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        if flush:
            self.writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self.writer.close()


def check_installed() -> None:
    """Raise unless TensorBoard can be imported.

    Raises:
        RuntimeError: It cannot; the message gives the command that installs it.
    """
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        raise RuntimeError(
            f"TensorBoard logs need an extra that is not installed: {EXTRA}. "
            "Without --tensorboard the curve is in curve.csv."
        ) from None
