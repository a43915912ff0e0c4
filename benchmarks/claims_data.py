"""The claims of docs/evidence.md about reading data; see claims.py."""

from benchmarks.claim import Claim
from benchmarks.figures import span, times_bytelm

DATA_CLAIMS = (
    Claim(
        claim="Loading data is a negligible part of a training step",
        source="docs/scaling.md",
        result="loader_share",
        figure=lambda r: ", ".join(f"{row['recipe']} {row['percent']:.2f} %" for row in r["rows"]),
        runs=lambda r: f"{r['steps']} steps",
        verdict="holds",
        check=lambda r: max(row["percent"] for row in r["rows"]) < 1,
    ),
    Claim(
        claim="Reading windows is as fast as a plain `DataLoader` and faster than `datasets`",
        source="docs/scaling.md",
        result="data_loading",
        figure=lambda r: (
            f"a plain DataLoader takes {span(times_bytelm(r, 'plain DataLoader'), '.2f')} times, "
            f"datasets {span(times_bytelm(r, 'datasets streaming'), '.2f')} times our CPU time"
        ),
        verdict="partly",
    ),
    Claim(
        claim="A file of any size is inspected and built in constant memory, and any number of "
        "files is read through few descriptors",
        source="docs/scaling.md",
        result="data_memory",
        figure=lambda r: (
            f"{span([row['peak_mb'] for row in r['memory']], '.0f')} MB for "
            f"{r['memory'][0]['gigabytes']:g} GB, {r['descriptors']['most_descriptors']} "
            f"descriptors for {r['descriptors']['files']:,} files"
        ),
        verdict="holds",
        check=lambda r: (
            max(row["peak_mb"] for row in r["memory"]) < r["targets"]["peak_mb"]
            and r["descriptors"]["most_descriptors"] < r["targets"]["descriptors"]
        ),
    ),
    Claim(
        claim="The memory of the loader does not grow over an epoch",
        source="docs/scaling.md",
        result="loader_memory",
        command="python -m benchmarks.loader_share",
        figure=lambda r: (
            f"{span([row['main_anonymous_mb'] for row in r['rows']], '.1f')} MB at "
            f"{len(r['rows'])} moments of an epoch of {r['megabytes']} MiB"
        ),
        verdict="holds",
        check=lambda r: r["rows"][-1]["main_anonymous_mb"] - r["rows"][0]["main_anonymous_mb"] < 5,
    ),
)
