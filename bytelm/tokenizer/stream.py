"""Encoding a stream exactly, with memory for a block and the last few tokens only.

Whatever bytes follow the first N, their encoding has a token boundary among the last `longest`
places up to N (a token that crosses N starts there), and up to that boundary it is the encoding of
those bytes alone. So the tokens shared by the encodings of all prefixes that end there are final.
Such a prefix need not be encoded from its beginning: tokens are an encoding exactly if every two
neighbours go together, so the known beginning and the encoding of a short rest are one as soon as
the two tokens at the seam go together; if they do not, the seam moves back.
"""

from bisect import bisect_right

import numpy as np

from bytelm.errors import BytelmError
from bytelm.tokenizer.bpe import BinaryBPE

_SEAM = 2  # tokens between the seam that is tried first and the end of a prefix


class StreamEncoder:
    """Feed bytes in any portions; the ids together are those of `bpe.encode` on the whole.

    >>> bpe = BinaryBPE.train([b"abab"], [264])[264]
    >>> encoder = StreamEncoder(bpe)
    >>> [encoder.feed(b"aba").tolist(), encoder.feed(b"b").tolist(), encoder.finish().tolist()]
    [[], [], [263, 263]]
    """

    def __init__(self, bpe: BinaryBPE, *, block: int = 1 << 16):
        if not bpe.codec.exact:
            raise BytelmError("this vocabulary has unreachable tokens: encode whole documents")
        if bpe.added:
            raise BytelmError("this vocabulary has added tokens: encode whole documents")
        self._bpe, self._block, self._due = bpe, block, block
        self._longest = int(bpe.codec.lengths.max())
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """Bytes whose tokens depend on what follows, or were not looked at yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> np.ndarray:
        """The ids that have become final, as uint32; looks when a block is full."""
        self._buffer += data
        if len(self._buffer) < self._due:
            return np.zeros(0, np.uint32)
        ids, offsets = self._bpe.encode_with_offsets(bytes(self._buffer))
        final = self._final(self._bpe.codec.encode(bytes(self._buffer)).tolist(), offsets.tolist())
        del self._buffer[: int(offsets[final])]
        self._due = max(self._block, 2 * len(self._buffer))  # else little progress costs much
        return ids[:final]

    def finish(self) -> np.ndarray:
        """The ids of everything still buffered; the encoder is then as new."""
        ids = self._bpe.encode(bytes(self._buffer))
        self._buffer.clear()
        self._due = self._block
        return ids

    def _final(self, tokens: list[int], offsets: list[int]) -> int:
        """How many of the tokens that encode the buffer no further byte can change."""
        final, size = len(tokens), len(self._buffer)
        for end in range(max(size - self._longest + 1, 1), size):
            seam = min(bisect_right(offsets, end) - 1 - _SEAM, final)
            while seam > 0 and not self._joins(tokens[seam - 1], offsets[seam], end):
                seam -= 1
            final = min(final, max(seam, 0))
        return final

    def _joins(self, before: int, start: int, end: int) -> bool:
        """Whether the encoding of buffer[start:end] can follow the token `before`."""
        codec = self._bpe.codec
        first = int(codec.encode(bytes(self._buffer[start:end]))[0])
        return len(codec.encode(codec.token(before) + codec.token(first))) == 2
