"""What a Hugging Face model directory may hold, looked at before any library opens it.

A model directory comes from strangers. transformers can be made to run code from one (`auto_map`,
pickled weights, attention kernels fetched by name) or to read beside it (an adapter's base model,
an index of shards with paths), and what it does then depends on its defaults. So nothing is left to
defaults: everything of that kind is refused here, by name, and `pretrained.py` pins every option
that matters. Only JSON is parsed in this file, and safetensors headers are checked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bytelm.errors import CheckpointError

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack")
_LARGEST_CONFIG = 4 << 20  # bytes; real ones are below 100 kB
_IMPLEMENTATIONS = ("attn_implementation", "experts_implementation")
INDEX = "model.safetensors.index.json"
Json = dict[str, Any]


def check_directory(folder: Path) -> Json:
    """The config.json of a directory that can be loaded without running or reading anything else.

    `CheckpointError` that names what stands in the way: no config.json or a damaged one, pickled
    weights, no weights, damaged ones or shards elsewhere, an adapter, quantised weights, kernels
    fetched by name, a model that exists only as code in the directory.
    """
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} is no Hugging Face directory: it has no config.json")
    config = read_config(folder / "config.json")
    if (folder / "adapter_config.json").is_file():
        raise CheckpointError(
            f"{folder} holds an adapter (adapter_config.json), which names a base model outside "
            "it: merge the two and save the result, then load that"
        )
    _check_config(folder, config)
    for path in _weight_files(folder):
        check_safetensors(path)
    for name in ("tokenizer_config.json", "generation_config.json"):
        if (folder / name).is_file():
            read_config(folder / name)
    return config


def read_config(path: Path) -> Json:
    """A JSON object; `CheckpointError` if the file holds anything else, or is beyond 4 MiB."""
    size = path.stat().st_size
    if size > _LARGEST_CONFIG:
        raise CheckpointError(
            f"{path} has {size:,} bytes; a configuration has at most {_LARGEST_CONFIG:,}"
        )
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a {type(value).__name__}, not a JSON object")
    return value


def remote_code(config: Json) -> str | None:
    """The file of Python that a configuration asks for (`auto_map`), or None."""
    named = config.get("auto_map")
    if not named:
        return None
    first = next(iter(named.values())) if isinstance(named, dict) else named
    if isinstance(first, (list, tuple)):
        first = next((name for name in first if name), "")
    return f"{str(first).rpartition('.')[0] or first}.py"


def _check_config(folder: Path, config: Json) -> None:
    kind = config.get("model_type")
    if not isinstance(kind, str):
        raise CheckpointError(f"{folder}/config.json has no model_type, so its model is unknown")
    if config.get("quantization_config"):
        raise CheckpointError(
            f"{folder} holds quantised weights (quantization_config), whose loaders fetch code of "
            "their own: save it dequantised, or load it yourself and give it to bytelm.convert"
        )
    for key, value in _entries(config):
        if key.strip("_").removesuffix("_internal") in _IMPLEMENTATIONS and "/" in str(value):
            raise CheckpointError(
                f"{folder}/config.json asks for a kernel fetched by name ({key}: {value!r}), and "
                "bytelm runs no code that a model names: remove that line"
            )


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key of nested objects, with its value."""
    open_ = [value]
    while open_:
        current = open_.pop()
        if isinstance(current, dict):
            yield from current.items()
            open_ += current.values()
        elif isinstance(current, list):
            open_ += current


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors files, all of them in the directory itself."""
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    if (folder / INDEX).is_file():
        shards = read_index(folder / INDEX)
        missing = [name for name in shards if not (folder / name).is_file()]
        if missing:
            raise CheckpointError(f"{folder} lacks {', '.join(missing)}, which {INDEX} names")
        return [folder / name for name in shards]
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
    if pickled:
        raise CheckpointError(
            f"{folder} holds its weights as {', '.join(pickled[:3])}; opening such files can run "
            "code, so bytelm reads safetensors only: convert it where you trust it "
            "(model.save_pretrained(DIR))"
        )
    raise CheckpointError(f"{folder} holds no weights: model.safetensors is missing")


def read_index(path: Path) -> list[str]:
    """The files that an index of shards names; `CheckpointError` if one is not a plain name."""
    named = read_config(path).get("weight_map")
    if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
        raise CheckpointError(f"{path} has no weight_map from tensors to files")
    names = sorted(set(named.values()))
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise CheckpointError(
                f"{path} names {name!r}: shards are .safetensors files of the same directory"
            )
    return names


def check_safetensors(path: Path) -> None:
    """`CheckpointError` if the file's header is damaged or promises more than the file holds."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            file.keys()
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is damaged or truncated ({error}): copy it there again"
        ) from None
