"""Settings from the environment.

`load` reads and validates them, `describe` prints the outcome with secrets hidden, `reference_table`
is the table in the documentation.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from entrypoint.errors import SettingsError
from entrypoint.settings.checks import CHECKS, advice
from entrypoint.settings.environment import gather
from entrypoint.settings.values import clip
from entrypoint.settings.variables import GROUPS, VARIABLES, Settings, Variable, declared

__all__ = ["VARIABLES", "Settings", "describe", "load", "reference_table"]


def load(environ: Mapping[str, str]) -> Settings:
    """Read all settings; raise SettingsError with every problem at once. Changes nothing."""
    given = gather(environ, VARIABLES.values())
    values: dict[str, object] = {}
    for name, variable in VARIABLES.items():
        try:
            values[name] = variable.parse(given.texts.get(name))
        except ValueError as error:
            given.problems.append(_problem(variable, error, given.texts.pop(name)))
            given.bad.add(name)
            values[name] = variable.parse(None)  # so that the checks of other variables can run
    groups: dict[str, Any] = {
        name: group(**{field: values[variable.name] for field, variable in declared(group)})
        for name, group in GROUPS.items()
    }
    texts = {name: text for name, text in given.texts.items() if not VARIABLES[name].secret}
    settings = Settings(**groups, texts=texts, warnings=())
    for names, check in CHECKS:
        if given.bad.isdisjoint(names):
            given.problems.extend(check(settings))
    if given.problems:
        raise SettingsError(given.problems)
    return replace(settings, warnings=(*given.warnings, *advice(settings)))


def _problem(variable: Variable, error: ValueError, text: str) -> str:
    got = "(hidden)" if variable.secret or "@" in text else clip(text)  # a URL may contain a password
    return f"{variable.name}: {error}: got {got}; expected {variable.form.expected}, e.g. {variable.example}"


def describe(settings: Settings) -> list[str]:
    """Return a heading per group and a line per variable, secrets hidden."""
    lines = []
    for name, group in GROUPS.items():
        lines.append(str(group.__doc__).rstrip("."))
        for field, variable in declared(group):
            # Not even the length of a secret is shown.
            if variable.secret and getattr(getattr(settings, name), field):
                value = "(hidden)"
            else:
                value = settings.texts.get(variable.name) or variable.default or f"({variable.default_text})"
            lines.append(f"  {variable.name}: {value}")
    return lines


def reference_table() -> str:
    """Return the Markdown table of all variables."""
    lines = ["| Variable | Default | What it is | Example |", "| --- | --- | --- | --- |"]
    for group in GROUPS.values():
        lines.append(f"| **{str(group.__doc__).rstrip('.')}** | | | |")
        for _, variable in declared(group):
            default = f"`{variable.default}`" if variable.default else variable.default_text
            example = variable.example if "`" in variable.example else f"`{variable.example}`"
            text = variable.text + (f" (also {', '.join(variable.aliases)})" if variable.aliases else "")
            lines.append(f"| `{variable.name}` | {default} | {text} | {example} |")
    return "\n".join(lines) + "\n"
