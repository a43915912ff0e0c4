"""How messages name a setting of reading: as an option of a command, or as a setting of a recipe.

Sources know neither. Whoever opens them says with the `Reading` which one its user can reach.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Spelling:
    """Names of settings as their user writes them.

    recipe  as settings of [data] of a recipe, not as options of a command
    fields  {field of records: the setting of [objective] that names it}

    >>> Spelling().of("max_unpacked"), Spelling(recipe=True).of("max_unpacked")
    ('--max-unpacked', 'data.max_unpacked=...')
    >>> Spelling().switch("strict"), Spelling(recipe=True).switch("strict")
    ('--strict', 'data.strict=true')
    """

    recipe: bool = False
    fields: Mapping[str, str] = field(default_factory=dict)

    def of(self, name: str) -> str:
        """A setting that takes a value."""
        return f"data.{name}=..." if self.recipe else "--" + name.replace("_", "-")

    def switch(self, name: str) -> str:
        """A setting that is on or off, switched on."""
        return f"data.{name}=true" if self.recipe else self.of(name)

    def choice(self, name: str, given: str) -> str:
        """The advice for the field `given` of records, which the setting `name` chose.

        >>> Spelling(fields={"kind": "objective.labels"}).choice("column", "kind")
        'objective.labels names it'
        >>> Spelling().choice("field", "txt")
        'choose one with --field'
        """
        if given in self.fields:
            return f"{self.fields[given]} names it"
        return f"choose one with {self.of(name)}"
