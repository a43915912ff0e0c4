"""BLT, the Byte Latent Transformer (Pagnoni et al. 2024, arXiv:2412.09871).

Bytes are grouped into patches of varying length; a large network works on patches, two small ones
on bytes. A patch ends where a small byte model, the patcher, is uncertain of the next byte
(`entropy.py`). This file is the language model: table and head are `arch/backbone.py`, hashed
n-grams are `nn/ngrams.py` (section 3.2.1), the networks are in `networks.py`, decoding in place in
`steps.py`. `bytelm.hub.from_official("blt", ...)` reads the released weights.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from bytelm.arch.backbone import BackboneModel, BodyOutput, BodySteps, NGramConfig
from bytelm.arch.base import ParameterRole, Symptom, TrainedPart
from bytelm.arch.blt.config import BLTConfig
from bytelm.arch.blt.entropy import EntropyRule
from bytelm.arch.blt.networks import BLTState, PatchNet, plan_of
from bytelm.arch.blt.steps import BLTSteps
from bytelm.data.batch import Batch
from bytelm.errors import BytelmError
from bytelm.nn.boundaries import FixedRule, GivenRule
from bytelm.nn.boundary_rule import BoundaryRule, RuleOptions, Stretch
from bytelm.nn.ngrams import PolynomialTables
from bytelm.nn.ranks import sum_over_ranks
from bytelm.nn.segments import Segments
from bytelm.nn.stack import stack_flops
from bytelm.nn.tables import id_map
from bytelm.vocab import ByteVocab, Vocab

USUAL_PATCH = 4.5  # bytes per patch that the released threshold gives on text
_STUBBY, _LONG = 1.3, 64.0  # bytes per patch below and above which something is wrong


class BLT(BackboneModel[BLTState]):
    """Byte table and n-gram tables, networks over bytes and patches, untied head.

    patcher  whose entropy ends patches; needed by `boundaries = "entropy"`, refused by others
    """

    Config = BLTConfig
    config: BLTConfig
    backbone: PatchNet

    def __init__(self, config: BLTConfig, vocab: Vocab, *, patcher: TrainedPart | None = None):
        if not isinstance(vocab, ByteVocab):
            raise BytelmError("BLT reads bytes: it cannot be used with data.tokenizer")
        super().__init__(
            config,
            vocab,
            dim=config.d_local,
            make_body=lambda: PatchNet(config),
            ids=id_map("blt" if config.released_ids else "own", vocab),
        )
        self.rule = self._rule(patcher)

    def _rule(self, patcher: TrainedPart | None) -> BoundaryRule:
        config = self.config
        options = RuleOptions(dim=config.d_local, stride=config.stride, after=config.given_after)
        if config.boundaries != "entropy":
            if patcher is not None:
                raise BytelmError(f"a patcher has no effect: boundaries are {config.boundaries!r}")
            return {"fixed": FixedRule, "given": GivenRule}[config.boundaries](options)
        if patcher is None and self.lm_head.weight.is_meta:
            return GivenRule(options)  # only the shapes of what is trained are wanted
        if patcher is None:
            raise BytelmError(
                'boundaries = "entropy" needs a patcher: name the run directory of a small causal '
                "byte model in model.patcher (bytelm train blt-patcher-tiny makes one)"
            )
        return EntropyRule(
            options,
            patcher,
            kind=config.entropy,
            threshold=config.threshold,
            rise=config.rise,
        )

    # -- whole rows --------------------------------------------------------------------------------

    def forward_body(self, x_BLD: Tensor, segments: Segments, batch: Batch) -> BodyOutput:
        ends_BL = self._ends(segments, batch)
        h = self.backbone.encode(x_BLD, segments)
        x = self.backbone(h, ends_BL, segments)
        return BodyOutput(x=x, stats=_patch_stats(ends_BL, segments.valid))

    def _ends(self, segments: Segments, batch: Batch) -> Tensor:
        """(B, L) bool: whether the patch of each position ends there."""
        ids = batch.ids
        positions = segments.positions(ids.device)
        stretch = self._stretch(batch, positions, segments.lengths)
        stretch = replace(stretch, document_ids=segments.document_ids, whole=True)
        cuts, _ = self.rule.cut(stretch, self.rule.init_state(len(ids), self.lm_head.weight))
        none = torch.zeros_like(ids[:, 0])
        return self._finished(cuts.ends, positions.expand(ids.shape), none)

    def _stretch(self, batch: Batch, positions: Tensor, counts: Tensor | None) -> Stretch:
        ids = batch.ids
        return Stretch(
            x=self.embeddings.weight.new_zeros(*ids.shape, 0),  # these rules look at ids only
            positions=positions,
            counts=counts,
            ids=ids,
            boundaries=batch.boundaries,
        )

    def _finished(self, ends: Tensor | None, positions_BL: Tensor, open_B: Tensor) -> Tensor:
        """The rule's ends (B, L) or (L,), and those at the first position of a text and at the
        longest length of a patch; open (B,): bytes that the open patch has before these."""
        if ends is None:
            raise BytelmError(
                "BLT must know at each byte whether its patch ends there: give boundaries of "
                "(rows, positions + 1), whose last column says so of the last position, or set "
                "given_after"
            )
        first = positions_BL == 0
        ends = ends | first
        limit = self.config.max_patch
        if limit < 0:
            return ends
        index = torch.arange(ends.shape[1], device=ends.device).expand_as(ends)
        begins = torch.cat((torch.zeros_like(ends[:, :1]), ends[:, :-1]), dim=1) | first
        begun = torch.where(begins, index, -open_B[:, None]).cummax(1).values
        return ends | ((index - begun + 1) % limit == 0)

    def make_ngrams(self, config: NGramConfig, dim: int) -> PolynomialTables:
        """Tables under the released hash. What is hashed is an id's row in the released table, or
        its number from 1 on, as 0 stands before the text."""
        rows = range(self.vocab.size) if self.ids.row is None else self.ids.row
        return PolynomialTables(
            config.ngrams,
            config.ngram_rows,
            dim,
            symbols=[row if self.config.released_ids else row + 1 for row in rows],
            functions=self.config.ngram_functions,
        )

    @torch.no_grad()
    def chunk_boundaries(self, ids_BL: Tensor) -> list[Tensor]:
        """[starts (B, L)]: the positions of `ids` at which patches start."""
        segments = Segments(ids_BL.shape[1])
        return [plan_of(self._ends(segments, Batch(ids=ids_BL)), segments).starts]

    # -- decoding ----------------------------------------------------------------------------------

    def init_body(self, batch_size: int) -> BLTState:
        return BLTState(
            position=torch.zeros(batch_size, dtype=torch.long, device=self.device),
            rule=self.rule.init_state(batch_size, self.lm_head.weight),
            net=self.backbone.init_state(batch_size),
        )

    def extend_body(
        self, x_BLD: Tensor, counts: Tensor | None, state: BLTState, batch: Batch
    ) -> tuple[Tensor, BLTState]:
        L = x_BLD.shape[1]
        positions = state.position[:, None] + torch.arange(L, device=x_BLD.device)
        cuts, rule = self.rule.cut(self._stretch(batch, positions, counts), state.rule)
        ends_BL = self._finished(cuts.ends, positions, state.net.open.lengths)
        h, encoder = self.backbone.encoder.extend(x_BLD, counts, state.net.encoder)
        y, net = self.backbone.extend(h, ends_BL, counts, encoder, state.net)
        position = state.position + (L if counts is None else counts)
        return y, BLTState(position, rule, net)

    def body_steps(self, state: BLTState, rows: int, *, compiled: bool) -> BodySteps:
        limit = self.config.max_patch
        return BLTSteps(self.backbone, self.rule, state, rows, limit=limit, compiled=compiled)

    # -- training ----------------------------------------------------------------------------------

    def reset_body(self) -> None:
        self.backbone.reset_parameters()

    def symptoms(self, stats: Mapping[str, float]) -> list[Symptom]:
        """Patches of hardly more than a byte, or so long that the global network sees nothing."""
        length = stats.get("stage0/chunk_bytes", USUAL_PATCH)
        if self.config.boundaries != "entropy" or _STUBBY <= length <= _LONG:
            return []
        return [
            Symptom(
                name="patches/length",
                finding=f"a patch is {length:.2f} bytes long",
                advice="The threshold does not suit this patcher and these data: raise "
                "model.threshold (or rise) if patches are too short, lower it if they are too long",
            )
        ]

    def body_flops(self, context_bytes: int) -> float:
        """Forward operations per byte, the patcher's among them, with patches of `stride` bytes, or
        of the 4.5 bytes that are usual under the entropy rule."""
        config, D = self.config, self.config.d_local
        length = float(config.stride) if config.boundaries == "fixed" else USUAL_PATCH
        encoder = stack_flops(
            f"T{config.encoder_layers}", config.stack_options("encoder"), context_bytes
        )
        decoder = stack_flops(
            f"T{config.decoder_layers}", config.stack_options("decoder"), context_bytes
        )
        inner = stack_flops(
            f"T{config.layers}", config.stack_options("global"), context_bytes / length
        )
        k, readers = config.slots, len(self.backbone.reads)
        per_patch = inner + 2 * k * D * (D + 2 * config.d_model + 2 * D) + readers * 4 * k * D * D
        per_byte = encoder + decoder + (readers + 1) * (4 * D * D + 4 * k * D)
        patcher = 0.0
        if isinstance(self.rule, EntropyRule):
            patcher = self.rule.patcher.flops_per_byte(context_bytes)
        return per_byte + per_patch / length + patcher

    def parameter_role(self, name: str, parameter: Tensor) -> ParameterRole:
        if name.startswith("rule."):  # the patcher's, which nobody trains or quantizes
            return ParameterRole(kind="other", decay=False)
        return super().parameter_role(name, parameter)


def _patch_stats(ends_BL: Tensor, valid: Tensor | None) -> dict[str, Tensor | float]:
    """Share of positions at which a patch ends, and mean patch length, over all ranks."""
    inside = torch.ones_like(ends_BL) if valid is None else valid
    counts = torch.stack(((ends_BL & inside).sum(), inside.sum())).float()
    ended, total = sum_over_ranks(counts)
    return {"stage0/F": ended / total, "stage0/chunk_bytes": total / ended}
