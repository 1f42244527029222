"""The published table of costs: time that styles add to a call, by the model's number of arrays.

The law is a line: a fixed part, and a part for each array. `results/cost/law.py` fits it to a run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

import impls
from bench.cells import Arm
from bench.report.remedies import find_cheaper
from bench.report.table import Column, Document, Row, Section, Table, amount, percent
from bench.report.wording import join_words
from bench.stats.amounts import Law, predict_added_time

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from bench.estimates import Estimate

PUBLISHED_FILE = Path(__file__).parent / "host-cost.json"
NOISY_HALF_WIDTH = 0.2
"""Half width of an interval, as a fraction of its value, at which the value may be noise."""
OTHER_MODELS = "between 44 % too low and 45 % too high"
"""Error of the law by arrays for perceptrons, transformers and convolutional networks, in words
(results/cost/README.md at commit f7034d8)."""
COLUMNS = (
    Column("style"),
    Column("added per step", number=True, help="with a 95 % interval"),
    Column("of your\nstep", number=True, help="if nothing overlaps"),
    Column("at\nleast", number=True, help="if host and device overlap wherever they can"),
    Column("write\ninstead", help="the cheapest style of the library, if one certainly costs less"),
    Column("per array", number=True, help="of the added time", needed=False),
)
USUAL_ARRAYS = 50
"""Parameter arrays of the table that a page shows first: those of a small transformer, and within
what was measured."""


class StyleCost(msgspec.Struct, frozen=True, kw_only=True):
    """The law of one style: seconds that it adds to plain JAX's call."""

    entrant: str
    style: str
    law: Law

    @property
    def arm(self) -> Arm:
        """Entrant and style."""
        return Arm(self.entrant, self.style)

    @property
    def waits(self) -> bool:
        """Whether its call returns only when the device has finished."""
        return self.style in impls.find_declaration(self.entrant).waits

    @property
    def array_cost(self) -> Estimate:
        """Seconds that the style adds for each array."""
        return self.predict(1, fixed=0.0)

    def predict(self, arrays: int, *, fixed: float = 1.0) -> Estimate:
        """Return the seconds that the style adds to a call with this many parameter arrays.

        The law's fixed part is taken `fixed` times.
        """
        return predict_added_time(self.law, self.arm.make_cell("depth", "cpu"), arrays, fixed)


class CostTable(msgspec.Struct, frozen=True, kw_only=True):
    """The laws of all styles on one machine, and their conditions."""

    machine: str
    versions: dict[str, str]
    when: str
    """Time, from year to second, in UTC."""
    run: str
    """Name of the run file that the laws were fitted to."""
    arrays: tuple[int, int]
    """Fewest and most arrays that were measured."""
    styles: tuple[StyleCost, ...]


def read_published() -> CostTable:
    """Return the published table."""
    return msgspec.json.decode(PUBLISHED_FILE.read_bytes(), type=CostTable)


def document(
    costs: CostTable, arrays: int, seconds: float, styles: Sequence[StyleCost], assumed: str = ""
) -> Document:
    """Return the costs of some styles of a table for a step that takes plain JAX `seconds`.

    `assumed` is a remark on the seconds, where the user has not given them.
    """
    versions = (f"{name} {v}" for name, v in costs.versions.items() if name != "jax-bakeoff")
    fewest, most = costs.arrays
    extrapolated = f" ({arrays} are extrapolated)" * (arrays > most)
    certain = [s for s in styles if s.array_cost.half_width < NOISY_HALF_WIDTH * s.array_cost.value]
    misfit = max((style.law.misfit for style in certain), default=0.0)
    off = f", where a depth is up to {percent(misfit)} off the line" * bool(certain)
    waiting = [f"`{style.arm}`" for style in styles if style.waits]
    but = f", except {join_words(waiting)}, which waits in each call" if waiting else ""
    caveat = (
        "Time added to plain JAX's step on a CPU, waiting for each call. An accelerator, or a loop "
        "that does not wait, can hide it behind the device's work: then only the column "
        f"`at least` applies{but}."
    )
    return Document(
        title="What each style costs your model",
        subtitle=f"{arrays} parameter arrays, {amount(seconds, 's')} a step{assumed}",
        sections=(
            Section("Cost of a step", (caveat,), (make_table(costs, arrays, seconds, styles),)),
        ),
        fine_print=(
            f"Measured on one core of {costs.machine}, {costs.when[:10]}, with "
            f"{', '.join(versions)}.",
            f"Fitted to the character RNN with {fewest} to {most} arrays{extrapolated}{off}. Other "
            f"models were predicted {OTHER_MODELS}. A slower Python adds more time.",
            "Measure your own step: `bakeoff new mine --model equinox` begins its file, and "
            "`bakeoff cost mine.py` measures it.",
        ),
    )


def make_section(arms: Collection[Arm]) -> Section:
    """Return what some arms add to a call by the number of arrays; a page computes it for any."""
    costs = read_published()
    styles = [style for style in costs.styles if style.arm in arms]
    styles.sort(key=lambda style: style.predict(USUAL_ARRAYS).value)
    rows = tuple(
        Row((str(s.arm), s.predict(0), s.array_cost, s.predict(USUAL_ARRAYS))) for s in styles
    )
    heads = ("fixed part", "for each array", f"with {USUAL_ARRAYS} arrays")
    columns = Column("style"), *(Column(head, number=True) for head in heads)
    fewest, most = costs.arrays
    note = (
        "Time added to plain JAX's call on a CPU, each call waited for: a line through models with "
        f"{fewest} to {most} parameter arrays, measured on one core of "
        f"{costs.machine.partition(' (')[0]}, {costs.when[:10]}. Other models were predicted "
        f"{OTHER_MODELS}. `bakeoff cost mine.py` measures your own step."
    )
    tables = (Table(columns, rows, notes=(note,), arrays=USUAL_ARRAYS),) if rows else ()
    return Section("What it would add to your model", tables=tables, folded=True)


def make_table(costs: CostTable, arrays: int, seconds: float, styles: Sequence[StyleCost]) -> Table:
    """Return a row for each style, the cheapest first, with the cheaper style to replace it."""
    rows, notes = [], dict[str, None]()
    for style in sorted(styles, key=lambda style: style.predict(arrays).value):
        cost = style.predict(arrays)
        hidden = 0.0 if style.waits else seconds
        array_costs = {s.style: s.array_cost for s in costs.styles if s.entrant == style.entrant}
        other = find_cheaper(style.entrant, style.style, array_costs)
        if other and (note := impls.caveat(style.entrant, style.style, other)):
            notes[f"{style.entrant}/{other}: {note}."] = None
        parts = (percent(max(0.0, left) / seconds) for left in (cost.value, cost.value - hidden))
        instead = f"`{style.entrant}/{other}`" if other else ""
        rows.append(Row((str(style.arm), cost, *parts, instead, style.array_cost)))
    return Table(COLUMNS, tuple(rows), notes=tuple(notes)).drop_empty_columns()
