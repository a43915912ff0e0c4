"""What a Hugging Face model directory may hold, looked at before any library opens it.

A model directory comes from strangers. transformers can be made to run code from one (`auto_map`,
pickled weights, attention kernels fetched by name) or to read beside it (an adapter's base model,
an index of shards with paths), and what it does then depends on its defaults. So nothing is left to
defaults: everything of that kind is refused here, by name, and `pretrained.py` pins every option
that matters. Only JSON is parsed in this file, and safetensors headers are checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bytelm.damage import distinct_ids, id_count, malformed, one_line, read_object
from bytelm.errors import CheckpointError, DataError

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack")
_LARGEST_CONFIG = 4 << 20  # bytes; real ones are below 100 kB
_IMPLEMENTATIONS = ("attn_implementation", "experts_implementation")
INDEX = "model.safetensors.index.json"
Json = dict[str, Any]


def check_directory(folder: Path) -> tuple[Json, list[tuple[int, ...]]]:
    """The config.json of a directory that can be loaded without running or reading anything else,
    and the shapes of its weights.

    `CheckpointError` that names what stands in the way: no config.json or a damaged one, pickled
    weights, no weights, damaged ones or shards elsewhere, an adapter, quantised weights, kernels
    fetched by name, a model that exists only as code in the directory.
    """
    with malformed(folder, "a Hugging Face directory"):
        return _checked(folder)


def _checked(folder: Path) -> tuple[Json, list[tuple[int, ...]]]:
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} is no Hugging Face directory: it has no config.json")
    config = read_config(folder / "config.json")
    if (folder / "adapter_config.json").is_file():
        raise CheckpointError(
            f"{folder} holds an adapter (adapter_config.json), which names a base model outside "
            "it: merge the two and save the result, then load that"
        )
    _check_config(folder, config)
    shapes = [shape for path in _weight_files(folder) for shape in check_safetensors(path)]
    if (folder / "generation_config.json").is_file():
        read_config(folder / "generation_config.json")
    check_tokenizer(folder)
    return config, shapes


def check_tokenizer(folder: Path) -> None:
    """`CheckpointError` if a JSON file of the tokenizer is none, gives two tokens one id, or has an
    id that only damage makes: libraries make tables of as many ids as the largest says, and keep
    the last of two tokens."""
    for name, ids_of in _IDS.items():
        if (path := folder / name).is_file():
            settings = name in ("tokenizer_config.json", "special_tokens_map.json")
            found = read_config(path) if settings else read_object(path, "a tokenizer")
            with malformed(path, "a tokenizer"):
                try:
                    tables = ids_of(found)
                    id_count([i for table in tables for i in table.values()])
                    for table in tables:
                        distinct_ids(table)
                except DataError as error:
                    raise CheckpointError(f"{path} is damaged: {error}") from None


def _ids_of_definition(found: Json) -> list[Mapping[str, int]]:
    """The tokens of a tokenizer.json and their ids: of its vocabulary, and those added to it."""
    vocabulary = (found.get("model") or {}).get("vocab") or {}
    if not isinstance(vocabulary, dict):  # in a list, tokens may be equal: their numbers are not
        vocabulary = {str(i): i for i in range(len(vocabulary))}
    added = found.get("added_tokens") or ()
    return [vocabulary, {token["content"]: token["id"] for token in added}]


# files of a tokenizer, and the tables of ids in them
_IDS: dict[str, Callable[[Json], list[Mapping[str, int]]]] = {
    "tokenizer.json": _ids_of_definition,
    "vocab.json": lambda found: [found],
    "added_tokens.json": lambda found: [found],
    "tokenizer_config.json": lambda found: [
        {i: int(i) for i in found.get("added_tokens_decoder") or ()}
    ],
    "special_tokens_map.json": lambda found: [],
}


def read_config(path: Path) -> Json:
    """A JSON object; `CheckpointError` if the file holds anything else, or is beyond 4 MiB."""
    return read_object(path, "a configuration", largest=_LARGEST_CONFIG)


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


def check_safetensors(path: Path) -> list[tuple[int, ...]]:
    """The shapes of its tensors; `CheckpointError` if the file's header is damaged or promises more
    than the file holds."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return [tuple(file.get_slice(name).get_shape()) for name in file.keys()]
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is damaged or truncated ({one_line(str(error))}): copy it there again"
        ) from None
