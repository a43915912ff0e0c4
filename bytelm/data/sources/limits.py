"""`Limits`: what unpacking may cost before a file is refused as a bomb.

They are judged by what matters, and are the same wherever something is unpacked: archives, single
compressed files and compressed records. The ratio of bytes out to bytes in counts only beyond a
floor, since a short run of zeros is ordinary and a large honest text packs to a fifth, not to a
thousandth. Every error names the limit that struck and the setting that raises it.
"""

from dataclasses import dataclass, field, fields

from bytelm.data.settings import to_bytes
from bytelm.data.sources.spelling import Spelling
from bytelm.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits on what one file may unpack to, the archives nested in it included.

    unpacked_bytes  bytes that come out in all
    ratio           bytes out to bytes in, judged once `floor_bytes` have come out
    floor_bytes     bytes that may come out whatever the ratio
    nesting         archives in archives; 0: an archive in an archive is refused
    members         files in an archive, those of nested ones included
    window_bytes    memory a zstd frame may ask for (the default reads all that `zstd --long=31`
                    writes; it is taken as the frame fills it)

    Raises `DataError` for a value below 1 (of `nesting`: below 0).

    >>> Limits(members=0)
    Traceback (most recent call last):
    ...
    bytelm.errors.DataError: the limit members must be at least 1, not 0
    """

    unpacked_bytes: int = 1 << 40
    ratio: float = 250.0
    floor_bytes: int = 256 << 20
    nesting: int = 4
    members: int = 10_000_000
    window_bytes: int = 1 << 31

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            least = 0 if limit.name == "nesting" else 1
            if not value >= least:
                raise DataError(f"the limit {limit.name} must be at least {least}, not {value}")

    @staticmethod
    def setting(name: str) -> str:
        """The setting of commands and recipes that is a limit.

        >>> Limits.setting("unpacked_bytes")
        'max_unpacked'
        """
        return "max_" + name.removesuffix("_bytes")


def limits_of(
    *,
    max_unpacked: int | str | None = None,
    max_ratio: float | None = None,
    max_nesting: int | None = None,
    max_members: int | None = None,
    max_window: int | str | None = None,
) -> Limits:
    """The `Limits` of settings as a user gives them; None: the default. `DataError` for a limit
    below 1 (of nesting: below 0), or a size that is none.

    >>> limits_of(max_window="1MiB", max_nesting=0).window_bytes
    1048576
    """
    given = {
        "unpacked_bytes": None if max_unpacked is None else to_bytes(max_unpacked),
        "ratio": max_ratio,
        "nesting": max_nesting,
        "members": max_members,
        "window_bytes": None if max_window is None else to_bytes(max_window),
    }
    return Limits(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]


@dataclass
class Budget:
    """What one file, called `name` and `size` bytes long, has been unpacked to so far.

    `size` is None where only a beginning is looked at; then the ratio is not judged. Of a pipe it
    is what has been read of it.
    """

    limits: Limits
    size: int | None
    name: str
    spelling: Spelling = field(default_factory=Spelling)
    out: int = 0
    members: int = 0

    def spend(self, count: int) -> None:
        """Count bytes that came out; `DataError` when they are too many."""
        self.out += count
        limits = self.limits
        if self.out > limits.unpacked_bytes:
            self.refuse(
                "unpacked_bytes", f"it unpacks to more than {limits.unpacked_bytes:,} bytes"
            )
        if self.size is None or self.out <= limits.floor_bytes:
            return
        if self.out > limits.ratio * self.size:
            self.refuse(
                "ratio",
                f"its {self.size:,} bytes unpack to more than {limits.ratio:g} times as many (and "
                f"beyond the {limits.floor_bytes:,} bytes that may come out whatever the ratio)",
            )

    def count_member(self) -> None:
        """Count a member; `DataError` when they are too many."""
        self.members += 1
        if self.members > self.limits.members:
            self.refuse("members", f"it has more than {self.limits.members:,} members")

    def check_nesting(self, depth: int) -> None:
        """`DataError` for an archive `depth` archives deep, if that is too deep."""
        if depth > self.limits.nesting:
            self.refuse("nesting", f"archives are nested deeper than {self.limits.nesting}")

    def refuse(self, limit: str, why: str) -> None:
        """Raise the error that names a limit."""
        raise LimitError(
            f"{self.name} is refused as an archive bomb: {why}. If it is honest, raise the limit "
            f"with {self.spelling.of(Limits.setting(limit))}; "
            f"{self.spelling.switch('skip_errors')} leaves out the rest of the file"
        )


class LimitError(DataError):
    """A file unpacks to more than its `Limits` allow."""
