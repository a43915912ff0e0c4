"""Token language models behind the `TokenLM` protocol: one adapter per kind of model."""
