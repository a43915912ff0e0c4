"""Building blocks shared by the architectures. Nothing here knows a model or a trainer."""
