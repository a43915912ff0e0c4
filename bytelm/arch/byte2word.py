"""Byte2Word (Lee, Guo & Qiu 2022, arXiv:2211.12677): BERT over words that are made from bytes.

Only the abstract of the paper can be read from here and there is no public code, so this is a
reconstruction, and no number of the paper is repeated. What the abstract says: a cross-attention
network builds each word's vector from the word's own bytes, the model works on words, and
sub-words are predicted from the states of words, which leaves out a softmax over a vocabulary of
words; on par with BERT at a tenth of its embedding size. What we chose: words are those of
`nn/words.py`, with the space in front; a word's query is a learned vector plus the mean of its
bytes, its keys and values are its bytes with their places in the word, and what it finds is added
to that mean; BERT's own encoder follows; up to M pieces and a stop symbol are predicted side by
side from one state plus a vector per place. At the size of BERT-base the embedding has 2.59 million
parameters, 11 % of BERT's.

With `input = "pieces"` the same model reads the ids of a tokenizer from a table: the subword BERT
that Byte2Word is compared with. A model has one head: over the pieces of masked words (objective
`masked_words`) or over classes (`classification`).

Shape letters: B rows, L bytes (or pieces), C words, D width, H heads, N masked words, M pieces of a
word, V pieces of the vocabulary.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from bytelm.arch.base import (
    ArchConfig,
    EncoderModel,
    Idle,
    ModelOutput,
    ParameterRole,
    causal_loss,
    label_loss,
    require_labels,
)
from bytelm.data.batch import Batch
from bytelm.errors import BytelmError
from bytelm.nn.bert import EPS, BertEncoder, bert_flops
from bytelm.nn.boundaries import RULES
from bytelm.nn.boundary_rule import RuleOptions, Stretch
from bytelm.nn.chunking import ChunkPlan, take, upsample
from bytelm.nn.linear import Linear
from bytelm.nn.segments import Segments
from bytelm.vocab import ByteVocab, Vocab

USUAL_WORD = 5.5  # bytes of a word with its space, in English
_SLOTS = 8  # word slots are rounded up to it, so that a batch of empty rows has some


class Byte2WordConfig(ArchConfig):
    """Sizes of the encoder, and how words are made and predicted."""

    input: Literal["bytes", "pieces"] = Field(
        "bytes",
        description="what is read: words made from bytes, or the ids of data.tokenizer (the "
        "subword baseline)",
    )
    layers: int = Field(4, ge=1, description="blocks of the encoder")
    d_model: int = Field(256, ge=2, description="width of words and encoder")
    heads: int = Field(4, ge=1, description="attention heads of the encoder")
    hidden: int = Field(0, ge=0, description="width of its feed-forward layers; 0 = 4 d_model")
    positions: int = Field(1024, ge=1, description="words (or pieces) that a row may have")
    word_heads: int = Field(4, ge=1, description="heads of the attention from a word to its bytes")
    max_word: int = Field(32, ge=1, description="bytes after which a word is cut")

    @model_validator(mode="after")
    def _consistent(self) -> "Byte2WordConfig":
        for name in ("heads", "word_heads"):
            if self.d_model % getattr(self, name):
                raise ValueError(f"{name} = {getattr(self, name)} must divide d_model")
        return self

    def idle(self) -> Iterator[Idle]:
        """How words are made from bytes, where none are."""
        if self.input == "pieces":
            for name in ("word_heads", "max_word"):
                yield Idle(setting=name, why='input = "pieces" makes no words from bytes')

    @property
    def inner(self) -> int:
        """Width of the feed-forward layers."""
        return self.hidden or 4 * self.d_model


class WordEmbedding(nn.Module):
    """(B, L) ids -> (B, C, D): each word's vector, from its own bytes alone."""

    def __init__(self, config: Byte2WordConfig, size: int):
        super().__init__()
        D = config.d_model
        self.heads = config.word_heads
        self.bytes = nn.Embedding(size, D)
        self.places = nn.Embedding(config.max_word, D)
        self.query = nn.Parameter(torch.empty(D))
        self.Wq = Linear(D, D, bias=False)
        self.Wk = Linear(D, D, bias=False)
        self.Wv = Linear(D, D, bias=False)
        self.out_proj = Linear(D, D, bias=False)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Tables and query N(0, 1), so that words differ from the first step on; matrices keep the
        size of what they map."""
        for part in (self.bytes.weight, self.places.weight, self.query):
            nn.init.normal_(part)
        for matrix in (self.Wq, self.Wk, self.Wv, self.out_proj):
            nn.init.normal_(matrix.weight, std=matrix.in_features**-0.5)

    def forward(self, ids_BL: Tensor, plan: ChunkPlan, segments: Segments) -> Tensor:
        index = torch.arange(ids_BL.shape[1], device=ids_BL.device)
        first = torch.where(plan.starts, index, 0).cummax(dim=1).values
        # padding is put beyond the last word, whose sums must not hold it
        word = plan.feeds.clamp(min=0)
        if segments.valid is not None:
            word = torch.where(segments.valid, word, plan.width)
        place = (index - first).clamp(max=self.places.num_embeddings - 1)
        x = self.bytes(ids_BL) + self.places(place)
        sums = _sum_by_word(torch.cat((x, torch.ones_like(x[..., :1])), dim=-1), word, plan.width)
        mean_BCD = sums[..., :-1] / sums[..., -1:].clamp(min=1)
        q = self.Wq(mean_BCD + self.query).unflatten(-1, (self.heads, -1))
        k = self.Wk(x).unflatten(-1, (self.heads, -1))
        v = self.Wv(x).unflatten(-1, (self.heads, -1))
        own_BLHK = take(q, word.clamp(max=plan.width - 1))
        scores_BLH = (own_BLHK * k).sum(-1) * k.shape[-1] ** -0.5
        weights_BLH = _softmax_by_word(scores_BLH, word, plan.width).to(v.dtype)
        found = _sum_by_word((weights_BLH[..., None] * v).flatten(2), word, plan.width)
        return mean_BCD + self.out_proj(found)


def _sum_by_word(x_BLD: Tensor, word_BL: Tensor, width: int) -> Tensor:
    """(B, C, D) sums over the bytes of each word; word numbers from `width` on are left out."""
    total = x_BLD.new_zeros(len(x_BLD), width + 1, x_BLD.shape[-1])
    index = word_BL[..., None].expand_as(x_BLD)
    return total.scatter_add(1, index, x_BLD)[:, :width]


def _softmax_by_word(scores_BLH: Tensor, word_BL: Tensor, width: int) -> Tensor:
    """(B, L, H): softmax over the bytes of each word, in float32 or better."""
    scores = scores_BLH.to(torch.promote_types(scores_BLH.dtype, torch.float32))
    index = word_BL[..., None].expand_as(scores)
    most = scores.new_full((len(scores), width + 1, scores.shape[-1]), -torch.inf)
    most = most.scatter_reduce(1, index, scores.detach(), "amax")
    raised = (scores - most.gather(1, index)).exp()
    total = torch.zeros_like(most).scatter_add(1, index, raised)
    return raised / total.gather(1, index)


class PieceHead(nn.Module):
    """Pieces of words from their states: (N, D) -> (N, M, V); place j reads state + place vector,
    then BERT's transform and a table."""

    def __init__(self, dim: int, pieces: int, places: int):
        super().__init__()
        self.places = nn.Embedding(places, dim)
        self.transform = Linear(dim, dim)
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.lm_head = Linear(dim, pieces)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """All N(0, 0.02), biases 0."""
        for part in (self.places, self.transform, self.lm_head):
            nn.init.normal_(part.weight, std=0.02)
        nn.init.zeros_(self.transform.bias)
        nn.init.zeros_(self.lm_head.bias)

    def forward(self, x_ND: Tensor) -> Tensor:
        x = x_ND[:, None] + self.places.weight
        return self.lm_head(self.norm(F.gelu(self.transform(x))))


class Byte2Word(EncoderModel):
    """Words from bytes (or pieces from a table), BERT's encoder, one head.

    labels  the classes, for a model that classifies
    pieces  how many pieces V the vocabulary has, for one that fills masked words; 0 = none
    word_pieces, mask, stop  M; the id that stands for a masked word; the piece that says that a
            word has no more (`FillsWords`)
    """

    Config = Byte2WordConfig
    config: Byte2WordConfig

    def __init__(
        self,
        config: Byte2WordConfig,
        vocab: Vocab,
        *,
        labels: Sequence[str] = (),
        pieces: int = 0,
        word_pieces: int = 0,
        mask: int | None = None,
        stop: int | None = None,
    ):
        super().__init__(config, vocab, labels=labels if pieces else require_labels(labels))
        if isinstance(vocab, ByteVocab) != (config.input == "bytes"):
            raise BytelmError(
                f"model.input = {config.input!r} does not read what this recipe gives: "
                "'bytes' needs a recipe whose rows are bytes, 'pieces' one whose rows are ids of "
                'data.tokenizer (objective.read = "pieces" of masked_words)'
            )
        self.mask, self.stop = mask, stop
        D = config.d_model
        self.rule = RULES["words"](RuleOptions(dim=D, limit=config.max_word))
        self.embeddings: WordEmbedding | nn.Embedding
        if config.input == "bytes":
            self.embeddings = WordEmbedding(config, vocab.size)
        else:
            self.embeddings = nn.Embedding(vocab.size, D)
        self.backbone = BertEncoder(
            D,
            layers=config.layers,
            heads=config.heads,
            hidden=config.inner,
            positions=config.positions,
        )
        self.piece_head = PieceHead(D, pieces, word_pieces) if pieces else None
        self.head = None if pieces else Linear(D, len(self.labels))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Each part's own; nothing on the meta device."""
        if self.backbone.positions.weight.is_meta:
            return
        self.backbone.reset_parameters()
        if isinstance(self.embeddings, WordEmbedding):
            self.embeddings.reset_parameters()
        else:
            nn.init.normal_(self.embeddings.weight)
        if self.piece_head is not None:
            self.piece_head.reset_parameters()
        if self.head is not None:
            nn.init.normal_(self.head.weight, std=0.02)
            nn.init.zeros_(self.head.bias)

    def forward(self, batch: Batch) -> ModelOutput:
        batch = batch.trimmed()
        if self.piece_head is not None:
            return self._fill(batch)
        assert self.head is not None
        x, plan = self._encode(batch)
        valid = torch.arange(x.shape[1], device=x.device) < plan.counts[:, None]
        total = x.masked_fill(~valid[..., None], 0.0).sum(dim=1)
        logits = self.head(total / plan.counts.clamp(min=1)[:, None])
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return ModelOutput(logits=logits, loss=label_loss(logits, batch.labels))

    def _fill(self, batch: Batch) -> ModelOutput:
        """Logits (N, M, V) of the masked words in reading order; their targets are in
        `batch.targets` (B, L, M)."""
        assert self.piece_head is not None
        x, plan = self._encode(batch)
        assert self.mask is not None, "a model that fills words knows its mask"
        masked = batch.ids.eq(self.mask)
        if (valid := batch.mask()) is not None:
            masked &= valid
        rows, places = masked.nonzero(as_tuple=True)
        logits = self.piece_head(x[rows, plan.feeds[rows, places]])
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        targets = None if batch.targets is None else batch.targets[rows, places]
        return ModelOutput(logits=logits, loss=causal_loss(logits, targets))

    def _encode(self, batch: Batch) -> tuple[Tensor, ChunkPlan]:
        """States (B, C, D) of the words, and the words."""
        segments = Segments(batch.ids.shape[1], batch.lengths, batch.document_ids)
        plan = self.plan(batch.ids, segments)
        if isinstance(self.embeddings, WordEmbedding):
            x = self.embeddings(batch.ids, plan, segments)
        else:
            x = self.embeddings(batch.ids)
        return self.backbone(x, plan.segments()), plan

    def plan(self, ids_BL: Tensor, segments: Segments) -> ChunkPlan:
        """The words of whole rows; every special is a word, and so is every piece."""
        if self.config.input == "pieces":
            starts = torch.ones_like(ids_BL, dtype=torch.bool)
            starts = starts if segments.valid is None else segments.valid
        else:
            stretch = Stretch(
                x=ids_BL[..., None],
                positions=segments.positions(ids_BL.device),
                counts=segments.lengths,
                ids=ids_BL,
            )
            cuts, _ = self.rule.cut(stretch, self.rule.init_state(len(ids_BL), ids_BL))
            starts = cuts.starts
        return ChunkPlan(starts, delay=1, document_ids=segments.document_ids, slots=_SLOTS)

    def representations(self, batch: Batch) -> Tensor:
        x, plan = self._encode(batch)
        return upsample(x, plan.feeds, torch.zeros_like(x[:, 0]))

    @torch.no_grad()
    def chunk_boundaries(self, ids_BL: Tensor) -> list[Tensor]:
        """One bool tensor (B, L): where words start."""
        return [self.plan(ids_BL, Segments(ids_BL.shape[1])).starts]

    def embedding_parameters(self) -> int:
        """Parameters between ids and the encoder: what is to be compared with a subword table."""
        return sum(parameter.numel() for parameter in self.embeddings.parameters())

    def flops_per_byte(self, context_bytes: int) -> float:
        """At the usual length of words in English; heads, which read few states, are left out."""
        D, length = self.config.d_model, USUAL_WORD if self.config.input == "bytes" else 1.0
        encoder = bert_flops(
            D,
            layers=self.config.layers,
            hidden=self.config.inner,
            context=context_bytes / length,
        )
        made = 4.0 * D * D + 4.0 * D * D / length if self.config.input == "bytes" else 0.0
        return made + encoder / length

    def parameter_role(self, name: str, parameter: Tensor) -> ParameterRole:
        if "places" in name or "positions" in name or name.startswith("embeddings.bytes"):
            return ParameterRole(kind="embedding", decay=False)
        if name == "embeddings.weight":
            return ParameterRole(kind="embedding", decay=False)
        if name in ("head.weight", "piece_head.lm_head.weight"):
            return ParameterRole(kind="head")
        return super().parameter_role(name, parameter)
