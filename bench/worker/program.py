"""Facts about a compiled program that come out the same every time, and a fingerprint of it."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from common.compatibility import analyse_costs, read_attributes

if TYPE_CHECKING:
    import jax

    from common.contract import Program

    type Edge = tuple[str, int]
    """Role of an operand, and its node."""

COMMUTATIVE = {
    f"stablehlo.{name}" for name in ("add", "and", "maximum", "minimum", "multiply", "or")
}
HLO_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = (?:\(.*?\)|\S+) [a-z][\w\-]*\(", re.M)


@dataclass(frozen=True)
class ProgramFacts:
    """Facts about a style's program. A loop's body counts once, as in XLA's cost analysis."""

    whole: bool
    """False where a step runs more programs than this one: the facts are then a part's."""
    fingerprint: str
    """Digest of the lowered program: the same for two programs that differ in names alone."""
    operations: dict[str, int]
    """Kind of StableHLO operation → number: live ones, equal ones once, functions inlined."""
    counts: dict[str, float]
    """Exact metric → its value."""

    @property
    def donates(self) -> bool:
        """Whether outputs take the place of donated inputs."""
        return self.counts["alias_bytes"] > 0

    def count_differences(self, baseline: ProgramFacts) -> dict[str, int]:
        """Return the operation counts minus the baseline's, where they differ."""
        counts = Counter(self.operations)
        counts.subtract(baseline.operations)
        return {kind: count for kind, count in sorted(counts.items()) if count}


def facts(program: Program) -> ProgramFacts:
    """Trace, lower and compile `program`, and return the facts about it."""
    lowered = program.lower()
    compiled = lowered.compile()
    graph = Graph.from_lowered(lowered)
    cost, memory, text = analyse_costs(compiled), compiled.memory_analysis(), compiled.as_text()
    assert memory is not None
    assert text is not None
    counts = {
        "hlo_instructions": len(HLO_INSTRUCTION.findall(text)),
        "flops": cost["flops"],
        "bytes_accessed": cost["bytes accessed"],
        "temp_bytes": memory.temp_size_in_bytes,
        "argument_bytes": memory.argument_size_in_bytes,
        "alias_bytes": memory.alias_size_in_bytes,
    }
    return ProgramFacts(program.whole, graph.fingerprint(), graph.operations(), counts)


@dataclass
class Graph:
    """A lowered program as a graph of values, in which nothing has a name.

    Functions are inlined and equal values are one node, as XLA would do first. A loop's carried
    values are nodes that read their first value and their next one, so that their order, which
    follows the order of a library's parameters, does not show.
    """

    labels: list[str] = field(default_factory=list)
    operands: list[list[Edge]] = field(default_factory=list)
    functions: dict[str, Any] = field(default_factory=dict)
    """Name of a called function → its block."""
    nodes: dict[Any, int] = field(default_factory=dict)
    """(label, operands) → node; a node that counts as unlike all others has its number as key."""
    effects: list[Edge] = field(default_factory=list)

    @classmethod
    def from_lowered(cls, lowered: jax.stages.Lowered) -> Graph:
        """Read the StableHLO of `lowered`."""
        module: Any = lowered.compiler_ir("stablehlo")
        functions = [op for op in module.body.operations if op.operation.name == "func.func"]
        graph = cls(functions={op.name.value: op.regions[0].blocks[0] for op in functions})
        main = graph.functions["main"]
        arguments = {a: graph.add(f"argument {a.type}", [], unique=True) for a in main.arguments}
        results = graph.visit(main, arguments)
        graph.add("return", [("", node) for node in results] + graph.effects)
        return graph.prune()

    def add(self, label: str, operands: list[Edge], *, unique: bool = False) -> int:
        """Return the node of this label and these operands; a new one unless it is known."""
        new = len(self.labels)
        node = self.nodes.setdefault(new if unique else (label, *sorted(operands)), new)
        if node == new:
            self.labels.append(label)
            self.operands.append(operands)
        return node

    def visit(self, block: Any, values: dict[Any, int]) -> list[int]:
        """Add a block's operations; return the nodes that its terminator gives back."""
        values = dict(values)
        for operation in block.operations:
            op = operation.operation
            operands = [values[operand] for operand in op.operands]
            if op.name.endswith(".return"):  # of func, stablehlo or sdy
                return operands
            if op.name == "func.call":
                callee = self.functions[op.attributes["callee"].value]
                results = self.visit(callee, dict(zip(callee.arguments, operands, strict=True)))
            elif op.name == "stablehlo.while":
                results = self.add_loop(op, operands, values)
            else:
                results = self.add_operation(op, operands, values)
            values.update(zip(op.results, results, strict=True))
        raise AssertionError("a block ends with a return")

    def add_loop(self, op: Any, operands: list[int], values: dict[Any, int]) -> list[int]:
        """Add a while loop; return the nodes of its results."""
        slots = [
            self.add(f"carry {result.type}", [("first", node)], unique=True)
            for result, node in zip(op.results, operands, strict=True)
        ]
        [test], after = (
            self.visit(block, values | dict(zip(block.arguments, slots, strict=True)))
            for block in (region.blocks[0] for region in op.regions)
        )
        loop = self.add(op.name, [("while", test)], unique=True)
        for slot, node in zip(slots, after, strict=True):
            self.operands[slot] += [("next", node), ("in", loop)]
        return [self.add("last", [("of", slot)]) for slot in slots]

    def add_operation(self, op: Any, operands: list[int], values: dict[Any, int]) -> list[int]:
        """Add an operation that is neither a call nor a loop; return the nodes of its results."""
        types = " ".join(str(result.type) for result in op.results)
        attributes = " ".join(sorted(f"{k}={v}" for k, v in read_attributes(op).items()))
        edges = [
            ("" if op.name in COMMUTATIVE else str(i), node) for i, node in enumerate(operands)
        ]
        for number, region in enumerate(op.regions):
            [block] = region.blocks
            arguments = {
                a: self.add(f"{op.name} argument {i} {a.type}", [])
                for i, a in enumerate(block.arguments)
            }
            edges += [
                (f"region {number} result {i}", node)
                for i, node in enumerate(self.visit(block, values | arguments))
            ]
        effect = "has_side_effect=true" in attributes
        node = self.add(f"{op.name} {types} {attributes}", edges, unique=effect)
        if effect:
            self.effects.append(("effect", node))
        if len(op.results) == 1:
            return [node]
        return [self.add(f"result {i}", [("of", node)]) for i in range(len(op.results))]

    def prune(self) -> Graph:
        """Return the part of the graph that its last node depends on."""
        reached, left = set(), [len(self.labels) - 1]
        while left:
            node = left.pop()
            if node not in reached:
                reached.add(node)
                left += [operand for _, operand in self.operands[node]]
        order = {node: i for i, node in enumerate(sorted(reached))}
        return Graph(
            [self.labels[node] for node in order],
            [[(role, order[operand]) for role, operand in self.operands[node]] for node in order],
        )

    def operations(self) -> dict[str, int]:
        """Return the number of operations of each kind."""
        kinds = Counter(label.split()[0] for label in self.labels)
        return {k: n for k, n in sorted(kinds.items()) if k.startswith("stablehlo.")}

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that are the same for graphs of the same shape.

        Labels are refined by the labels of operands and users until they tell no more nodes apart:
        Weisfeiler and Leman, "The reduction of a graph to canonical form" (1968). Where nodes still
        share a label, the first of them is marked and labels are refined again, until each node has
        its own; then the labels say the whole graph. So different programs never agree. Equal ones
        do, but for some where a tie is no symmetry: there the order of arguments can show.
        """
        users: list[list[Edge]] = [[] for _ in self.labels]
        for node, operands in enumerate(self.operands):
            for role, operand in operands:
                users[operand].append((role, node))
        labels = self.refine_labels([_digest(label) for label in self.labels], users)
        while ties := {label for label, count in Counter(labels).items() if count > 1}:
            chosen = labels.index(min(ties))
            labels[chosen] = _digest(labels[chosen], "the first")
            labels = self.refine_labels(labels, users)
        return _digest(*sorted(labels))

    def refine_labels(self, labels: list[str], users: list[list[Edge]]) -> list[str]:
        """Refine labels by those of operands and users until no more nodes become distinct."""
        distinct = 0
        while len(set(labels)) > distinct:
            distinct = len(set(labels))
            labels = [
                _digest(
                    label,
                    *sorted(role + labels[other] for role, other in self.operands[node]),
                    "used by",
                    *sorted(role + labels[other] for role, other in users[node]),
                )
                for node, label in enumerate(labels)
            ]
        return labels


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
