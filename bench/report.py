"""docs/benchmarks.md's tables from the measured values. Pure functions."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from bench.engines import ENGINE
from bench.engines import GO as GO_ALONE
from bench.figures import BETTER, FIGURES, ITSELF, Figure, Goal
from bench.lanes import DIRECT, GO, OURS, PEERS, WIREGUARD
from bench.samples import Samples

BEGIN, END = "<!-- figures: written by `make bench` -->\n", "<!-- /figures -->\n"
CONTESTANTS = (OURS, GO, WIREGUARD, *PEERS, DIRECT, ENGINE, GO_ALONE)


def written(text: str, results: Mapping[str, Any]) -> str:
    """Return the page with its tables regenerated. Raises ValueError if it has no place for them."""
    before, begun, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not begun or not ended:
        raise ValueError("no markers for the figures")
    tables = "".join(f"\n{table(group, results[group])}" for group in FIGURES if group in results)
    return f"{before}{begun}{tables}\n{ended}{after}"


def table(group: str, result: Mapping[str, Any]) -> str:
    """Return a group's heading, circumstances and table."""
    samples: Samples = result["samples"]
    figures = [one for one in FIGURES[group] if one.name in samples]
    present = [name for name in CONTESTANTS if any(name in samples[one.name] for one in figures)]
    head = ["", *present, f"÷ {figures[0].beside}", f"÷ {BETTER}", "goal"]
    rows = [head, ["---"] * len(head)]
    for figure in figures:
        found = samples[figure.name]
        values = [spread(found[name], figure.digits) if name in found else "" for name in present]
        rows.append([f"{figure.name} ({figure.unit})", *values, *ratios(figure, found), goals(figure, found)])
    empty = [
        column for column in range(len(head)) if column and not any(row[column] for row in rows[2:] if row)
    ]
    lines = ("| " + " | ".join(cell for n, cell in enumerate(row) if n not in empty) + " |" for row in rows)
    return f"### {group.capitalize()}\n\n{circumstances(result)}\n\n" + "\n".join(lines) + "\n"


def circumstances(result: Mapping[str, Any]) -> str:
    """Return when, where and how this was measured."""
    load = " → ".join(f"{one:.1f}" for one in result["load"])
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return (
        f"{result['when']}, {result['rounds']} rounds, {result['machine']}, load average {load}. {versions}. "
        f"`{result['command']}`"
    )


def spread(values: Sequence[float], digits: int) -> str:
    """Return median and range."""
    low, high = min(values), max(values)
    text = f"{median(values):,.{digits}f}"
    return text if low == high else f"**{text}** ({low:,.{digits}f}–{high:,.{digits}f})"


def paired(ours: Sequence[float], others: Sequence[float]) -> list[float]:
    """Return the ratio of each round."""
    return [a / b for a, b in zip(ours, others, strict=True)]


def better(figure: Figure, found: Mapping[str, Sequence[float]]) -> str:
    """Return which sing-box did better here, "" when none was measured."""
    there = [name for name in PEERS if name in found]
    best = max if figure.more_is_better else min
    return best(there, key=lambda name: median(found[name])) if there else ""


def against(figure: Figure, goal: Goal, found: Mapping[str, Sequence[float]]) -> list[float]:
    """Return the values that this goal is about, one a round."""
    if goal.against == ITSELF:
        return list(found[figure.subject])
    other = better(figure, found) if goal.against == BETTER else goal.against
    return paired(found[figure.subject], found[other])


def ratios(figure: Figure, found: Mapping[str, Sequence[float]]) -> list[str]:
    """Return the two columns of ratios; the second names the better sing-box."""
    ours = found[figure.subject]
    first = spread(paired(ours, found[figure.beside]), 2) if figure.beside in found else ""
    peer = better(figure, found)
    if peer and 0 in found[peer]:
        return [first, "nothing measurable"]
    return [first, f"{spread(paired(ours, found[peer]), 2)}, {peer.split(', ')[1]}" if peer else ""]


def goals(figure: Figure, found: Mapping[str, Sequence[float]]) -> str:
    """Return each goal and whether the median meets it."""
    parts = []
    for goal in figure.goals:
        met = goal.met(median(against(figure, goal, found)))
        what = "" if goal.against == ITSELF else f"{goal.against}: "
        parts.append(f"{what}{goal.bound} {goal.limit:g} {'met' if met else '**missed**'}")
    return "; ".join(parts)
