"""H-Net in three parts: its configuration, its levels, and the language model around them."""

from bytelm.arch.hnet.config import HNetConfig as HNetConfig
from bytelm.arch.hnet.model import HNet as HNet
