"""The settings of reading that users have: options of commands and settings of recipes alike.

They are described here once, apart from the sources, so that `--help` waits for none of these.
"""

import re

from bytelm.errors import DataError

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}

SETTINGS = {
    "field": "JSON or column name that holds a record's text; default: text.",
    "raw": "Take every file as it stands, archives and records too.",
    "strict": "Links, files that are not what their name says, and whatever else would be "
    "reported as skipped are errors.",
    "skip_errors": "Leave out what is damaged, encrypted or beyond a limit, and report it.",
    "max_unpacked": "What one file may unpack to; default: 1TiB.",
    "max_ratio": "Bytes out to bytes in, beyond the first 256 MiB; default: 250.",
    "max_nesting": "Archives in archives; default: 4.",
    "max_members": "Files in an archive; default: 10 million.",
    "max_window": "Memory of a zstd frame; default: 2GiB.",
}


def to_bytes(size: int | str) -> int:
    """Bytes from a number of them, or from `2GiB`, `500m` or `1000000`; `DataError` for others.

    >>> to_bytes("2GiB"), to_bytes("1.5k"), to_bytes(7)
    (2147483648, 1536, 7)
    """
    if isinstance(size, int):
        return size
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", size.strip().lower())
    if not match:
        raise DataError(f"expected a size such as 2GiB or 500M, not {size!r}")
    return int(float(match[1]) * _UNITS[match[2]])
