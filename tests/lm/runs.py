"""Run directories made by hand: what training leaves behind, without training."""

import json
from pathlib import Path

from safetensors.torch import save_file

from bytelm.lm.classifier import Classifier
from bytelm.lm.native import NativeLM
from bytelm.lm.seq2seq import Seq2SeqLM
from bytelm.lm.subword import SubwordLM


def save_run(
    lm: NativeLM | Seq2SeqLM | SubwordLM | Classifier,
    folder: Path,
    *,
    arch: str,
    objective: str = "causal",
) -> Path:
    """Write the model of `lm` as a run directory in fp32, trained with contexts of 64 bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    description = {
        "arch": arch,
        "family": lm.model.family,
        "config": lm.model.config.model_dump(mode="json"),
        "vocabulary": lm.model.vocab.to_dict(),
        "context_bytes": 64,
        "objective": objective,
    }
    if isinstance(lm, Classifier):
        description["labels"] = list(lm.labels)
    (folder / "config.json").write_text(json.dumps(description))
    if isinstance(lm, SubwordLM):
        lm.bpe.save(folder)
    save_file(lm.model.float().state_dict(), folder / "model.safetensors")
    return folder
