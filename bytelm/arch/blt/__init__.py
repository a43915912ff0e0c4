"""BLT in four parts: its configuration, the entropy rule, the networks, and the language model."""

from bytelm.arch.blt.config import BLTConfig as BLTConfig
from bytelm.arch.blt.model import BLT as BLT
