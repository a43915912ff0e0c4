"""`IdMap`: which row of a model's byte table an id of ours is, and how its logits come back.

Everything outside a model uses the ids of its vocabulary (bytes are 0-255, specials follow). Other
projects number their tables differently, and a checkpoint keeps the rows it was trained with. So an
imported model carries an `IdMap`, chosen once when it is built, and no forward pass asks which
release its weights came from.

Two things a reader may question. PAD may always be fed, even where the table has no row for it:
padding stands behind everything valid, so nothing that is read depends on its row. And two ids may
share a row (ByT5 spells its sentinels with the top byte values); their logits are then equal, and a
loss over ids would count that row twice: take it over rows instead, with `rows_of(targets)`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bytelm.errors import BytelmError
from bytelm.vocab import BYTES, ByteVocab, Vocab

Table = Literal["own", "hnet", "byt5", "blt"]
NONE = -1  # in `IdMap.row`: the table has no row for this id


@dataclass(frozen=True)
class IdMap:
    """Ids of a vocabulary against the rows of a table.

    table  what the table is, for messages: "the released H-Net"
    rows   number of rows R of the table, and of the head's outputs
    row    row of each id, NONE where the table has none; None = id and row are the same number
    pad    the id that may always be fed

    >>> ids = id_map("hnet", ByteVocab())
    >>> ids.rows_of(torch.tensor([97, ByteVocab().bos])).tolist()
    [97, 254]
    """

    table: str
    rows: int
    row: tuple[int, ...] | None
    pad: int

    def rows_of(self, ids: Tensor) -> Tensor:
        """Rows of ids (...), same shape; `BytelmError` for an id without one (PAD reads row 0)."""
        if self.row is None:
            return ids
        found = torch.tensor(self.row, device=ids.device)[ids]
        bad = (found == NONE) & (ids != self.pad)
        if bool(bad.any()):
            symbol = int(ids[bad][0])
            name = f"byte 0x{symbol:02X}" if symbol < BYTES else f"id {symbol}"
            raise BytelmError(
                f"{name} cannot be fed to {self.table}: its table of {self.rows} rows has none "
                f"for {self._without_row()}"
            )
        return found.clamp(min=0)

    def logits_of(self, logits: Tensor) -> Tensor:
        """Logits of rows (..., R) as logits of ids (..., V): -inf for ids without a row."""
        if self.row is None:
            return logits
        row = torch.tensor(self.row, device=logits.device)
        chosen = logits.index_select(-1, row.clamp(min=0))
        return chosen.masked_fill(row == NONE, -torch.inf)

    def _without_row(self) -> str:
        assert self.row is not None
        missing = [symbol for symbol, row in enumerate(self.row) if row == NONE]
        data = [f"0x{symbol:02X}" for symbol in missing if symbol < BYTES]
        specials = f"{len(missing) - len(data)} special symbols"
        return f"{', '.join(data)} and {specials}" if data else specials


def id_map(table: Table, vocab: Vocab) -> IdMap:
    """The map between a vocabulary's ids and the rows of a kind of table.

    own   row i is id i, as everything trained here has it
    hnet  the released H-Nets: 256 rows, of which 254 is BOS and 255 EOS (goombalab/hnet)
    byt5  384 rows: pad (which starts decoders, so also BOS) 0, EOS 1, byte b row b + 3, sentinel k
          row 258 - k, as its pre-training spelled them (google-research/byt5)
    blt   260 rows: BOS 1, EOS 2, byte b row b + 4; the two that no text has, 0 (begin of example)
          and 3 (a patch delimiter), are PAD and SEP (facebookresearch/blt)

    `BytelmError` for a table of bytes with a vocabulary of tokens, or without rows for the
    vocabulary's sentinels.
    """
    if table == "own":
        return IdMap("this model", vocab.size, None, vocab.pad)
    if not isinstance(vocab, ByteVocab):
        raise BytelmError(
            f"a table of the kind {table!r} holds bytes: it cannot be used with data.tokenizer"
        )
    scheme = _SCHEMES[table]
    row = [NONE] * vocab.size
    row[: scheme.bytes] = range(scheme.offset, scheme.offset + scheme.bytes)
    for special, number in scheme.specials.items():
        row[vocab[special]] = number
    if scheme.first_sentinel is not None:
        if vocab.sentinels > BYTES:
            raise BytelmError(f"{scheme.name} has rows for {BYTES} sentinels at most")
        for k in range(vocab.sentinels):
            row[vocab[f"sentinel_{k}"]] = scheme.first_sentinel - k
    return IdMap(scheme.name, scheme.rows, tuple(row), vocab.pad)


@dataclass(frozen=True, kw_only=True)
class _Scheme:
    """How a project numbers its table: byte b is row b + offset for b < bytes; sentinel k is row
    first_sentinel - k."""

    name: str
    rows: int
    offset: int
    specials: Mapping[str, int]
    bytes: int = BYTES
    first_sentinel: int | None = None


_SCHEMES = {
    "hnet": _Scheme(
        name="a released H-Net", rows=256, offset=0, bytes=254, specials={"bos": 254, "eos": 255}
    ),
    "byt5": _Scheme(
        name="a released ByT5",
        rows=384,
        offset=3,
        specials={"bos": 0, "pad": 0, "eos": 1},
        first_sentinel=258,
    ),
    "blt": _Scheme(
        name="a released BLT",
        rows=260,
        offset=4,
        specials={"pad": 0, "bos": 1, "eos": 2, "sep": 3},
    ),
}
