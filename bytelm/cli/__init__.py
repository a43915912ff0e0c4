"""The `bytelm` command. One file a command group; none of them imports torch at module level."""


def main() -> None:
    """Entry point: runs a command; user mistakes exit with 2 and one paragraph, bugs with 1."""
    from bytelm.cli.app import run

    run()
