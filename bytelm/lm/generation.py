"""`Generation`: the decoding loop as an object, for prompts that come and go while it runs.

Up to `rows` texts are written at once, as one batch of the model (continuous batching). A text that
ends leaves the batch before the model's next forward, and waiting prompts take the free rows: all
that wait and fit are read in one prefill (one per class of lengths, so that a short prompt is not
padded to a long one) and joined to the running rows, which meanwhile lose no step. Each text has
its own options, random numbers and constraint, so it is what it would be alone. A beam search is
one text that takes several rows. A text with a draft may get several outcomes in a step
(`lm/speculative.py`).

A mistake of one request (a context the model has no room for, a constraint that leads nowhere) ends
that request with the finish "error"; `result` raises it. The others do not notice.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

from torch import Tensor

from bytelm.errors import BytelmError
from bytelm.lm.beam import BeamWriter
from bytelm.lm.decoding import Backend, Decoding, check_backend, decoding
from bytelm.lm.draft import Draft
from bytelm.lm.options import GenerateOptions
from bytelm.lm.protocol import BatchState, ByteLM, Context, ContextLike, require_possible
from bytelm.lm.speculative import DraftCounts, DraftedText, Speculation, readable
from bytelm.lm.stats import GenerationStats
from bytelm.lm.writer import Finish, Generated, Writer, write_step

Event = tuple[int, bytes, Finish | None]
_SHORT = 64  # bytes; prompts below are read together whatever their lengths


@dataclass(slots=True, eq=False)
class _Request:
    """One text to be written after a prompt, and whether its caller was told how it ended."""

    key: int
    prompt: bytes
    context: Context
    writer: Writer | BeamWriter
    drafted: DraftedText | None = None  # if it is written with drafts
    told: bool = False

    @property
    def rows(self) -> int:
        """How many rows of the batch it may take."""
        return max(1, self.writer.options.beams)

    def event(self) -> Event | None:
        """What is to be told of it now."""
        if self.told or self.writer.finish == "cancelled":
            return None
        piece, finish = self.writer.take(), self.writer.finish
        self.told = finish is not None
        return (self.key, piece, finish) if piece or finish else None


class Generation:
    """Writes texts after prompts, at most `rows` at a time.

    >>> from bytelm.lm.ngram import NgramLM
    >>> run = Generation(NgramLM.train([b"to be or not to be"], order=4), rows=2)
    >>> options = GenerateOptions(max_bytes=4, temperature=0)
    >>> keys = [run.add(prompt, options) for prompt in (b"to be", b"or n", b"or")]
    >>> texts = dict.fromkeys(keys, b"")
    >>> for key, piece, finish in run:
    ...     texts[key] += piece
    >>> list(texts.values()), run.result(keys[2]).finish
    ([b' or ', b'ot t', b' not'], 'length')

    backend: what decodes native models: "eager" is torch, "compiled" kernels for up to 32 rows that
    exist for some models on CPUs (`BytelmError` for others), "auto" what pays for the bytes wanted.
    `stats` says what it was.
    """

    def __init__(self, lm: ByteLM, *, rows: int = 16, backend: Backend = "auto"):
        if rows < 1:
            raise BytelmError(f"rows must be at least 1, not {rows}")
        check_backend(lm, backend)
        self.lm, self.rows, self.backend = lm, rows, backend
        self._stats, self._began = GenerationStats(), 0.0
        self._keys = count()
        self._known: dict[int, _Request] = {}
        self._waiting: dict[int, _Request] = {}
        self._running: list[_Request] = []
        self._batch: Decoding | None = None  # the running rows; None if there are none
        self._speculation = Speculation()
        self._verified: list[_Request] = []  # that were written in this step already
        self._due: deque[_Request] = deque()  # of whose last step nobody was told yet

    @property
    def stats(self) -> GenerationStats:
        """What the run has done until now."""
        running = 0 if self._batch is None else self._batch.chunks
        counts = self.draft_counts if self.draft_counts.calls else None
        return replace(self._stats, chunks=self._stats.chunks + running, drafts=counts)

    @property
    def running(self) -> int:
        """How many texts are in the batch and not finished."""
        return sum(request.writer.finish is None for request in self._running)

    @property
    def draft_counts(self) -> DraftCounts:
        """What drafts were good for so far, in all texts that are written with them."""
        return self._speculation.counts

    @property
    def waiting(self) -> int:
        """How many prompts wait for a free row."""
        return len(self._waiting)

    def add(
        self,
        prompt: bytes = b"",
        options: GenerateOptions | None = None,
        *,
        context: ContextLike = None,
    ) -> int:
        """Ask for a text after `prompt`; -> the key by which events and results name it.

        context: as in `ByteLM.start`. It may be added at any time, also between two events, and
        begins as soon as a row is free. `BytelmError` if the options cannot be met.
        """
        (prompt,), (given,) = self.lm.checked("prompt", [prompt], [context])
        options = options or GenerateOptions()
        if options.beams and self.backend == "compiled":
            raise BytelmError(
                "a beam search forks its texts with every byte, which compiled decoding cannot: "
                "use backend='auto'"
            )
        if options.beams > self.rows:
            raise BytelmError(
                f"a search with {options.beams} beams takes as many rows, and the run has "
                f"{self.rows}: make it with more rows"
            )
        key, drafted = next(self._keys), None
        writer = BeamWriter(options) if options.beams else Writer(prompt, options)
        if options.draft is not None and isinstance(writer, Writer):
            options.draft.check(given)
            drafted = DraftedText.of(key, given, prompt, writer)
        request = _Request(key, prompt, given, writer, drafted)
        self._known[request.key] = self._waiting[request.key] = request
        return request.key

    def cancel(self, key: int) -> None:
        """End a text now; its `result` is what was written, and no event follows. A text whose last
        event came stays as it is."""
        request = self._request(key)
        self._waiting.pop(key, None)
        if not request.told:
            request.writer.finish = "cancelled"

    def forget(self, key: int) -> None:
        """Cancel a text and free what is kept for its `result`: for runs that never end."""
        self.cancel(key)
        del self._known[key]

    def result(self, key: int) -> Generated:
        """The finished text; raises the error of one that ended in "error".

        `BytelmError` for an unknown key or a text that is not finished.
        """
        writer = self._request(key).writer
        if writer.finish is None:
            raise BytelmError(f"text {key} is not finished: iterate over the run first")
        return writer.result()

    def __iter__(self) -> Iterator[Event]:
        """(key, piece, finish) until nothing runs or waits: the next whole characters of a text,
        and how it ended (None while it has not). Its pieces together are its `result`.

        Leaving the loop loses nothing: another one resumes there.
        """
        while self._due or self._waiting or self.running:
            if not self._due:
                self._step()
            while self._due:
                if event := self._due.popleft().event():
                    yield event

    def step(self) -> list[Event]:
        """One more outcome for every row of the batch, in which waiting prompts took the free rows;
        -> its events, as iterating gives them one by one."""
        self._step()
        events = [request.event() for request in self._due]
        self._due.clear()
        return [event for event in events if event]

    def _step(self) -> None:
        began, read = time.perf_counter(), self._stats.prefill
        self._began = self._began or began
        self._advance()
        taken = self._admit()
        if self._batch is not None:
            self._write(self._batch.logprobs())
            now = time.perf_counter()
            if self._stats.first is None:
                self._stats.first = now - self._began
            self._stats.decode += now - began - (self._stats.prefill - read)
            self._stats.written += len(self._running)
        self._due += [request for request in taken if request not in self._running]
        self._due += self._running

    def _write(self, logprobs_BO: Tensor) -> None:
        """Give each text the distributions after its rows."""
        single: list[tuple[int, Writer]] = []
        highest = logprobs_BO.numpy().max(-1).tolist()  # NaN if a row has one
        dead = [b for b, high in enumerate(highest) if not high > -math.inf]
        at = 0
        for request in self._running:
            writer = request.writer
            if request in self._verified:
                pass
            elif at in dead:
                self._fail(request, logprobs_BO[at])
            elif isinstance(writer, Writer):
                single.append((at, writer))
            else:
                writer.step(logprobs_BO[at : at + writer.width])
            at += writer.width
        if single:
            rows, writers = zip(*single, strict=True)
            self._speculation.counts.plain(
                sum(writer.options.draft is not None for writer in writers)
            )
            write_step(logprobs_BO if len(rows) == at else logprobs_BO[list(rows)], writers)

    def _fail(self, request: _Request, logprobs: Tensor) -> None:
        """End a text after which, by `logprobs` (257,), nothing can come."""
        text = request.prompt + (
            request.writer.written if isinstance(request.writer, Writer) else b""
        )
        try:
            require_possible(self.lm, logprobs, text, request.context)
        except BytelmError as error:
            request.writer.fail(error)

    def _request(self, key: int) -> _Request:
        if key not in self._known:
            raise BytelmError(f"there is no text with the key {key!r} in this run")
        return self._known[key]

    def _advance(self) -> None:
        """Let finished texts leave, and feed the others what they wrote."""
        left, rows, pieces, at = [], [], [], 0
        for request in self._running:
            writer, first = request.writer, at
            at += writer.width
            if writer.finish is None:
                left.append(request)
                rows += [first + row for row, _ in writer.next_rows]
                pieces += [piece for _, piece in writer.next_rows]
                writer.width = len(writer.next_rows)
        self._running = left
        if not left or self._batch is None:
            if self._batch is not None:
                self._stats.chunks += self._batch.chunks
            self._batch = None
            return
        if rows != list(range(at)):
            self._hold(self._batch.state().select(rows))
        self._verified = []
        drafts = self._speculation.propose([r.drafted for r in left if r.drafted is not None])
        if any(draft.outcomes for draft in drafts.values()):
            self._verify(drafts, pieces)
        else:
            self._batch.feed(pieces)

    def _verify(self, drafts: Mapping[int, Draft], pieces: Sequence[bytes]) -> None:
        """Feed the rows their pieces and what is drafted after them, in one call, and write what
        comes of it; rows without a draft are written as always."""
        assert self._batch is not None, "there are rows to verify drafts for"
        possible_BO = ~self._batch.logprobs().isneginf()
        fed, at = list(pieces), 0
        for request in self._running:
            if (draft := drafts.get(request.key)) is not None:
                fed[at] += readable(draft, possible_BO[at])
            at += request.writer.width
        ahead = self._batch.state().read_ahead(fed)
        kept, at = [len(piece) for piece in pieces], 0
        for request in self._running:
            if (draft := drafts.get(request.key)) is not None:
                kept[at] = self._verify_one(request, draft, ahead.logprobs[at].cpu())
                self._verified.append(request)
            at += request.writer.width
        self._hold(ahead.state(kept))

    def _verify_one(self, request: _Request, draft: Draft, logprobs_NO: Tensor) -> int:
        """Write what comes of a draft; -> how many bytes its row keeps."""
        assert request.drafted is not None, "only drafted texts are verified"
        fail = partial(self._fail, request)
        written = self._speculation.verify(request.drafted, draft, logprobs_NO, fail)
        self._stats.written += max(1, written) - 1  # one is counted with every step
        return max(1, written)

    def _hold(self, state: BatchState) -> None:
        """Decode these rows from now on."""
        if self._batch is not None:
            self._stats.chunks += self._batch.chunks
        options = [request.writer.options for request in self._running]
        self._batch = decoding(
            state,
            forks=any(given.beams for given in options),
            backend=self.backend,
            wanted=sum(given.max_bytes for given in options),
        )
        self._stats.backend, self._stats.why = self._batch.backend, self._batch.why

    def _admit(self) -> list[_Request]:
        """Let waiting prompts join where rows are free; -> those that no longer wait. One that has
        nothing to write takes no row."""
        taken: list[_Request] = []
        joining: list[_Request] = []
        free = self.rows - sum(request.rows for request in self._running)
        while self._waiting:
            request = next(iter(self._waiting.values()))
            if request.writer.finish is None:
                if request.rows > free:
                    break
                free -= request.rows
                joining.append(request)
            taken.append(self._waiting.pop(request.key))
        for group in _of_like_length(joining):
            self._prefill(group)
        return taken

    def _prefill(self, joining: Sequence[_Request]) -> None:
        """Read the prompts together and join them to the batch."""
        try:
            state = self._started(joining)
        except BytelmError as error:
            if len(joining) == 1:
                joining[0].writer.fail(error)
                return
            for request in joining:  # find out whose mistake it is
                self._prefill([request])
            return
        self._running += joining
        self._hold(state if self._batch is None else self._batch.state().join([state]))

    def _started(self, joining: Sequence[_Request]) -> BatchState:
        """One row per request. A prompt that several share is read once."""
        asked = [(request.prompt, request.context) for request in joining]
        place = {both: i for i, both in enumerate(dict.fromkeys(asked))}
        prompts, contexts = zip(*place, strict=True)
        began = time.perf_counter()
        state = self.lm.start_batch(prompts, context=contexts)
        self._stats.prefill += time.perf_counter() - began
        self._stats.prompt_bytes += sum(map(_size, place))
        self._stats.begun += len(joining)
        return state if len(place) == len(asked) else state.select([place[both] for both in asked])


def _size(asked: tuple[bytes, Context]) -> int:
    """Symbols of a prompt and its context."""
    prompt, context = asked
    return len(prompt) + sum(len(part) if isinstance(part, bytes) else 1 for part in context)


def _of_like_length(requests: Sequence[_Request]) -> list[list[_Request]]:
    """The requests in groups to be read together: below 64 bytes, 128, 256 and so on. Padding then
    at most doubles a long prefill."""
    groups: dict[int, list[_Request]] = {}
    for request in requests:
        size = _size((request.prompt, request.context))
        groups.setdefault((size // _SHORT).bit_length(), []).append(request)
    return list(groups.values())
