"""What a generation reports of itself: how fast it read and wrote, and by which backend."""

from __future__ import annotations

from dataclasses import dataclass

from bytelm.lm.speculative import DraftCounts


@dataclass(slots=True)
class GenerationStats:
    """Times are wall time in seconds.

    backend        what decoded last: "immutable", "eager" or "compiled"
    why            why that one, as a clause
    prompt_bytes   bytes of prompts and contexts that were read
    prefill        time that took
    first          from the first step of the run to its first outcome; None = there was none
    written        outcomes written, ends of texts included
    decode         time that took, the first outcome of a text left out, which its prefill gives
    drafts         what drafts were good for; None = no text was written with them
    chunks         chunks that hierarchical models began while writing, of their outermost stage
    """

    backend: str = "none"
    why: str = "nothing was written"
    prompt_bytes: int = 0
    prefill: float = 0.0
    first: float | None = None
    written: int = 0
    decode: float = 0.0
    chunks: int = 0
    begun: int = 0  # texts that were begun
    drafts: DraftCounts | None = None

    def lines(self) -> list[str]:
        """For people: one fact per line."""
        found = [f"backend: {self.backend} ({self.why})"]
        rate = f"{self.prompt_bytes / self.prefill:.0f} bytes/s" if self.prefill else "none"
        found.append(f"prefill: {self.prompt_bytes} bytes, {rate}")
        if self.first is not None:
            found.append(f"time to first byte: {self.first:.3f} s")
        steps = self.written - self.begun
        rate = f"{steps / self.decode:.0f} bytes/s" if steps > 0 and self.decode else "none"
        found.append(f"decode: {self.written} bytes, {rate}")
        if self.chunks:
            found.append(f"chunks begun: {self.chunks}")
        if self.drafts is not None:
            counts = self.drafts
            found.append(
                f"drafts: {counts.accepted} of {counts.drafted} bytes accepted, "
                f"{counts.per_call:.2f} bytes per call of the model"
            )
        return found
