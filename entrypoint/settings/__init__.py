"""Settings: one declaration per variable, a file per group; all problems are told at once.

`load` reads the environment, `resolved` prints the outcome with secrets hidden, `reference_table` is
the README's table.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from entrypoint.errors import SettingsError
from entrypoint.settings.checks import CHECKS
from entrypoint.settings.environment import Group, Variable, declared, gather
from entrypoint.settings.values import clip
from entrypoint.settings.variables import Account, Dns, Firewall, Health, Logs, Routing, Shadowsocks, Tunnel


class Settings(BaseSettings):
    """All settings, checked. `texts` is what was given, without secrets; `warnings` are for the log."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    account: Account
    tunnel: Tunnel
    routing: Routing
    firewall: Firewall
    dns: Dns
    shadowsocks: Shadowsocks
    health: Health
    logs: Logs
    texts: dict[str, str]
    warnings: tuple[str, ...]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what `load` hands over and nothing else: environ.py knows files, aliases and near misses."""
        return (init_settings,)


GROUPS: dict[str, type[Group]] = {
    name: info.annotation
    for name, info in Settings.model_fields.items()
    if isinstance(info.annotation, type) and issubclass(info.annotation, Group)
}
VARIABLES: dict[str, Variable] = {
    variable.name: variable for group in GROUPS.values() for _, variable in declared(group)
}


def load(environ: Mapping[str, str]) -> Settings:
    """Read all settings; raise SettingsError with every problem there is. Changes nothing."""
    given = gather(environ, VARIABLES.values())
    try:
        settings = _build(given.texts, given.warnings)
    except ValidationError as failure:
        for error in failure.errors(include_url=False):
            variable = dict(declared(GROUPS[str(error["loc"][0])]))[str(error["loc"][1])]
            given.problems.append(
                _problem_line(variable, error["ctx"]["error"], given.texts.pop(variable.name))
            )
            given.bad.add(variable.name)
        settings = _build(given.texts, given.warnings)
    for names, check in CHECKS:
        if given.bad.isdisjoint(names):
            given.problems.extend(check(settings))
    if given.problems:
        raise SettingsError(given.problems)
    return settings


def _build(texts: Mapping[str, str], warnings: list[str]) -> Settings:
    values: dict[str, Any] = {
        name: {field: texts.get(variable.name, variable.default) for field, variable in declared(group)}
        for name, group in GROUPS.items()
    }
    open_texts = {name: text for name, text in texts.items() if not VARIABLES[name].secret}
    return Settings(**values, texts=open_texts, warnings=tuple(warnings))


def _problem_line(variable: Variable, wrong: ValueError, text: str) -> str:
    got = "(hidden)" if variable.secret else clip(text)
    return f"{variable.name}: {wrong}: got {got}; expected {variable.form.expected}, e.g. {variable.example}"


def describe(settings: Settings) -> list[str]:
    """Return a heading per group and a line per variable, secrets hidden."""
    lines = []
    for name, group in GROUPS.items():
        lines.append(str(group.__doc__).rstrip("."))
        for field, variable in declared(group):
            if variable.secret and getattr(getattr(settings, name), field):
                value = "(hidden)"
            else:
                value = settings.texts.get(variable.name) or variable.default or f"({variable.shown})"
            lines.append(f"  {variable.name}: {value}")
    return lines


def reference_table() -> str:
    """Return the README's Markdown table of all variables."""
    lines = ["| Variable | Default | What it is | Example |", "| --- | --- | --- | --- |"]
    for group in GROUPS.values():
        lines.append(f"| **{str(group.__doc__).rstrip('.')}** | | | |")
        for _, variable in declared(group):
            default = f"`{variable.default}`" if variable.default else variable.shown
            example = variable.example if "`" in variable.example else f"`{variable.example}`"
            text = variable.text + (f" (also {', '.join(variable.aliases)})" if variable.aliases else "")
            lines.append(f"| `{variable.name}` | {default} | {text} | {example} |")
    return "\n".join(lines) + "\n"
