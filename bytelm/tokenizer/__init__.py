"""Binary BPE: byte-pair vocabularies for raw bytes, trained in seconds and encoded exactly."""

from bytelm.tokenizer.bpe import SPECIAL_TOKENS as SPECIAL_TOKENS
from bytelm.tokenizer.bpe import BinaryBPE as BinaryBPE
from bytelm.tokenizer.bpe import EncodedCorpus as EncodedCorpus
