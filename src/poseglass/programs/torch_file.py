"""Opens an exported ``.pt2`` file: a graph of ``torch.export``, run by PyTorch."""

import zipfile
from pathlib import Path

import torch

from poseglass.programs.exported import quiet, torch_run
from poseglass.programs.graph_card import CARD_KEY, DETECTOR_KEY, DIGEST_KEY, GRAPH_KEY, GraphCard
from poseglass.programs.graph_program import GraphFile


def open_torch(path: str | Path, *, device: str = "cpu", trust_code: bool = False) -> GraphFile:
    """Open a ``.pt2`` file that poseglass exported.

    Args:
        path: The file.
        device: The device to run on; a graph runs where it was traced, so only "cpu".
        trust_code: PyTorch evaluates expressions and may unpickle objects in such a file, so a stranger's file can run
            code when it is opened. True says that you trust it.

    Raises:
        ValueError: ``trust_code`` is not set; not such a file, truncated, or without a card that fits; or a device
            other than the CPU.
    """
    if not trust_code:
        raise ValueError(
            f"{path} is a program of torch.export. Opening one can run code that is in it: PyTorch evaluates its "
            "expressions. If it is yours, or you trust it, open it in Python with trust_code=True. Files exported with "
            "--to onnx or openvino contain no code."
        )
    if torch.device(device).type != "cpu":
        raise ValueError(
            f"{path} runs on the CPU, for which it was exported, not on {device!r}. Load the weights that it was made "
            "from for another device."
        )
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path} is not a .pt2 file, or it is truncated: it cannot be unpacked. Export or copy it again."
        )
    texts = {name: "" for name in (CARD_KEY, DETECTOR_KEY, GRAPH_KEY, DIGEST_KEY)}
    try:
        with quiet():
            program = torch.export.load(path, extra_files=texts)
    except Exception as error:  # whatever a damaged archive makes PyTorch raise
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path} cannot be opened by PyTorch {torch.__version__}: {first}") from error
    try:
        card = GraphCard.from_metadata({name: _text(value) for name, value in texts.items() if value})
    except ValueError as error:
        raise ValueError(f"{path} {error}") from error
    return GraphFile(card, torch_run(program, card.inputs, card.outputs), f"PyTorch {torch.__version__}")


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
