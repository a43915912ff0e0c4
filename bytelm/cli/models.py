"""`bytelm models`: what can be trained, how large it is and what a byte costs; every setting.

Without a name it lists architectures, objectives and recipes. With one it shows the settings of an
architecture or objective (what [model] and [objective] of a recipe may say), or a recipe whole.
"""

import inspect
from typing import Annotated, Any

import typer

from bytelm.cli.common import Json, complete_recipes
from bytelm.cli.output import note, print_json
from bytelm.cli.settings import lines_of, settings_of, toml


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command()(models)


def _complete(incomplete: str) -> list[tuple[str, str]]:
    from bytelm.registry import ARCHITECTURES, OBJECTIVES

    parts = [(name, part.kind) for part in (ARCHITECTURES, OBJECTIVES) for name in part.names()]
    recipes = list(complete_recipes(incomplete))
    return [*(part for part in parts if part[0].startswith(incomplete)), *recipes]


def models(
    name: Annotated[
        str | None,
        typer.Argument(
            help="An architecture, an objective, or a recipe: show it.", autocompletion=_complete
        ),
    ] = None,
    json: Json = False,
) -> None:
    """List architectures, objectives and recipes (parameters, FLOPs per byte), or show one."""
    if name is None:
        _list(json=json)
        return
    found = _find(name)
    if json:
        print_json(found)
    else:
        _show(found)


def _list(*, json: bool) -> None:
    from bytelm.registry import ARCHITECTURES, OBJECTIVES

    rows = [_describe(name) for name in _recipe_names()]
    if json:
        parts = {"architectures": ARCHITECTURES.targets(), "objectives": OBJECTIVES.targets()}
        print_json({**parts, "recipes": rows})
        return
    print("architectures: " + ", ".join(sorted(ARCHITECTURES.names())))
    print("objectives:    " + ", ".join(sorted(OBJECTIVES.names())))
    if not rows:
        note("no recipes found: put NAME.toml files into ./models")
        return
    width = max(len(row["name"]) for row in rows)
    print(f"{'recipe':{width}}  {'parameters':>11}  {'MFLOP/byte':>10}  {'context':>8}")
    for row in rows:
        print(_line(row, width))


def _find(name: str) -> dict[str, Any]:
    """All there is to say about `name`; `BytelmError` with the nearest match if nothing has it."""
    from pathlib import Path

    from bytelm.errors import BytelmError, unknown_name
    from bytelm.registry import ARCHITECTURES, OBJECTIVES

    for registry in (ARCHITECTURES, OBJECTIVES):
        if name in registry.names():
            part = registry.get(name)
            return {
                "kind": registry.kind,
                "name": name,
                "class": registry.targets()[name],
                "family": part.family,
                "summary": (inspect.getdoc(part) or "").partition(">>>")[0].strip(),
                "settings": settings_of(part.Config),
            }
    recipes = _recipe_names()
    if name in recipes or Path(name).suffix == ".toml":
        return _recipe(name)
    known = [*ARCHITECTURES.names(), *OBJECTIVES.names(), *recipes]
    raise BytelmError(unknown_name("architecture, objective or recipe", name, known))


def _recipe(name: str) -> dict[str, Any]:
    """A recipe's file, figures and every setting, defaults included."""
    from bytelm.recipe import Recipe, find_recipe

    path = find_recipe(name)
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return {
        "kind": "recipe",
        "path": str(path),
        "summary": first.removeprefix("#").strip() if first.startswith("#") else "",
        **_describe(name),
        "settings": Recipe.load(name).to_dict(),
    }


def _show(found: dict[str, Any]) -> None:
    if found["kind"] == "recipe":
        print(f"{found['name']}: {found['summary']}\n{found['path']}")
        if "error" not in found:
            print(f"{found['parameters']:,} parameters, {_cost(found)}")
        _show_sections(found["path"])
        return
    print(f"{found['kind']} {found['name']} ({found['family']}, {found['class']})")
    print(found["summary"])
    settings = lines_of(found["settings"])
    print("\n" + ("\n".join(["settings:", *settings]) if settings else "it has no settings"))


def _show_sections(path: str) -> None:
    """Every setting of a recipe as it would be written in one, its description as a comment."""
    from bytelm.recipe import Recipe

    recipe = Recipe.load(path)
    fields = {"model": recipe.architecture.Config, "objective": recipe.objective_class.Config}
    for section, values in recipe.to_dict().items():
        if not isinstance(values, dict):
            continue
        print(f"\n[{section}]")
        own = type(getattr(recipe, section)).model_fields
        known = {**own, **(fields[section].model_fields if section in fields else {})}
        for key, value in values.items():
            print(f"{f'{key} = {toml(value)}':<44} # {known[key].description}")


def _recipe_names() -> list[str]:
    from bytelm.recipe import recipe_folders

    return sorted({file.stem for folder in recipe_folders() for file in folder.glob("*.toml")})


def _describe(name: str) -> dict[str, Any]:
    """One recipe's figures; `error` instead when it is not valid here."""
    from bytelm.errors import BytelmError
    from bytelm.recipe import Recipe
    from bytelm.training.build import outline

    try:
        recipe = Recipe.load(name)
        model = outline(recipe)
    except BytelmError as error:
        return {"name": name, "error": str(error)}
    context = recipe.train.context_bytes
    return {
        "name": recipe.name,
        "arch": recipe.model.arch,
        "parameters": sum(p.numel() for p in model.parameters()),
        # the cost of a position: a byte, or of a recipe with data.tokenizer a token
        f"flops_per_{'token' if recipe.data.tokenizer else 'byte'}": model.flops_per_byte(context),
        "context_bytes": context,
    }


def _cost(row: dict[str, Any]) -> str:
    unit = "token" if "flops_per_token" in row else "byte"
    return f"{row[f'flops_per_{unit}'] / 1e6:.2f} MFLOP per {unit}"


def _line(row: dict[str, Any], width: int) -> str:
    if "error" in row:
        return f"{row['name']:{width}}  {row['error']}"
    tokens = "flops_per_token" in row
    flops = row["flops_per_token" if tokens else "flops_per_byte"] / 1e6
    return (
        f"{row['name']:{width}}  {row['parameters']:>11,}  {flops:>10.2f}  "
        f"{row['context_bytes']:>8,}{'  (MFLOP per token)' if tokens else ''}"
    )
