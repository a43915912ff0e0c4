"""`from_pretrained` of transformers, with nothing left to its defaults.

The one file that opens models through another library. It never runs code from where the model
lies (`trust_remote_code=False`: left out, transformers asks on standard input), never unpickles
(`use_safetensors`), never reaches a network (`local_files_only`), and never fills gaps: a tensor
that is missing, of another shape, or in the file but not in the model is an error that names it.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bytelm.damage import reason
from bytelm.errors import BytelmError, CheckpointError, MissingExtraError
from bytelm.exact.gguf_header import check_gguf
from bytelm.exact.models.model_directory import check_directory, check_tokenizer, remote_code
from bytelm.model_bounds import bounded_by


def read_directory(path: str | Path, device: str | torch.device) -> tuple[Any, Any]:
    """The transformers model and tokenizer in a directory; `CheckpointError` if there are none, or
    they cannot be had whole and without running what the directory holds."""
    transformers = import_transformers("loading a Hugging Face directory")
    folder = Path(path)
    config, shapes = check_directory(folder)
    known = config["model_type"] in transformers.CONFIG_MAPPING
    if not known:
        file = remote_code(config)
        raise CheckpointError(
            f"{folder} is a {config['model_type']!r} model, which transformers "
            f"{transformers.__version__} does not know"
            + (f"; bytelm never runs code of a model directory ({file})" if file else "")
        )
    with _quiet(transformers), _named(folder), bounded_by(shapes, folder):
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            trust_remote_code=False,
            local_files_only=True,
            use_safetensors=True,
            weights_only=True,
            ignore_mismatched_sizes=True,  # reported, and refused below by name
            output_loading_info=True,
        )
    _check_whole(folder, info)
    return model.to(device), tokenizer


def read_tokenizer(path: str | Path) -> Any:
    """The transformers tokenizer in a directory, without its model; errors as `read_directory`."""
    transformers = import_transformers("loading a Hugging Face tokenizer")
    folder = Path(path)
    check_tokenizer(folder)
    with _quiet(transformers), _named(folder):
        return transformers.AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )


def read_gguf_model(path: Path) -> Any:
    """The transformers model of a GGUF file, dequantised to float32; `CheckpointError` if it cannot
    be loaded whole. Nothing beside the file is read."""
    transformers = import_transformers("loading a GGUF file")
    bounded = bounded_by(check_gguf(path), path)
    with tempfile.TemporaryDirectory() as alone, _quiet(transformers), _named(path), bounded:
        (Path(alone) / "model.gguf").symlink_to(path.resolve())
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            alone,
            gguf_file="model.gguf",
            dtype=torch.float32,
            trust_remote_code=False,
            local_files_only=True,
            weights_only=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        surplus = _gguf_surplus(path, model)
    _check_whole(path, {**info, "unexpected_keys": {*info["unexpected_keys"], *surplus}})
    return model


def import_transformers(purpose: str) -> Any:
    """The package transformers, or an error that names the extra."""
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError("transformers", "hf", purpose) from error
    return transformers


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """No progress bars and no warnings of transformers: what matters of them is an error here."""
    from transformers import modeling_gguf_pytorch_utils as gguf_utils

    log = logging.getLogger("transformers")
    level, bar = log.level, gguf_utils.tqdm
    shown = transformers.utils.logging.is_progress_bar_enabled()
    log.setLevel(logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    gguf_utils.tqdm = partial(bar, disable=True)
    try:
        yield
    finally:
        gguf_utils.tqdm = bar
        log.setLevel(level)
        if shown:
            transformers.utils.logging.enable_progress_bar()


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Whatever transformers, safetensors or gguf raise over a file, as a `CheckpointError`."""
    try:
        yield
    except BytelmError:
        raise
    except BaseException as error:  # damaged files make them raise nearly every type
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if "trust_remote_code" in str(error):
            raise CheckpointError(
                f"{path} wants code of its own to be run, and bytelm never runs code of a model "
                "directory: save the model with classes of transformers"
            ) from error
        raise CheckpointError(f"transformers cannot load {path}: {reason(error)}") from error


def _check_whole(path: Path, info: dict[str, Any]) -> None:
    """`CheckpointError` unless every tensor of the model came from the file, and none is left."""
    wrong = [
        f"{name} has shape {tuple(found)} instead of {tuple(wanted)}"
        for name, found, wanted in sorted(info["mismatched_keys"])
    ]
    missing, surplus = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    faults = [
        f"{len(names)} {what}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
        for names, what in (
            (missing, "missing"),
            (wrong, "of another shape"),
            (surplus, "that the model has no place for"),
        )
        if names
    ]
    if faults:
        raise CheckpointError(
            f"the weights in {path} do not fit its configuration; tensors {'; '.join(faults)}"
        )


def _gguf_surplus(path: Path, model: Any) -> list[str]:
    """Tensors of the file that transformers passes over. Experts go by names of their own."""
    from gguf import GGUFReader
    from transformers import modeling_gguf_pytorch_utils as gguf_utils

    reader = GGUFReader(path)
    places = gguf_utils.get_gguf_hf_weights_map(model, gguf_utils.TensorProcessor(config={}))
    names = (tensor.name for tensor in reader.tensors)
    return [name for name in names if name not in places and not _has_own_place(name)]


def _has_own_place(name: str) -> bool:
    return "_exps." in name or ".ssm_" in name
