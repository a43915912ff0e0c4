"""The ids of a model over a tokenizer."""

from bytelm.tokenizer.bpe import BinaryBPE
from bytelm.vocab import TokenVocab

BOS, EOS, PAD = "<|start|>", "<|end|>", "<|pad|>"


def token_vocab(bpe: BinaryBPE) -> TokenVocab:
    """The ids a model over this tokenizer has; `BytelmError` if a special it needs is missing.

    >>> token_vocab(BinaryBPE.train([b"abab"], vocab_sizes=[264])[264]).eos
    1
    """
    return TokenVocab(
        size=bpe.vocab_size,
        bos=bpe.special(BOS),
        eos=bpe.special(EOS),
        pad=bpe.special(PAD),
        sha256=bpe.fingerprint,
    )
