"""What the tokens of an executable vocabulary are: headers, instruction idioms, strings, padding.

The table below is of byte sequences whose meaning is fixed by a format or an instruction set. It is
matched against tokens as they are; nothing is disassembled.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from bytelm.tokenizer.bpe import BinaryBPE

KNOWN = {
    b"\x7fELF\x02\x01\x01": "ELF header, 64 bit, little endian",
    b"\x7fELF\x01\x01\x01": "ELF header, 32 bit, little endian",
    b"\x7fELF": "ELF magic number",
    b"MZ\x90\x00": "DOS header of a PE file",
    b"PE\x00\x00": "PE signature",
    b"!This program cannot be run in DOS mode.": "DOS stub message",
    b"\xcf\xfa\xed\xfe": "Mach-O header, 64 bit",
    b"\xca\xfe\xba\xbe": "fat Mach-O or Java class",
    b"\x00asm\x01\x00\x00\x00": "WebAssembly header",
    b"dex\n": "Android dex header",
    b"\xf3\x0f\x1e\xfa": "x86-64 endbr64",
    b"\x55\x48\x89\xe5": "x86-64 push rbp; mov rbp, rsp",
    b"\x48\x83\xec": "x86-64 sub rsp, imm8",
    b"\x48\x83\xc4": "x86-64 add rsp, imm8",
    b"\x48\x8b\x05": "x86-64 mov rax, [rip + disp32]",
    b"\x48\x8d\x3d": "x86-64 lea rdi, [rip + disp32]",
    b"\x0f\x1f\x44\x00\x00": "x86 nop, 5 bytes",
    b"\x66\x0f\x1f\x44\x00\x00": "x86 nop, 6 bytes",
    b"\x66\x2e\x0f\x1f\x84\x00\x00\x00\x00\x00": "x86 nop, 10 bytes",
    b"\x5d\xc3": "x86 pop rbp; ret",
    b"\x0f\x84": "x86 je rel32",
    b"\x0f\x85": "x86 jne rel32",
    b"\xcc\xcc\xcc\xcc": "x86 int3 padding",
    b"\xc0\x03\x5f\xd6": "ARM64 ret",
    b"\xfd\x7b\xbf\xa9": "ARM64 stp x29, x30, [sp, -16]!",
    b"\xfd\x03\x00\x91": "ARM64 mov x29, sp",
    b"\x1f\x20\x03\xd5": "ARM64 nop",
    b"\x3f\x23\x03\xd5": "ARM64 paciasp",
    b"\x1e\xff\x2f\xe1": "ARM bx lr",
    b"\x00\x00\xa0\xe1": "ARM nop (mov r0, r0)",
    b"\x70\x47": "Thumb bx lr",
    b"\x08\x00\xe0\x03": "MIPS jr ra",
    b"\x20\x00\x80\x4e": "PPC64 blr",
    b"\x07\xfe": "S390 br r14",
    b"\x82\x80": "RISC-V ret (compressed)",
}


@dataclass(frozen=True)
class TokenUse:
    """One token: its bytes, what it is, and how often it occurs in which class of file."""

    number: int
    text: bytes
    kind: str
    counts: dict[str, int]


def kind_of(token: bytes) -> str:
    """What a token is: a known pattern, a filler, a string, a wide string, a number or `binary`.

    >>> kind_of(b"\\xc0\\x03\\x5f\\xd6"), kind_of(b"\\0\\0\\0"), kind_of(b"error")
    ('ARM64 ret', 'fill', 'string')
    """
    if token in KNOWN:
        return KNOWN[token]
    if len(set(token)) == 1:
        return "fill" if len(token) > 1 else "byte"
    if is_text(token):
        return "string"
    if len(token) >= 4 and not any(token[1::2]) and is_text(token[::2]):
        return "wide string"
    if len(token) in (4, 8) and token[len(token) // 2 :] in (bytes(len(token) // 2), b"\xff" * 4):
        return "small integer"
    return "binary"


def is_text(data: bytes) -> bool:
    """Whether all bytes are printable ASCII, with a final NUL allowed."""
    body = data.removesuffix(b"\0") or data
    return all(32 <= byte < 127 or byte in (9, 10, 13) for byte in body)


def length_histogram(bpe: BinaryBPE) -> dict[int, int]:
    """Number of tokens of each length in bytes."""
    return dict(sorted(Counter(len(t) for t in bpe.token_bytes if t is not None).items()))


def holds_nested(large: BinaryBPE, small: BinaryBPE) -> bool:
    """Whether the small vocabulary is the beginning of the large one, with the same ids."""
    same_bytes = large.token_bytes[: small.vocab_size] == small.token_bytes
    count = len(small.codec.merges)
    return same_bytes and np.array_equal(large.codec.merges[:count], small.codec.merges)


def token_uses(bpe: BinaryBPE, documents: list[tuple[str, bytes]]) -> list[TokenUse]:
    """Every multi-byte token that occurs in the (class, bytes) documents, the commonest first."""
    by_class: dict[str, np.ndarray] = {}
    for kind, data in documents:
        found = np.bincount(bpe.encode(data), minlength=bpe.vocab_size)
        by_class[kind] = by_class[kind] + found if kind in by_class else found
    if not by_class:
        return []
    total = np.sum(list(by_class.values()), axis=0)
    uses = []
    for number in np.argsort(-total, kind="stable").tolist():
        text = bpe.token_bytes[number]
        if total[number] == 0:
            break
        if text is not None and len(text) > 1:
            counts = {kind: int(n[number]) for kind, n in by_class.items() if n[number]}
            uses.append(TokenUse(number, text, kind_of(text), counts))
    return uses


def known_tokens(bpe: BinaryBPE) -> dict[int, str]:
    """Id -> meaning of the tokens that are entries of `KNOWN`."""
    return {
        number: KNOWN[text]
        for number, text in enumerate(bpe.token_bytes)
        if text is not None and text in KNOWN
    }
