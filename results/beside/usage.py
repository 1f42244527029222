"""How each tool is used: what its documentation says, its processes, and what a user writes."""

from __future__ import annotations

import ast
import inspect
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from bench.report.table import Column, Row, Table
from results.beside import tools
from results.beside.plan import MAIN, NAMES, OURS, find_pins
from results.beside.scores import find_trial
from results.beside.tables import describe_range
from results.selftest import trial
from results.selftest.plants import ENTRANT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from results.beside.scores import Record

HERE = Path(__file__).parent
FILES = {
    "pytest_benchmark": "step_benchmark.py",
    "pyperf": "step_pyperf.py",
    "asv": "step_asv.py",
    "pytest_codspeed": "step_benchmark.py",
}
"""Tool → the file of its benchmark."""
FUNCTIONS: dict[str, tuple[Callable[..., object], ...]] = {
    "google_benchmark": (tools.run_google_benchmark,),
    "samples_in_pairs": (tools.time_pairs, tools.samples_in_pairs),
}
"""Tool → the functions that are its benchmark, and its rule where it brings none."""


def describe_tools(rows: Sequence[Record]) -> Table:
    """Return how each tool is used, from the docstring of what runs it."""
    columns = (
        Column("tool"),
        Column("how it is used"),
        Column(f"processes in {MAIN.seconds} s", number=True),
        Column("lines", number=True),
    )
    lines = []
    for tool in MAIN.tools:
        about = inspect.getdoc(getattr(trial if tool in OURS else tools, tool)) or ""
        counts = [
            row["processes"]
            for row in rows
            if row["tool"] == tool and "processes" in row and find_trial(row)[2:] == MAIN[:2]
        ]
        ends = describe_range(counts, str) if counts else ""
        name = " ".join([NAMES[tool], *[*find_pins(tool).values()][:1]])
        lines.append(Row((name, about.split("\n")[0], ends, str(count_lines(tool)))))
    return Table(columns, tuple(lines))


def count_lines(tool: str) -> int:
    """Return the lines of what a user writes beside the step; without comments and docstrings.

    They are counted as `ast.unparse` writes them: one for each statement, however it is laid out.
    """
    if tool in OURS:
        sources = [ENTRANT.format(styles="'pure': plants.wait_of_side()")]
    elif tool in FILES:
        sources = [(HERE / FILES[tool]).read_text()]
    else:
        sources = [inspect.getsource(function) for function in FUNCTIONS[tool]]
    settings = len(tools.ASV_SETTINGS) if tool == "asv" else 0
    return sum(map(_count_statements, sources)) + settings


def _count_statements(source: str) -> int:
    tree = ast.parse(textwrap.dedent(source))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = [n for n in body if not _is_text(n)]
            node.body = kept or [ast.Pass()]  # type: ignore[attr-defined]
    return sum(bool(line.strip()) for line in ast.unparse(tree).splitlines())


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
