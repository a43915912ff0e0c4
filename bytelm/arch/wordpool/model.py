"""Learn Your Tokens (Thawani et al. 2023, arXiv:2310.11628), corrected: a model over pooled words.

An encoder reads each word on its own and writes it into p prefix vectors, a Transformer reads the
words in order, and a decoder that sees one word at a time writes its bytes behind p vectors made
from what the Transformer said about the words before. All words are decoded in parallel in
training. The body is `body.py`; this file says what its output means as a law of the next byte.

What differs from the released code (avi-jit/eTok), and why:

* Words are cut losslessly, with the space in front of its word (`nn/words.py`), so that bits
  per byte are defined; the code drops spaces and newlines and implies them.
* A word ends explicitly. Where words start is decided by bytes alone, so the end of a word and the
  first byte of the next are one event: after each byte the decoder gives one distribution over all
  bytes, of which those that start a word are the end of this one (`end_of_word`). Its chances and
  those of going on add up to 1, every byte carries its loss once, and padding none; the code
  pads words to the longest and learns the padding. So the byte that starts a word is foreseen from
  the words before the last and the bytes of the last; from then on the last word is known whole.
* Words are ragged (`nn/prefixed.py`): no word's vector depends on the longest word. A word longer
  than `max_word` is cut into pieces of that length, and nothing is dropped.
* The p vectors of a word enter the Transformer side by side as one position, not as p positions, so
  that its cost does not grow with p.
"""

from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from bytelm.arch.backbone import BackboneModel, BodyOutput, NGramConfig
from bytelm.arch.base import ParameterRole
from bytelm.arch.wordpool.body import WordBody, WordOptions, WordState
from bytelm.arch.wordpool.steps import WordSteps
from bytelm.data.batch import Batch
from bytelm.errors import BytelmError
from bytelm.nn.boundary_rule import Stretch
from bytelm.nn.ranks import sum_over_ranks
from bytelm.nn.segments import Segments
from bytelm.nn.stack import StackOptions, stack_flops
from bytelm.vocab import ByteVocab, Vocab

USUAL_WORD = 5.5  # bytes of a word with its space, in English


class WordPoolConfig(NGramConfig):
    """Sizes of the three parts. `d_local` and what is called local is of the encoder and the
    decoder, which see one word at a time."""

    layers: int = Field(4, ge=1, description="blocks of the Transformer over words")
    d_model: int = Field(320, ge=2, description="width of the Transformer over words")
    heads: int = Field(5, ge=1, description="attention heads over words")
    d_local: int = Field(192, ge=2, description="width of byte table, word encoder and decoder")
    local_heads: int = Field(3, ge=1, description="attention heads inside words")
    encoder_layers: int = Field(2, ge=1, description="blocks of the word encoder")
    decoder_layers: int = Field(2, ge=1, description="blocks of the word decoder")
    prefixes: Literal[1, 2, 4] = Field(1, description="p, vectors per word")
    max_word: int = Field(32, ge=1, description="bytes after which a word is cut")
    qk_norm: bool = Field(True, description="unit-RMS queries and keys")

    @model_validator(mode="after")
    def _consistent(self) -> "WordPoolConfig":
        self.options()
        return self

    def options(self) -> WordOptions:
        """What the body is built with."""
        near = self.max_word + self.prefixes - 1

        def local(causal: bool) -> StackOptions:
            return StackOptions.transformer(
                self.d_local,
                heads=self.local_heads,
                qk_norm=self.qk_norm,
                causal=causal,
                window=near,
            )

        return WordOptions(
            encoder=(f"T{self.encoder_layers}", local(False)),
            trunk=(
                f"T{self.layers}",
                StackOptions.transformer(self.d_model, heads=self.heads, qk_norm=self.qk_norm),
            ),
            decoder=(f"T{self.decoder_layers}", local(True)),
            prefixes=self.prefixes,
            max_word=self.max_word,
        )


class WordPool(BackboneModel[WordState]):
    """Byte table, word encoder, Transformer over words, word decoder, head."""

    Config = WordPoolConfig
    config: WordPoolConfig
    backbone: WordBody

    def __init__(self, config: WordPoolConfig, vocab: Vocab):
        if not isinstance(vocab, ByteVocab):
            raise BytelmError("wordpool cuts bytes into words: it cannot be used with a tokenizer")
        super().__init__(
            config,
            vocab,
            dim=config.d_local,
            make_body=lambda: WordBody(config.options()),
        )

    def forward_body(self, x_BLD: Tensor, segments: Segments, batch: Batch) -> BodyOutput:
        y, plan = self.backbone(x_BLD, segments, batch.ids)
        valid = segments.valid
        positions = torch.tensor(y.shape[0] * y.shape[1]) if valid is None else valid.sum()
        counts = torch.stack((plan.counts.sum(), positions.to(y.device))).float()
        words, total = sum_over_ranks(counts)
        return BodyOutput(x=y, stats={"stage0/chunk_bytes": total / words.clamp(min=1)})

    def extend_body(
        self, x_BLD: Tensor, counts: Tensor | None, state: WordState, batch: Batch
    ) -> tuple[Tensor, WordState]:
        return self.backbone.extend(x_BLD, counts, state, batch.ids)

    def body_steps(self, state: WordState, rows: int, *, compiled: bool) -> WordSteps:
        return WordSteps(self.backbone, state, compiled=compiled)

    def init_body(self, batch_size: int) -> WordState:
        return self.backbone.init_state(batch_size)

    def reset_body(self) -> None:
        self.backbone.reset_parameters()

    @torch.no_grad()
    def chunk_boundaries(self, ids_BL: Tensor) -> list[Tensor]:
        """One bool tensor (B, L): where words start."""
        segments = Segments(ids_BL.shape[1])
        return [self.backbone.plan(self._embed(ids_BL), segments, ids_BL).starts]

    def body_flops(self, context_bytes: int) -> float:
        """Per byte at the usual length of words in English."""
        options, p = self.config.options(), self.config.prefixes
        share = 1 / USUAL_WORD
        inside = USUAL_WORD + p
        local = sum(stack_flops(*part, inside) for part in (options.encoder, options.decoder))
        joints = 2 * 2 * p * self.config.d_local * self.config.d_model
        words = stack_flops(*options.trunk, context_bytes * share)
        return local * (1 + p * share) + (words + joints) * share

    def parameter_role(self, name: str, parameter: Tensor) -> ParameterRole:
        if name == "backbone.slots":
            return ParameterRole(kind="embedding", decay=False)
        return super().parameter_role(name, parameter)

    @torch.no_grad()
    def end_of_word(self, logits_BV: Tensor, state: Any) -> Tensor:
        """(B,) log probability that each row's open word ends here: that of all ids which would
        start another one. `logits` are those that came with the state."""
        state = state if self.ngrams is None else state.body
        B, V = logits_BV.shape
        rows = torch.arange(B, device=logits_BV.device).repeat_interleave(V)
        stretch = Stretch(
            x=state.read.new_zeros(B * V, 1, self.config.d_local),
            positions=state.position[rows, None],
            ids=torch.arange(V, device=rows.device).repeat(B)[:, None],
        )
        cuts, _ = self.backbone.rule.cut(stretch, state.rule.select(rows))
        logprobs = logits_BV.log_softmax(-1).masked_fill(~cuts.starts.view(B, V), -torch.inf)
        return logprobs.logsumexp(-1)
