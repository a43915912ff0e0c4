"""How commands show how far they are: a callback for the library, a `ProgressDisplay` behind it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(what: str, *, unit: str) -> Iterator[Callable[[int, int | None], None]]:
    """A callback `(done, in all)`; None in all: not known. Nothing is shown of short work."""
    from bytelm.progress import ProgressDisplay

    display = ProgressDisplay()

    def report(done: int, total: int | None = None) -> None:
        if total:
            share = min(done / total, 1.0)
            display.show(f"{what}: {share:4.0%} of {total:,} {unit}", share)
        else:
            display.show(f"{what}: {done:,} {unit}")

    try:
        yield report
    finally:
        display.close()


@contextmanager
def reading_progress() -> Iterator[Callable[[int, int], None]]:
    """A callback `(documents, bytes)` of what was read so far; what is to come is not known."""
    from bytelm.progress import ProgressDisplay

    display = ProgressDisplay()
    try:
        yield lambda documents, size: display.show(
            f"reading: {documents:,} documents, {size / 1e6:,.1f} MB"
        )
    finally:
        display.close()


@contextmanager
def scoring_progress(what: str, *, total: int | None) -> Iterator[None]:
    """Shows how many bytes have been scored by whatever model computes in this block."""
    from bytelm.lm.scored import watch_scored

    done = 0.0
    with progress(what, unit="bytes") as report:

        def add(count: float) -> None:
            nonlocal done
            done += count
            report(round(done), total)

        with watch_scored(add):
            yield
