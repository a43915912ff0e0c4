"""Hugging Face causal language models as `TokenLM`s.

Models with attention alone go through the tree cache of `tree_attention.py`: any number of new rows
of any number of texts in one forward pass. At construction the model's own forward is compared with
ours on a few tokens, once, so that a model which ignores positions or our attention is an error and
never a wrong number. Models with a recurrent state (`recurrent.py`) are recognised by what they
keep for decoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bytelm.errors import BytelmError, CheckpointError
from bytelm.exact.models.attention_check import check, name_of
from bytelm.exact.models.recurrent import RecurrentLM, recurrent_state
from bytelm.exact.models.tree_attention import Group, tree_attention_in
from bytelm.exact.models.tree_lm import TreeLM, depths
from bytelm.exact.tokenizers.tables import TokenizerTables


class HuggingFaceLM(TreeLM):
    """A transformers causal LM with attention as a `TreeTokenLM`.

    `BytelmError` if its attention does not come through the interface of transformers.
    """

    def __init__(
        self,
        model: Any,
        vocab_bytes: Sequence[bytes | None],
        *,
        eos_ids: set[int],
        start_ids: Sequence[int],
    ):
        self.model = model.eval()
        super().__init__(
            padded_vocabulary(model, vocab_bytes, start_ids),
            eos_ids=eos_ids,
            start_ids=start_ids,
            device=model.device,
            limit=_context(model),
        )
        self._check()

    @torch.inference_mode()
    def forward(self, ids: list[int], groups: list[Group]) -> Tensor:
        device = self.model.device
        with tree_attention_in(self.model, groups):
            logits = self.model(
                input_ids=torch.tensor([ids], device=device),
                position_ids=torch.tensor([depths(groups)], device=device),
                # nothing is padding; left out, positions that jump are taken for packed texts
                attention_mask=torch.ones(1, len(ids), dtype=torch.long, device=device),
                use_cache=False,
            ).logits[0]
        return (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(-1)

    def _check(self) -> None:
        """Compare with the model's own forward, and keep texts where the two agree."""
        found = check(self.model, self)
        if found is not None and (self.limit is None or found.tokens < self.limit):
            self.limit, self.limit_reason = found.tokens, f"exact up to here for {found.reason}"
        self.rows_evaluated = 0


def _context(model: Any) -> int | None:
    """How many positions the model has; None if its configuration sets no limit."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return positions if isinstance(positions, int) and positions > 0 else None


def token_lm(
    model: Any,
    vocab_bytes: Sequence[bytes | None],
    *,
    eos_ids: set[int],
    start_ids: Sequence[int],
) -> HuggingFaceLM | RecurrentLM:
    """The transformers causal LM as a `TokenLM`: with a tree of keys and values, or by its state.

    vocab_bytes may be shorter than the model's output: the ids beyond are padding, never bytes.
    Raises `CheckpointError` if it is longer, and `BytelmError` for a model that cannot be read.
    """
    padded = padded_vocabulary(model, vocab_bytes, start_ids)
    try:
        name = recurrent_state(model.eval())
        if name is None:
            return HuggingFaceLM(model, padded, eos_ids=eos_ids, start_ids=start_ids)
        return RecurrentLM(model, name, padded, eos_ids=eos_ids, start_ids=start_ids)
    except BytelmError:
        raise
    except Exception as error:  # models that expect something else fail in every way
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BytelmError(
            f"{name_of(model)} cannot be read token by token along a tree of texts ({reason}); "
            "wrap it in your own TokenLM"
        ) from error


def padded_vocabulary(
    model: Any, vocab_bytes: Sequence[bytes | None], start_ids: Sequence[int]
) -> list[bytes | None]:
    """(V) one entry per output of the model, None for those beyond `vocab_bytes`.

    `CheckpointError` if there are more tokens than outputs, `BytelmError` if `start_ids` is empty.
    """
    size = output_size(model)
    if len(vocab_bytes) > size:
        raise CheckpointError(
            f"the tokenizer has {len(vocab_bytes)} tokens but the model predicts {size}: "
            "these files do not belong together"
        )
    if not start_ids:
        raise BytelmError(
            "the model has neither a BOS token nor a document separator, so the probability "
            "of a text's first token is undefined: give the ids that stand before every text, with "
            "start=[id, ...], or on the command line --start ID,..."
        )
    return [*vocab_bytes, *[None] * (size - len(vocab_bytes))]


def output_size(model: Any) -> int:
    """How many ids a transformers causal LM predicts."""
    return int(model.get_output_embeddings().weight.shape[0])


def hugging_face_lm(
    model: Any, tables: TokenizerTables, start: Sequence[int] | None
) -> HuggingFaceLM | RecurrentLM:
    """The transformers causal LM whose tokenizer has these tables as a `TokenLM`.

    start: ids that stand before every text; default: the tokenizer's BOS or document separator.
    """
    return token_lm(
        model,
        tables.vocab_bytes,
        eos_ids=_eos_ids(model, tables),
        start_ids=tables.start_ids if start is None else start,
    )


def is_hugging_face(model: Any) -> bool:
    """Whether the model is a transformers one, without importing transformers to find out."""
    return any(kind.__module__.startswith("transformers.") for kind in type(model).__mro__)


def _eos_ids(model: Any, tables: TokenizerTables) -> set[int]:
    """What ends a text by the tokenizer, the model's configuration and the one for generation, as
    far as they are special tokens: chat models list the end of a turn in the last alone."""
    listed: set[int] = set()
    for config in (model.config, model.generation_config):
        named = getattr(config, "eos_token_id", None)
        listed |= {named} if isinstance(named, int) else set(named or ())
    special = {i for i, data in enumerate(tables.vocab_bytes) if data is None}
    return (tables.eos_ids | listed) & special
