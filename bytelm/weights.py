"""Reading the weights that others stored: safetensors, shards of it, or a pickle of tensors alone.

Nothing here runs code from a file: pickles are read with torch's restricted unpickler.
"""

from pathlib import Path

import torch
from torch import Tensor

from bytelm.damage import malformed, one_line, read_object
from bytelm.errors import CheckpointError

_WHOLE = ("model.safetensors", "pytorch_model.bin")


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, of a pickle that holds tensors and nothing else, or of a
    folder with such a file under the name transformers gives it, in one piece or in shards."""
    path = Path(path)
    if path.is_dir():
        return _load_folder(path)
    if not path.is_file():
        raise CheckpointError(f"there is no weight file at {path}")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        with malformed(path, "a safetensors file"):
            return load_file(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle errors are of every type
        raise CheckpointError(
            f"{path} is not a plain pickle of tensors, and bytelm executes no code from weight "
            "files. Re-save its state dict as .safetensors where you trust the file. "
            f"({type(error).__name__}: {one_line(str(error))})"
        ) from None
    if not isinstance(loaded, dict) or not all(isinstance(t, Tensor) for t in loaded.values()):
        raise CheckpointError(f"{path} does not hold a state dict of tensors")
    return loaded


def _load_folder(folder: Path) -> dict[str, Tensor]:
    for name in _WHOLE:
        if (folder / name).is_file():
            return load_weights(folder / name)
        index = folder / f"{name}.index.json"
        if index.is_file():
            with malformed(index, "an index of weight files"):
                shards = sorted(set(read_object(index, "an index")["weight_map"].values()))
                if any(Path(shard).name != shard for shard in shards):
                    raise ValueError("a shard is not in the same folder")
            return {n: t for shard in shards for n, t in load_weights(folder / shard).items()}
    raise CheckpointError(f"{folder} holds no weights: there is neither of {', '.join(_WHOLE)}")
