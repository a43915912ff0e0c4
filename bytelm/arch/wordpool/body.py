"""The three networks of Learn Your Tokens, in parallel over all words and by extending a state.

Section numbers of the paper are not given: its text beyond the abstract could not be read, and
this follows the released code (avi-jit/eTok, newmodel.py) with the faults that `model.py` names
taken out. Both forms below run the same three functions (`write`, the words' Transformer, `spell`).
A state keeps the vectors of the open word's bytes instead of a cache of the decoder: a word is
short, and extending a state spells it again from its first byte.

Shape letters: B rows, L bytes, C words, p prefix vectors per word, D width inside words, E width
of the Transformer over words.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bytelm.nn.boundaries import RULES
from bytelm.nn.boundary_rule import RuleOptions, Stretch
from bytelm.nn.chunking import ChunkPlan, take, upsample
from bytelm.nn.linear import Linear
from bytelm.nn.prefixed import Prefixed
from bytelm.nn.segments import Segments, last_valid
from bytelm.nn.stack import Stack, StackOptions, StackState
from bytelm.nn.state import State

_SLOTS = 32  # word slots are rounded up to it in the parallel form: see `ChunkPlan`

Part = tuple[str, StackOptions]  # layout and options of a stack


@dataclass(frozen=True, kw_only=True)
class WordOptions:
    """Layouts and options of the three networks; p; the longest word."""

    encoder: Part
    trunk: Part
    decoder: Part
    prefixes: int
    max_word: int


@dataclass(frozen=True)
class WordState(State):
    """position (B,) bytes seen; rule the state of the boundary rule; word (B, max_word, D) vectors
    of the open word's bytes, of which the first open (B,) are there; trunk over the closed words;
    read (B, E) what it said after the last of them."""

    position: Tensor
    rule: State
    word: Tensor
    open: Tensor
    trunk: StackState
    read: Tensor


class WordBody(nn.Module):
    """Bytes (B, L, D) -> (B, L, D), by way of words."""

    def __init__(self, options: WordOptions):
        super().__init__()
        self.options = options
        D, E, p = options.decoder[1].dim, options.trunk[1].dim, options.prefixes
        self.rule = RULES["words"](RuleOptions(dim=D, limit=options.max_word))
        self.slots = nn.Parameter(torch.empty(p, D))  # what the encoder's slots hold at first
        self.encoder = Stack(*options.encoder)
        self.pool = Linear(p * D, E, bias=False)
        self.trunk = Stack(*options.trunk)
        self.start = nn.Parameter(torch.empty(E))  # what a word reads that has none before it
        self.unpool = Linear(E, p * D, bias=False)
        self.decoder = Stack(*options.decoder)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Slots and start N(0, 1), as the byte table and as the trunk's normalised output."""
        nn.init.normal_(self.slots)
        nn.init.normal_(self.start)
        for stack in (self.encoder, self.trunk, self.decoder):
            stack.reset_linears(stack.height)
        for joint in (self.pool, self.unpool):
            nn.init.normal_(joint.weight, std=joint.in_features**-0.5)

    # -- the three networks ------------------------------------------------------------------------

    def write(self, x_BLD: Tensor, rows: Prefixed) -> Tensor:
        """(B, C, E): every word's own vector, from its bytes alone."""
        B, C = len(x_BLD), rows.plan.width
        written = self.encoder(rows.pack(x_BLD, self.slots.expand(B, C, -1, -1)), rows.segments)
        return self.pool(rows.slots_of(written).flatten(2))

    def prefix(self, read: Tensor) -> Tensor:
        """(..., E) -> (..., p, D): the vectors behind which a word is spelled."""
        return self.unpool(read).unflatten(-1, (self.options.prefixes, -1))

    def spell(self, x_BLD: Tensor, read_BCE: Tensor, rows: Prefixed) -> Tensor:
        """(B, L, D): at each byte, what its word says so far behind what the word reads."""
        packed = rows.pack(x_BLD, self.prefix(read_BCE))
        return rows.bytes_of(self.decoder(packed, rows.segments))

    # -- in parallel -------------------------------------------------------------------------------

    def forward(
        self, x_BLD: Tensor, segments: Segments, ids_BL: Tensor
    ) -> tuple[Tensor, ChunkPlan]:
        """-> (outputs (B, L, D), the words)."""
        plan = self.plan(x_BLD, segments, ids_BL)
        rows = Prefixed(plan, self.options.prefixes, segments.lengths)
        said = self.trunk(self.write(x_BLD, rows), plan.segments())
        start = self.start.to(said.dtype).expand(len(said), -1)
        return self.spell(x_BLD, upsample(said, plan.select(plan.reads), start), rows), plan

    def plan(self, x_BLD: Tensor, segments: Segments, ids_BL: Tensor) -> ChunkPlan:
        """The words of whole rows."""
        stretch = Stretch(
            x=x_BLD,
            positions=segments.positions(x_BLD.device),
            counts=segments.lengths,
            ids=ids_BL,
        )
        cuts, _ = self.rule.cut(stretch, self.rule.init_state(len(x_BLD), x_BLD))
        return ChunkPlan(cuts.starts, delay=1, document_ids=segments.document_ids, slots=_SLOTS)

    # -- by extending a state ----------------------------------------------------------------------

    def init_state(self, batch_size: int) -> WordState:
        """Nothing read yet."""
        zeros = torch.zeros(batch_size, dtype=torch.long, device=self.start.device)
        return WordState(
            position=zeros,
            rule=self.rule.init_state(batch_size, self.start),
            word=self.slots.new_zeros(batch_size, self.options.max_word, self.slots.shape[1]),
            open=zeros.clone(),
            trunk=self.trunk.init_state(batch_size),
            read=self.start.detach().expand(batch_size, -1).clone(),
        )

    def extend(
        self, x_BLD: Tensor, counts: Tensor | None, state: WordState, ids_BL: Tensor
    ) -> tuple[Tensor, WordState]:
        """Feed counts[b] >= 1 (None = L) more bytes of each row; -> (outputs (B, L, D), state)."""
        B, L = ids_BL.shape
        index = torch.arange(L, device=ids_BL.device)
        added = torch.full_like(state.open, L) if counts is None else counts
        stretch = Stretch(
            x=x_BLD, positions=state.position[:, None] + index, counts=counts, ids=ids_BL
        )
        cuts, rule = self.rule.cut(stretch, state.rule)
        # the open word's bytes, then the new ones
        width = int(state.open.max()) + L
        at = state.open[:, None] + index
        x = torch.cat((state.word[:, : width - L].to(x_BLD.dtype), torch.zeros_like(x_BLD)), dim=1)
        x = x.scatter(1, at[..., None].expand_as(x_BLD), x_BLD)
        starts = torch.zeros(B, width, dtype=torch.bool, device=x.device)
        starts = starts.scatter(1, at, cuts.starts)
        starts[:, 0] = True
        lengths = state.open + added
        plan = ChunkPlan(starts, delay=1)
        rows = Prefixed(plan, self.options.prefixes, lengths)
        said, trunk = self._close(x, rows, state.trunk)
        read = torch.cat((state.read[:, None].to(said.dtype), said), dim=1)
        y = take(self.spell(x, read, rows), at)
        last = plan.counts - 1
        first = take(plan.first, last[:, None])
        room = torch.arange(self.options.max_word, device=x.device)
        after = WordState(
            position=state.position + added,
            rule=rule,
            word=take(x, (first + room).clamp(max=width - 1)).to(state.word.dtype),
            open=lengths - first[:, 0],
            trunk=trunk,
            read=last_valid(read, plan.counts).to(state.read.dtype),
        )
        return y, after

    def _close(self, x_BLD: Tensor, rows: Prefixed, trunk: StackState) -> tuple[Tensor, StackState]:
        """Let the trunk read all words but each row's last, which is open; -> what it says after
        each (B, C - 1, E)."""
        plan = rows.plan
        closed = plan.counts - 1
        if plan.width == 1:
            return x_BLD.new_zeros(len(x_BLD), 0, self.trunk.dim), trunk
        vectors = self.write(x_BLD, rows)[:, :-1]
        chosen = closed.nonzero()[:, 0]
        if len(chosen) == len(vectors):
            return self.trunk.extend(vectors, closed, trunk)
        out, part = self.trunk.extend(vectors[chosen], closed[chosen], trunk.view(chosen))
        said = out.new_zeros(len(vectors), *out.shape[1:]).index_copy(0, chosen, out)
        return said, trunk.scatter(chosen, part)
