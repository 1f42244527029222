"""What is counted of each entrant, as data: what `--json` prints and the tables show."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import impls
from bench.ergonomics import releases
from bench.ergonomics.candidates import candidates
from bench.ergonomics.concepts import concepts
from bench.ergonomics.install import install
from bench.ergonomics.parts import PURE, parts
from bench.report.wording import main_workload, measured
from bench.worker.source import source
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bench.ergonomics.concepts import Concepts
    from bench.report.runs import Run
    from bench.worker.source import Counts

    type Facts = dict[str, Any]
    type SitePackages = Callable[[str], Path | None]
    """Where the packages of an entrant are that has an environment of its own; None: not built."""

CORE = "core"
"""What there is without a style; called `pure` where an entrant has that."""


def ergonomics(names: Sequence[str], site_packages: SitePackages, run: Run | None = None) -> Facts:
    """Return everything that is counted.

    Args:
        names: Entrants, in the order in which they are shown.
        site_packages: Where the packages are of an entrant with an environment of its own.
        run: Whose import times are read; None leaves them out.
    """
    dated = releases.known()
    out: Facts = {
        "releases_as_of": dated["as_of"],
        "entrants": [row(name, site_packages, dated) for name in names],
        "candidates": [asdict(each) for each in candidates()],
    }
    if run is not None:
        times = import_seconds(run)
        out["run"] = run.name
        for each in out["entrants"]:
            each["import_seconds"] = times.get(each["entrant"])
    return out


def row(name: str, site_packages: SitePackages, dated: Facts) -> Facts:
    """Return what is counted of one entrant; `problem` where its file cannot be counted."""
    out: Facts = {"entrant": name, "library": "", "note": ""}
    try:
        about = impls.declared(name)
        out |= {"library": about.distribution, "note": about.note, "jax": about.jax}
        out |= written(name, about.distribution)
    except (BakeoffError, SyntaxError, OSError) as error:
        out["problem"] = str(error)
        return out
    aged = releases.age(about.distribution, dated)
    out["releases"] = None if aged is None else aged._asdict()
    try:
        where = site_packages(name) if about.own_environment else None
        if about.own_environment and where is None:
            raise BakeoffError(
                f"its own environment has not been built: `bakeoff entrants --build {name}` does"
            )
        out["install"] = install(about.distribution, where)._asdict()
    except BakeoffError as error:
        out |= {"install": None, "install_missing": str(error)}
    return out


def written(name: str, distribution: str) -> Facts:
    """Return the counts of an entrant's file, of its core and of what each style adds."""
    taken = source(impls.source(name))
    found = parts(taken.tree, f"entrant {name!r}")
    whole = concepts([taken.tree], taken.tree, distribution)
    core = concepts(found.core_nodes, taken.tree, distribution)
    styles = [
        {"style": PURE if found.pure else CORE, **counted(taken.counts(found.core), core)},
        *(
            {
                "style": style,
                **counted(
                    taken.counts(part.adds),
                    concepts(part.nodes, taken.tree, distribution).without(core),
                ),
                "alone": counted(taken.counts(part.alone)),
            }
            for style, part in found.styles.items()
        ),
    ]
    return {"file": counted(taken.counts(), whole), "styles": styles}


def counted(counts: Counts, names: Concepts | None = None) -> Facts:
    """Return counts, and names of APIs if they were looked for."""
    return {**counts._asdict(), **({} if names is None else {"names": names._asdict()})}


def import_seconds(run: Run) -> dict[str, float]:
    """Return how long each entrant's import took in a run, in seconds: the median of processes.

    It is the `pure` style's where there is one, at the workload that is spoken about first.
    """
    having = [cell for cell in run.section["cells"] if measured(cell, "import") is not None]
    if not having:
        return {}
    workload = main_workload(having)
    found: dict[str, float] = {}
    for cell in sorted(having, key=lambda cell: bool(cell["style"] != PURE)):
        if cell["workload"] == workload and cell["entrant"] not in found:
            found[cell["entrant"]] = cell["metrics"]["import"]["median"]
    return found
