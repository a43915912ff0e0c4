"""The byte vocabulary: ids 0-255 are the byte values, every special symbol is 256 or more.

So `np.frombuffer(data, np.uint8)` is the tokenizer, any file is legal data, and no data can ever
spell a special symbol. EOS is 256 on purpose: the outcomes a `ByteLM` predicts (256 bytes and the
end) are then the first 257 logits of every native model. Other projects' id schemes are import and
export maps, kept where those formats are read (`bytelm.hub`), never here.

`TokenVocab` is the one other thing a model's ids can be: those of a tokenizer file, for a recipe
with `data.tokenizer`. Such a model is read as bytes through the exact converter (`lm/subword.py`).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType

from bytelm.errors import BytelmError, unknown_name

BYTES = 256
END = 256  # the "end" outcome of a ByteLM; equals the id of EOS
OUTCOMES = 257  # 256 bytes and the end

_FIXED = ("eos", "bos", "pad", "mask", "sep", "fim_prefix", "fim_suffix", "fim_middle")


@dataclass(frozen=True)
class ByteVocab:
    """Ids of the special symbols. Frozen; stored with each checkpoint.

    `sentinels` counts the extra symbols of span corruption (`sentinel_0` ...), ids 264 and up.

    >>> vocab = ByteVocab(sentinels=2)
    >>> vocab.size, vocab.eos, vocab["sentinel_1"]
    (266, 256, 265)
    """

    sentinels: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.sentinels <= 1000:
            raise BytelmError(f"sentinels must be between 0 and 1000, not {self.sentinels}")

    @property
    def specials(self) -> Mapping[str, int]:
        """Name -> id of every special symbol, in id order."""
        names = (*_FIXED, *(f"sentinel_{i}" for i in range(self.sentinels)))
        return MappingProxyType({name: BYTES + i for i, name in enumerate(names)})

    @property
    def size(self) -> int:
        """Number of ids, bytes included."""
        return BYTES + len(_FIXED) + self.sentinels

    def __getitem__(self, name: str) -> int:
        """The id of a special symbol by name; raises `BytelmError` for an unknown one."""
        if name not in self.specials:
            raise BytelmError(unknown_name("special symbol", name, self.specials))
        return self.specials[name]

    eos = property(lambda self: self["eos"])
    bos = property(lambda self: self["bos"])
    pad = property(lambda self: self["pad"])

    def to_dict(self) -> dict[str, object]:
        """What a checkpoint stores: `{"sentinels": n, "specials": {name: id}}`."""
        return {"sentinels": self.sentinels, "specials": dict(self.specials)}

    @classmethod
    def from_dict(cls, stored: Mapping[str, object]) -> "ByteVocab":
        """The vocabulary a checkpoint stored; `BytelmError` if its ids are not this scheme's."""
        vocab = cls(sentinels=int(stored.get("sentinels", 0)))  # type: ignore[call-overload]
        if dict(stored.get("specials", {})) != dict(vocab.specials):  # type: ignore[call-overload]
            raise BytelmError(
                f"the stored vocabulary {stored.get('specials')} is not this version's "
                f"{dict(vocab.specials)}: the checkpoint was written by another id scheme"
            )
        return vocab


@dataclass(frozen=True)
class TokenVocab:
    """Ids of a subword model: those of the tokenizer whose content has the hash `sha256`.

    bos begins every window and document, eos ends a document, pad fills rows; no text has them.
    """

    size: int
    bos: int
    eos: int
    pad: int
    sha256: str

    def to_dict(self) -> dict[str, object]:
        """What a checkpoint stores: size, ids and hash by name."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, object]) -> "TokenVocab":
        """The vocabulary a checkpoint stored; `BytelmError` if it is none."""
        try:
            return cls(**stored)  # type: ignore[arg-type]
        except TypeError as error:
            raise BytelmError(f"this is not a stored subword vocabulary: {error}") from None


Vocab = ByteVocab | TokenVocab


def vocab_from_dict(stored: Mapping[str, object]) -> Vocab:
    """The vocabulary that `to_dict` described, bytes or tokens."""
    kind = TokenVocab if "sha256" in stored else ByteVocab
    return kind.from_dict(stored)
