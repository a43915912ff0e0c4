"""Other projects' checkpoints: configurations and state dicts in, and out again."""

from bytelm.hub.official import from_official as from_official
from bytelm.hub.official import to_official as to_official
