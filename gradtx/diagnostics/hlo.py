"""What a compiled program moves, read from XLA's text of it: bytes, cycles, collectives.

Counted are operands and results in main memory (on TPUs those in vector memory carry `S(1)`), times
the trips of the loops around them. Of a conditional one branch counts: the one that moves most, or
least with `cheapest`.
"""

import collections
import dataclasses
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "reduce-scatter", "collective-permute", "ragged-all-to-all")
SLICES = ("dynamic-slice", "slice", "gather")
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id", "iota"}

_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*->.*\{\s*$")
_ARRAY = re.compile(r"\b(pred|(?:bf|f|s|u|c)(\d+)\w*)\[([0-9,<=]*)\](\{[^}]*\})?")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_TRIPS = re.compile(r'"?known_trip_count"?:\{"n":"(\d+)"')
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}|(?:true|false)_computation=(%?[\w.\-]+)")


class Array(NamedTuple):
    """Size of an array in a type, and whether it is in main memory."""

    bytes: float
    in_main: bool


class Instruction(NamedTuple):
    """A line of a computation."""

    name: str
    root: bool
    type: str
    op: str
    operands: list[str]
    line: str

    @property
    def base(self) -> str:
        """The operation, whether it starts asynchronously or not."""
        return self.op.removesuffix("-start")

    def called(self, attribute: str) -> str:
        """The computation under a name such as `calls`, `body`."""
        return _first(rf"{attribute}=%?([\w.\-]+)", self.line)


@dataclasses.dataclass(frozen=True)
class Cost:
    """Bytes of main memory, the compiler's cycles, collectives by kind.

    Of these how many, and how many bytes.
    """

    hbm: float = 0
    cycles: int = 0
    number: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    moved: dict[str, float] = dataclasses.field(default_factory=dict)

    def plus(self, other: "Cost", times: int = 1) -> "Cost":
        """The sum of this and of a number of others."""
        number, moved = self.number.copy(), dict(self.moved)
        for kind in other.number:
            number[kind] += times * other.number[kind]
            moved[kind] = moved.get(kind, 0) + times * other.moved[kind]
        return Cost(self.hbm + times * other.hbm, self.cycles + times * other.cycles, number, moved)


def arrays(kind: str) -> list[Array]:
    """The arrays of a type, which may be a tuple's."""
    found = []
    for dtype, bits, dims, layout in _ARRAY.findall(kind):
        size = 1
        for dim in dims.replace("<=", "").split(",") if dims else ():
            size *= int(dim)
        found.append(Array(size * (1 if dtype == "pred" else int(bits) / 8), "S(" not in layout))
    return found


def cost(text: str, cheapest: bool = False) -> Cost:
    """What the program of an HLO text costs."""
    return _Program(text, cheapest).cost_of()


def _bytes(kind: str) -> float:
    return sum(x.bytes for x in arrays(kind))


def _main_bytes(kind: str) -> float:
    return sum(x.bytes for x in arrays(kind) if x.in_main)


def _first(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    return match.group(1) if match else ""


def _split(text: str) -> tuple[str, str]:
    """A type, and what stands behind it."""
    depth = 0
    for i, sign in enumerate(text):
        depth += (sign in "({") - (sign in ")}")
        if sign == " " and not depth:
            return text[:i], text[i + 1 :]
    return text, ""


def _computations(text: str) -> tuple[dict[str, list[Instruction]], str]:
    found: dict[str, list[Instruction]] = {}
    current = entry = ""
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            current = match.group(2)
            found[current] = []
            entry = current if match.group(1) else entry
        elif (match := _INSTRUCTION.match(line)) and current:
            kind, rest = _split(match.group(3))
            op, _, behind = rest.partition("(")
            operands = re.findall(r"%([\w.\-]+)", _split("(" + behind)[0])
            found[current].append(Instruction(match.group(2), bool(match.group(1)), kind, op, operands, line))
    return found, entry


class _Program:
    def __init__(self, text: str, cheapest: bool) -> None:
        self.computations, self.entry = _computations(text)
        self.choose = min if cheapest else max
        self.chains: set[str] = set()
        self.known: dict[str, Cost] = {}

    def cost_of(self, name: str = "") -> Cost:
        name = name or self.entry
        if name not in self.known:
            types = {x.name: x.type for x in self.computations[name]}
            total = Cost()
            for x in self.computations[name]:
                total = total.plus(*self.of_instruction(x, types))
            self.known[name] = total
        return self.known[name]

    def of_instruction(self, x: Instruction, types: dict[str, str]) -> tuple[Cost, int]:
        """What an instruction costs, and how often."""
        if x.op == "while":
            return self.cost_of(x.called("body")), self.trips(x)
        if x.op == "conditional":
            names = [name.strip(" %") for one in _BRANCHES.findall(x.line) for name in ",".join(one).split(",") if name]
            return self.choose(map(self.cost_of, names), key=lambda one: (one.hbm, one.cycles)), 1
        if x.op == "call":
            return self.cost_of(x.called("to_apply")), 1
        if x.op in FREE or x.op.endswith(("-done", "-update")):
            return Cost(), 1
        cycles = int(_first(_CYCLES.pattern, x.line) or 0)
        return Cost(self.traffic(x, types), cycles).plus(self.exchange(x, types)), 1

    def trips(self, loop: Instruction) -> int:
        """How often a loop runs: as XLA says, or the largest bound in its condition."""
        if known := _TRIPS.search(loop.line):
            return int(known.group(1))
        condition = "\n".join(x.line for x in self.computations[loop.called("condition")])
        return max(map(int, re.findall(r"s32\[\][^=]*constant\((\d+)\)", condition)), default=1)

    def exchange(self, x: Instruction, types: dict[str, str]) -> Cost:
        """Collectives of an instruction, those inside a fusion too.

        The steps of one chain count once.
        """
        number: collections.Counter[str] = collections.Counter()
        moved: dict[str, float] = {}
        for one, known in self.inside(x, types):
            chain = _first(r'chain_id="(\d+)"', one.line)
            if one.base not in COLLECTIVES or (chain and f"{one.base} {chain}" in self.chains):
                continue
            self.chains.add(f"{one.base} {chain}")
            number[one.base] += 1
            given = sum(_bytes(known.get(name, "")) for name in one.operands)
            whole = _bytes(one.type)
            started = one.op != one.base and one.base != "all-reduce"  # its type holds the operands too
            moved[one.base] = moved.get(one.base, 0) + max(given, whole - given if started else whole)
        return Cost(0, 0, number, moved)

    def inside(self, x: Instruction, types: dict[str, str]) -> Iterator[tuple[Instruction, dict[str, str]]]:
        yield x, types
        body = self.computations.get(x.called("calls"), []) if x.op in ("fusion", "async-start") else []
        known = {one.name: one.type for one in body}
        for one in body:
            yield one, known

    def traffic(self, x: Instruction, types: dict[str, str]) -> float:
        """Bytes of main memory that an instruction reads and writes."""
        given = [types.get(name, "") for name in x.operands]
        if x.op == "fusion":
            reads, written = self.of_fusion(x.called("calls"))
            read = sum(min(_main_bytes(kind), reads.get(k, float("inf"))) for k, kind in enumerate(given))
            return read + min(_main_bytes(x.type), written)
        if x.op in ("copy-start", "slice-start"):
            source, target = arrays(x.type)[:2]
            size = min(source.bytes, target.bytes) if x.op == "slice-start" else source.bytes
            return size * (source.in_main + target.in_main)
        if x.base in COLLECTIVES:
            return 2 * sum(map(_bytes, given))
        if x.op == "dynamic-update-slice":
            return 2 * _bytes(given[1]) * bool(_main_bytes(x.type))
        if x.op in ("dynamic-slice", "slice"):
            return _main_bytes(x.type) + _bytes(x.type) * bool(_main_bytes(given[0]))
        if x.op == "custom-call" and "ConcatBitcast" in x.line:
            return 0
        return _main_bytes(x.type) + sum(map(_main_bytes, given))

    def of_fusion(self, name: str) -> tuple[dict[int, float], float]:
        """At most how much a fusion reads of its operands, and writes.

        Less than all where it only cuts from them, or writes into them.
        """
        body = {x.name: x for x in self.computations[name]}
        users = collections.defaultdict(list)
        for x in body.values():
            for operand in x.operands:
                users[operand].append(x)
        reads = {}
        for x in body.values():
            if x.op == "parameter":
                direct = users[x.name]
                limit = _read(x, [y for user in direct for y in (users[user.name] if user.op == "bitcast" else [user])])
                if limit is not None:
                    reads[int(_first(r"parameter\((\d+)\)", x.line))] = limit
        root = next(x for x in body.values() if x.root)
        results = [body[one] for one in root.operands] if root.op == "tuple" else [root]
        results = [body[x.operands[0]] if x.op == "bitcast" and x.operands else x for x in results]
        written = sum(_bytes(body[x.operands[1]].type if x.op == "dynamic-update-slice" else x.type) for x in results)
        return reads, written


def _read(parameter: Instruction, users: Iterable[Instruction]) -> float | None:
    """At most how much is read of a parameter of a fusion; None is all of it."""
    users = list(users)
    if users and all(x.op in SLICES for x in users):
        return sum(_bytes(x.type) for x in users)
    shape = parameter.type.split("{")[0]
    if users and all(x.op == "dynamic-update-slice" and x.type.split("{")[0] == shape for x in users):
        return 0
    return None
