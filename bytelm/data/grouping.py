"""Documents in groups: enough at a time to be worth a call, few enough to fit into memory."""

from collections.abc import Iterable, Iterator


def in_groups(documents: Iterable[bytes], *, least: int) -> Iterator[list[bytes]]:
    """Lists of consecutive documents, each list of at least `least` bytes but the last. Documents
    are taken one at a time, and only when a list is asked for."""
    group: list[bytes] = []
    size = 0
    for document in documents:
        group.append(document)
        size += len(document)
        if size >= least:
            yield group
            group, size = [], 0
    if group:
        yield group
