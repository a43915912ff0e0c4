"""The weights in a GGUF file, read by transformers (dequantised to float32)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from bytelm.errors import CheckpointError
from bytelm.exact.models.huggingface import import_transformers


def load_weights(path: Path) -> Any:
    """The transformers model of a GGUF file, float32; `CheckpointError` if it cannot be loaded."""
    transformers = import_transformers("loading a GGUF file")
    progress = logging.getLogger("transformers")
    level = progress.level
    progress.setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    try:
        return transformers.AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32, local_files_only=True
        )
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"transformers cannot load {path}: {error}") from error
    finally:
        progress.setLevel(level)
        transformers.utils.logging.enable_progress_bar()
