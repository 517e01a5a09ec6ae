"""What a model directory's weight files hold, read from their headers alone."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from align.errors import ModelError
from align.lfs import FETCH, POINTER, is_pointer

_ONE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "consolidated.00.pth")
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model directory.

    Raises:
        ModelError: there are none, the index is unreadable, or it names a file that is not there.
    """
    if (folder / _ONE).is_file():
        return [folder / _ONE]
    index = folder / _INDEX
    if index.is_file():
        files = [folder / name for name in sorted(set(_index(index).values()))]
        absent = [file.name for file in files if not file.is_file()]
        if absent:
            raise ModelError(
                f"{len(absent)} of the {len(files)} weight files that it names are missing, the first is "
                f"{absent[0]}",
                file=index,
                remedy="fetch or copy the model again",
            )
        return files
    raise _without_weights(folder)


def stored_tensors(folder: Path) -> dict[str, Tensor]:
    """Names, shapes and types of all stored tensors, on the meta device; no weight is read.

    Raises:
        ModelError: as :func:`weight_files`; a file is cut off or no safetensors file, its tensors are not
            those that the index says, it holds quantised weights, or an expert is missing between others.
    """
    found: dict[str, Tensor] = {}
    for file in weight_files(folder):
        found |= _header(file)
    if not found:
        raise ModelError("its weight files are empty", file=folder, remedy="fetch or copy the model again")
    index = folder / _INDEX
    if not (folder / _ONE).is_file():
        astray = sorted(_index(index).keys() - found.keys())
        if astray:
            raise ModelError(
                f"{len(astray)} tensors that it names are in none of the files, the first is {astray[0]}",
                file=index,
                remedy="fetch or copy the model again",
            )
    _numbered(found, folder)
    return found


def _numbered(found: Iterable[str], folder: Path) -> None:
    """Experts are stacked in the order of their numbers: a gap would give each the next one's place."""
    numbers: dict[str, list[int]] = defaultdict(list)
    for name in found:
        if number := re.search(r"\.experts\.(\d+)\.", name):
            numbers[name[: number.start(1)] + "N" + name[number.end(1) :]].append(int(number[1]))
    for name, each in numbers.items():
        if sorted(each) != list(range(len(each))):
            raise ModelError(
                f"experts are missing from the files: {name} is there for N = {sorted(each)}",
                file=folder,
                remedy="fetch or copy the model again",
            )


def read_tensor(folder: Path, name: str) -> Tensor:
    """One stored tensor, in main memory.

    Raises:
        KeyError: no file holds it.
    """
    for file in weight_files(folder):
        with safe_open(file, framework="pt") as stored:
            if name in stored.keys():  # noqa: SIM118
                return stored.get_tensor(name)
    raise KeyError(name)


def _index(file: Path) -> dict[str, str]:
    try:
        places = json.loads(file.read_text(encoding="utf-8"))["weight_map"]
    except (ValueError, KeyError, TypeError) as error:
        places = error
    if isinstance(places, dict) and all(isinstance(name, str) for name in places.values()):
        return places
    raise ModelError(
        "this index of weight files is unreadable: it has no weight_map from tensors to files",
        file=file,
        remedy="fetch or copy the model again",
    )


def _header(file: Path) -> dict[str, Tensor]:
    found = {}
    if is_pointer(file):
        raise ModelError(POINTER, file=file, remedy=FETCH)
    try:
        with safe_open(file, framework="pt") as stored:
            for name in stored.keys():  # noqa: SIM118  it is no dictionary
                view = stored.get_slice(name)
                dtype = _DTYPES.get(view.get_dtype())
                if dtype is None and view.get_dtype().startswith(("F", "U8", "I8")):
                    raise ModelError(
                        f"{name} is stored as {view.get_dtype()}: these weights are quantised",
                        file=file,
                        remedy="name the directory of the weights in bfloat16 or float32",
                    )
                found[name] = torch.empty(view.get_shape(), dtype=dtype or torch.int64, device="meta")
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"this weight file is damaged: {error}", file=file, remedy="fetch or copy it again"
        ) from error
    return found


def _without_weights(folder: Path) -> ModelError:
    held = [name for name in _PICKLED if (folder / name).is_file()]
    if held:
        return ModelError(
            f"its weights are only there as a Python pickle ({held[0]}), which can run any code",
            file=folder,
            remedy="convert them with safetensors.torch.save_file to model.safetensors",
        )
    if (folder / "adapter_config.json").is_file():
        return ModelError(
            "this directory holds an adapter, not a whole model",
            file=folder,
            remedy="merge it into its base model with `align export`",
        )
    loose = sorted(file.name for file in folder.glob("*.safetensors"))
    if loose:
        return ModelError(
            f"there are weight files ({loose[0]}), but no index that says what belongs to the model",
            file=folder,
            remedy=f"fetch {_INDEX} too, or name the one file {_ONE}",
        )
    return ModelError(
        "this directory holds no weights (model.safetensors)",
        file=folder,
        remedy="copy the weights there, or set policy.init to random",
    )
