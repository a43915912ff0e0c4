"""`bytelm models`: what can be trained, how large it is and what a byte costs."""

from typing import Annotated, Any

import typer

from bytelm.cli.output import note, print_json


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command()(models)


def models(
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """List architectures and recipes, with parameters and FLOPs per byte (or token)."""
    from bytelm.registry import architectures

    rows = [_describe(name) for name in _recipe_names()]
    if json:
        print_json({"architectures": architectures(), "recipes": rows})
        return
    print("architectures: " + ", ".join(sorted(architectures())))
    if not rows:
        note("no recipes found: put NAME.toml files into ./models")
        return
    width = max(len(row["name"]) for row in rows)
    print(f"{'recipe':{width}}  {'parameters':>11}  {'MFLOP/byte':>10}  {'context':>8}")
    for row in rows:
        print(_line(row, width))


def _recipe_names() -> list[str]:
    from bytelm.recipe import recipe_folders

    return sorted({file.stem for folder in recipe_folders() for file in folder.glob("*.toml")})


def _describe(name: str) -> dict[str, Any]:
    """One recipe's figures; `error` instead when it is not valid here."""
    import torch

    from bytelm.errors import BytelmError
    from bytelm.recipe import Recipe
    from bytelm.training import build

    try:
        recipe = Recipe.load(name)
        with torch.device("meta"):
            model = build(recipe)
    except BytelmError as error:
        return {"name": name, "error": str(error)}
    context = recipe.train.context_bytes
    return {
        "name": name,
        "arch": recipe.model.arch,
        "parameters": sum(p.numel() for p in model.parameters()),
        # the cost of a position: a byte, or of a recipe with data.tokenizer a token
        f"flops_per_{'token' if recipe.data.tokenizer else 'byte'}": model.flops_per_byte(context),
        "context_bytes": context,
    }


def _line(row: dict[str, Any], width: int) -> str:
    if "error" in row:
        return f"{row['name']:{width}}  {row['error']}"
    tokens = "flops_per_token" in row
    flops = row["flops_per_token" if tokens else "flops_per_byte"] / 1e6
    return (
        f"{row['name']:{width}}  {row['parameters']:>11,}  {flops:>10.2f}  "
        f"{row['context_bytes']:>8,}{'  (MFLOP a token)' if tokens else ''}"
    )
