"""BLT, one byte per row in place.

Each byte runs the patcher, the local encoder and the local decoder; the global network runs only on
the rows whose patch closes at this byte. What a patch says to the decoder (its keys and values in
each layer) is made once, when it closes.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from bytelm.arch.blt.entropy import EntropyRule, EntropyState, entropies
from bytelm.arch.blt.networks import BLTState, PatchNet, PatchState
from bytelm.nn.boundaries import FixedRule, GivenRule, PreviousId
from bytelm.nn.boundary_rule import BoundaryRule, NoState
from bytelm.nn.cache import grown
from bytelm.nn.memory import Memory
from bytelm.nn.patch_attention import BytesFromSlots
from bytelm.nn.state import State
from bytelm.nn.stepping.ops import linear, rms_norm
from bytelm.nn.stepping.stack import StackSteps


class BLTSteps:
    """B rows of a BLT; `chunks` counts the patches that closed."""

    def __init__(
        self,
        net: PatchNet,
        rule: BoundaryRule,
        state: BLTState,
        rows: int,
        *,
        limit: int,
        compiled: bool,
    ):
        """limit: bytes of a patch at most, -1 = any number."""
        self._positions: list[int] = state.position.tolist()
        self._limit, self._device = limit, state.position.device
        self._rule = ending_steps(rule, state.rule, rows, compiled=compiled)
        self._net = PatchSteps(net, state.net, rows, compiled=compiled)
        self.chunks = 0

    def step(self, x_nD: Tensor, rows: Sequence[int] | None, ids: Sequence[int]) -> Tensor:
        """Feed one byte to every row, whose table vectors are x (B, D); -> outputs (B, D)."""
        assert rows is None, "rows of the outermost level step together"
        ends = self._rule.ends(ids, self._positions)
        for b, position in enumerate(self._positions):
            full = self._net.open_lengths[b] + 1 == self._limit
            ends[b] = ends[b] or position == 0 or full
            self._positions[b] += 1
        closing = [b for b, end in enumerate(ends) if end]
        self.chunks += len(closing)
        return self._net.step(x_nD, closing)

    def state(self) -> BLTState:
        """The immutable state of all rows."""
        return BLTState(
            position=torch.tensor(self._positions, device=self._device),
            rule=self._rule.state(),
            net=self._net.state(),
        )


class PatchSteps:
    """The networks."""

    def __init__(self, net: PatchNet, state: PatchState, rows: int, *, compiled: bool):
        self._module = net
        self._encoder = StackSteps(net.encoder, state.encoder, rows, compiled=compiled)
        self._main = StackSteps(net.main_network, state.inner, rows, compiled=compiled)
        self._decoder = [
            StackSteps(stack, before, rows, compiled=compiled)
            for stack, before in zip(net.stacks, state.decoder, strict=True)
        ]
        self.open_lengths: list[int] = state.open.lengths.tolist()
        self._open = F.pad(state.open.values, (0, 0, 0, 16))
        self._read = state.read.clone()
        with torch.no_grad():
            self._readers = [ReaderSteps(reader, self._read) for reader in net.readers]
        self._norm, self._narrow = rms_norm(net.norm), linear(net.narrow)

    def step(self, x_nD: Tensor, closing: list[int]) -> Tensor:
        """Feed one byte to every row; the patches of the rows `closing` end with it."""
        h = self._encoder.step(x_nD, None)
        self._append(h)
        if closing:
            self._close(closing)
        for i, stack in enumerate(self._decoder):
            if i < len(self._readers):
                h = self._readers[i].step(h)
            h = stack.step(h, None)
        return self._norm(h)

    def _append(self, h_BD: Tensor) -> None:
        lengths, capacity = self.open_lengths, self._open.shape[1]
        if max(lengths) >= capacity:
            with torch.inference_mode(False), torch.no_grad():
                more = grown(capacity, max(lengths) + 1) - capacity
                self._open = F.pad(self._open, (0, 0, 0, more))
        if lengths.count(lengths[0]) == len(lengths):
            self._open[:, lengths[0]].copy_(h_BD)
        else:
            self._open[torch.arange(len(lengths)), torch.tensor(lengths)] = h_BD
        for b in range(len(lengths)):
            lengths[b] += 1

    def _close(self, closing: list[int]) -> None:
        """Run the global network on these rows and make what the decoder reads of them."""
        lengths = [self.open_lengths[b] for b in closing]
        every = len(closing) == len(self.open_lengths)
        index = None if every else torch.tensor(closing, device=self._open.device)
        h = self._open[:, : max(lengths)]
        h = h if index is None else h.index_select(0, index)
        patches = self._module.pool_padded(h, torch.tensor(lengths, device=h.device))
        z = self._main.step(patches, None if every else closing)
        slots = self._narrow(z).view(len(closing), *self._read.shape[1:])
        _put(self._read, index, slots)
        for reader in self._readers:
            reader.put(index, slots)
        for b in closing:
            self.open_lengths[b] = 0

    def state(self) -> PatchState:
        lengths = torch.tensor(self.open_lengths, device=self._open.device)
        return PatchState(
            encoder=self._encoder.state(),
            open=Memory(self._open[:, : max(self.open_lengths)].clone(), lengths),
            inner=self._main.state(),
            read=self._read.clone(),
            decoder=tuple(stack.state() for stack in self._decoder),
        )


class ReaderSteps:
    """`BytesFromSlots` with the keys and values of the patch that each row reads now."""

    def __init__(self, reader: BytesFromSlots, slots_BkD: Tensor):
        o = self._options = reader.options
        self._chooses, self._reader = reader.chooses, reader
        self._kv_norm, self._wkv = rms_norm(reader.k_norm), linear(reader.Wkv)
        self._out = linear(reader.out_proj)
        B, dtype, device = len(slots_BkD), reader.Wkv.weight.dtype, slots_BkD.device
        if self._chooses:
            self._norm, self._wq = rms_norm(reader.q_norm), linear(reader.Wq)
            shape: tuple[int, ...] = (2, B, o.heads, o.slots, o.head_dim)
        else:
            shape = (1, B, o.dim)  # what is read, whatever the byte
        self._kv = torch.zeros(shape, dtype=dtype, device=device)
        self.put(None, slots_BkD)

    def put(self, index: Tensor | None, slots_nkD: Tensor) -> None:
        """The rows `index` (None = all) read these slots from now on."""
        o = self._options
        made = self._wkv(self._kv_norm(slots_nkD.reshape(-1, o.dim)))
        if not self._chooses:
            _put(self._kv[0], index, self._out(made))
            return
        made = made.view(len(slots_nkD), o.slots, 2, o.heads, o.head_dim)
        for place, part in zip(self._kv, made.permute(2, 0, 3, 1, 4), strict=True):
            _put(place, index, part)

    def step(self, h_BD: Tensor) -> Tensor:
        """h twice and what it finds (B, D)."""
        if not self._chooses:
            return h_BD + (h_BD + self._kv[0])
        o = self._options
        q = self._wq(self._norm(h_BD)).view(len(h_BD), o.heads, 1, o.head_dim)
        found = F.scaled_dot_product_attention(q, self._kv[0], self._kv[1])
        return h_BD + (h_BD + self._out(found.view(len(h_BD), o.dim)))


class EndingSteps(Protocol):
    """A rule in place, for B rows."""

    def ends(self, ids: Sequence[int], positions: Sequence[int]) -> list[bool]:
        """Whether the patch of each row ends with its id at its position."""

    def state(self) -> State:
        """The immutable state of all rows."""


class EntropySteps:
    """The patcher, one byte per row."""

    def __init__(self, rule: EntropyRule, state: EntropyState, rows: int, *, compiled: bool):
        patcher = rule.patcher
        self._stepper = patcher.stepper(state.patcher, rows, compiled=compiled and patcher.compiles)
        self._decide: Callable[[Tensor, Tensor], Tensor] = rule.ends
        self._entropy = state.entropy
        self._closed: list[bool] = state.closed.tolist()

    def ends(self, ids: Sequence[int], positions: Sequence[int]) -> list[bool]:
        H = entropies(self._stepper.step(ids))
        ends: list[bool] = self._decide(H, self._entropy.to(H.dtype)).tolist()
        self._entropy = H
        self._closed = [end or not at for end, at in zip(ends, positions, strict=True)]
        return ends

    def state(self) -> EntropyState:
        closed = torch.tensor(self._closed, device=self._entropy.device)
        return EntropyState(self._stepper.state(), self._entropy.clone(), closed)


class PlainSteps:
    """Rules about positions and ids, by numbers of Python."""

    def __init__(self, ends: Callable[[int, int], bool], state: State):
        self._ends, self._state = ends, state
        self._ids: Sequence[int] | None = None

    def ends(self, ids: Sequence[int], positions: Sequence[int]) -> list[bool]:
        self._ids = list(ids)
        return [self._ends(i, position) for i, position in zip(ids, positions, strict=True)]

    def state(self) -> State:
        if isinstance(self._state, NoState) or self._ids is None:
            return self._state
        assert isinstance(self._state, PreviousId), "no other rule is plain"
        return PreviousId(torch.tensor(self._ids, device=self._state.id.device))


def ending_steps(rule: BoundaryRule, state: Any, rows: int, *, compiled: bool) -> EndingSteps:
    """The rule in place."""
    if isinstance(rule, EntropyRule):
        return EntropySteps(rule, state, rows, compiled=compiled)
    if isinstance(rule, FixedRule):
        stride = rule.options.stride
        return PlainSteps(lambda i, position: position % stride == 0, state)
    assert isinstance(rule, GivenRule), f"there are no steps for {type(rule).__name__}"
    after = frozenset(rule.after)
    return PlainSteps(lambda i, position: i in after, state)


def _put(place: Tensor, index: Tensor | None, part: Tensor) -> None:
    if index is None:
        place.copy_(part)
    else:
        place.index_copy_(0, index, part.to(place.dtype))
