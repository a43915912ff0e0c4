"""Hugging Face causal language models as `TokenLM`s, and `load_hf`.

Transformers with attention go through the tree cache of `tree_attention.py`: any number of new rows
of any number of texts in one forward pass. At construction the model's own forward is compared with
ours on a few tokens, once, so that a model which ignores positions or our attention is an error and
never a wrong number.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bytelm.errors import BytelmError, CheckpointError, MissingExtraError
from bytelm.exact.token_lm import Earlier, Row
from bytelm.exact.tree_attention import Group, TreeCache, TreeNode, tree_attention_in

if TYPE_CHECKING:
    from bytelm.exact.converter import ByteConverter, Mode
    from bytelm.exact.encoders import Encoder

_ROWS_A_FORWARD = 512


class HuggingFaceLM:
    """A transformers causal LM with attention as a `TreeTokenLM`.

    vocab_bytes may be shorter than the model's output: the ids beyond are padding, never bytes.
    `rows_evaluated` counts token rows through the model.
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
        size = model.get_output_embeddings().weight.shape[0]
        if len(vocab_bytes) > size:
            raise CheckpointError(
                f"the tokenizer has {len(vocab_bytes)} tokens but the model predicts {size}: "
                "these files do not belong together"
            )
        if not start_ids:
            raise BytelmError(
                "the model has neither a BOS token nor a document separator, so the probability "
                "of a text's first token is undefined: give start=[id, ...]"
            )
        self.vocab_bytes = [*vocab_bytes, *[None] * (size - len(vocab_bytes))]
        self.eos_ids = eos_ids
        self.start_ids = list(start_ids)
        self.limit = getattr(model.config, "max_position_embeddings", None)
        self.rows_evaluated = 0
        self._check()

    def open(self) -> TreeCache:
        return TreeCache()

    def root(self, cache: TreeCache) -> tuple[TreeNode, Tensor]:
        rows: list[Row] = [(TreeNode(np.zeros(0, np.int32)), self.start_ids[0])]
        rows += [(Earlier(i), token) for i, token in enumerate(self.start_ids[1:])]
        ((nodes, logprobs),) = self.extend_trees([(cache, rows)])
        return nodes[-1], logprobs[-1]

    def extend(
        self, cache: TreeCache, rows: list[tuple[TreeNode, int]]
    ) -> tuple[list[TreeNode], Tensor]:
        ((nodes, logprobs),) = self.extend_trees([(cache, list(rows))])
        return nodes, logprobs

    def release(self, cache: TreeCache, nodes: list[TreeNode]) -> None:
        cache.give_back(nodes)

    def extend_trees(
        self, requests: list[tuple[TreeCache, list[Row]]]
    ) -> list[tuple[list[TreeNode], Tensor]]:
        planned = [(cache, rows, self._plan(cache, rows)) for cache, rows in requests]
        pieces: list[list[Tensor]] = [[] for _ in planned]
        for batch in self._batches([len(rows) for _, rows in requests]):
            groups, ids, start = [], [], 0
            for i, low, high in batch:
                cache, rows, nodes = planned[i]
                groups.append(Group.of(cache, nodes[low:high], start, self.model.device))
                ids += [token for _, token in rows[low:high]]
                start += high - low
            logprobs = self._forward(ids, groups)
            for (i, _, _), group in zip(batch, groups, strict=True):
                pieces[i].append(logprobs[group.start : group.stop])
        return [
            (nodes, torch.cat(parts)) for (_, _, nodes), parts in zip(planned, pieces, strict=True)
        ]

    @staticmethod
    def _batches(sizes: list[int]) -> list[list[tuple[int, int, int]]]:
        """(request, low, high) spans, in order, in batches of at most `_ROWS_A_FORWARD` rows."""
        batches: list[list[tuple[int, int, int]]] = [[]]
        room = _ROWS_A_FORWARD
        for i, size in enumerate(sizes):
            low = 0
            while low < size:
                if not room:
                    batches.append([])
                    room = _ROWS_A_FORWARD
                high = min(size, low + room)
                batches[-1].append((i, low, high))
                room -= high - low
                low = high
        return batches

    def _plan(self, cache: TreeCache, rows: list[Row]) -> list[TreeNode]:
        """Nodes with slots for the new rows."""
        nodes: list[TreeNode] = []
        for (parent, _), slot in zip(rows, cache.take(len(rows)), strict=True):
            before = nodes[parent.row] if isinstance(parent, Earlier) else parent
            nodes.append(TreeNode(np.append(before.path, np.int32(slot))))
        longest = max(len(node.path) for node in nodes)
        if self.limit is not None and longest > self.limit:
            cache.give_back(nodes)
            raise BytelmError(
                f"the text needs {longest} tokens with its start tokens, but the model's context "
                f"is {self.limit}: give a shorter context or score the text in windows"
            )
        return nodes

    @torch.inference_mode()
    def _forward(self, ids: list[int], groups: list[Group]) -> Tensor:
        """(R, V) log-probabilities after each row."""
        depths = [len(node.path) - 1 for group in groups for node in group.nodes]
        device = self.model.device
        with tree_attention_in(self.model, groups):
            logits = self.model(
                input_ids=torch.tensor([ids], device=device),
                position_ids=torch.tensor([depths], device=device),
                use_cache=False,
            ).logits[0]
        self.rows_evaluated += len(ids)
        return (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(-1)

    @torch.inference_mode()
    def _check(self) -> None:
        """Compare with the model's own forward on a forked tree; an error if they differ."""
        ordinary = [i for i, data in enumerate(self.vocab_bytes) if data is not None][:3]
        a, b, c = (ordinary * 3)[:3]
        cache = self.open()
        root, _ = self.root(cache)
        rows: list[Row] = [(root, a), (root, c), (Earlier(0), b), (Earlier(1), b)]
        ((_, ours),) = self.extend_trees([(cache, rows)])
        ids = torch.tensor([[*self.start_ids, a, b], [*self.start_ids, c, b]])
        logits = self.model(input_ids=ids.to(self.model.device), use_cache=False).logits
        theirs = logits[:, -1].float().log_softmax(-1)
        self.rows_evaluated = 0
        difference = float((ours[2:] - theirs).abs().max())
        tolerance = 1e-3 if self.model.dtype in (torch.float32, torch.float64) else 0.3
        if not difference < tolerance:
            raise BytelmError(
                f"{type(self.model).__name__} does not compute its attention through the interface "
                f"of transformers (log-probabilities differ by {difference:.3g}); wrap it in your "
                "own TokenLM"
            )


def hugging_face_parts(
    model: Any, tokenizer: Any, mode: Mode, start: Sequence[int] | None
) -> tuple[HuggingFaceLM, Encoder | None, dict[str, int], bytes]:
    """What `convert` needs of a Hugging Face model: token LM, encoder, specials, prefix."""
    from bytelm.exact.tokenizer_json import read_hf_tokenizer

    if tokenizer is None:
        raise BytelmError("converting a Hugging Face model needs its tokenizer as second argument")
    tables = read_hf_tokenizer(tokenizer)
    if mode != "all":
        tables.need_encoder()
    eos = _eos_ids(model, tables)
    lm = HuggingFaceLM(
        model,
        tables.vocab_bytes,
        eos_ids=eos,
        start_ids=tables.start_ids if start is None else start,
    )
    return lm, tables.encoder, tables.specials, tables.prefix


def _eos_ids(model: Any, tables: Any) -> set[int]:
    """The tokenizer's end symbols and the model's own, as far as they are special tokens."""
    named = model.config.eos_token_id
    listed = [named] if isinstance(named, int) else (named or [])
    silent = {i for i, data in enumerate(tables.vocab_bytes) if data is None}
    return (tables.eos_ids | set(listed)) & silent


def load_hf(
    path: str | Path,
    *,
    mode: Mode = "all",
    beam: int = 8,
    epsilon: float = 1e-3,
    device: str | torch.device = "cpu",
) -> ByteConverter:
    """The model in a Hugging Face directory (config, safetensors, tokenizer) as a `ByteLM`."""
    from bytelm.exact.converter import convert

    transformers = import_transformers("loading a Hugging Face directory")
    folder = Path(path)
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} is no Hugging Face directory: it has no config.json")
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, KeyError, ValueError) as error:
        raise CheckpointError(f"transformers cannot load {folder}: {error}") from error
    return convert(model.to(device), tokenizer, mode=mode, beam=beam, epsilon=epsilon)


def load_token_model(path: str | Path, *, device: str | torch.device = "cpu") -> ByteConverter:
    """The converted model at `path`, a .gguf file or a Hugging Face directory, in mode "all"."""
    from bytelm.exact.gguf import load_gguf

    load = load_gguf if Path(path).suffix == ".gguf" else load_hf
    return load(path, device=device)


def import_transformers(purpose: str) -> Any:
    """The package transformers, or an error that names the extra."""
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError("transformers", "hf", purpose) from error
    return transformers
