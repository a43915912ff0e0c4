"""`bytelm train` and its relatives."""

import typer


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
