"""T5 1.1 over bytes: ByT5 (`T5`), and MrT5 (`MrT5`), whose encoder shortens the sequence."""

from bytelm.arch.t5.config import MrT5Config, T5Config
from bytelm.arch.t5.model import T5, T5Memory, T5State
from bytelm.arch.t5.mrt5 import MrT5

__all__ = ["T5", "MrT5", "MrT5Config", "T5Config", "T5Memory", "T5State"]
