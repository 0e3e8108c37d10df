"""A genotype, the finished pair of cells: a frozen, checked value. Reads and writes JSON and DARTS's text form."""

import ast
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search_spaces.cells.ops import CELL_OPS
from search_spaces.cells.space import NO_EDGE, check_nodes
from search_spaces.errors import InputError, nearest
from search_spaces.plain_json import (
    check_header,
    check_keys,
    check_name,
    located,
    parse_json,
    read_json,
    read_text,
    shown,
    shown_path,
)

FORMAT = "jointsearch-genotype"
VERSION = 1
MAX_DARTS_BYTES = 20_000
DARTS_FORM = (
    "Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=range(2, 6), reduce=[...], reduce_concat=range(2, 6))"
)
DARTS_FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")
DARTS_SUFFIXES = (".txt", ".py")


@dataclass(frozen=True)
class Edge:
    """One input of a node: an op and its source. Source 0 is the cell before the last, 1 the last cell, 2 node 0."""

    op: str
    source: int

    def __post_init__(self) -> None:
        known = [op for op in CELL_OPS if op != NO_EDGE]
        if not isinstance(self.op, str) or self.op not in known:
            raise InputError(f"op is {shown(self.op)}, not an op of a finished cell; {nearest(self.op, known)}")
        if isinstance(self.source, bool) or not isinstance(self.source, int) or self.source < 0:
            raise InputError(f"source is {shown(self.source)}; wanted 0 or 1 for a cell, or 2 + the number of a node")


Nodes = tuple[tuple[Edge, Edge], ...]


@dataclass(frozen=True)
class Genotype:
    """The two edges of every inner node of the normal and the reduction cell. A cell outputs all its nodes."""

    normal: Nodes
    reduction: Nodes
    name: str = field(default="genotype", compare=False)

    def __post_init__(self) -> None:
        _check_cell("normal", self.normal)
        _check_cell("reduction", self.reduction)
        if len(self.normal) != len(self.reduction):
            raise InputError(
                f"normal has {len(self.normal)} nodes and reduction {len(self.reduction)}; give both the same number"
            )
        check_name(self.name)

    def to_json(self) -> str:
        """The genotype as JSON text, with one node per line."""
        cells = [f'  "{kind}": [\n    {_rows(nodes)}\n  ]' for kind, nodes in self.cells.items()]
        head = f'  "format": "{FORMAT}",\n  "version": {VERSION},\n  "name": {json.dumps(self.name)}'
        return "{\n" + ",\n".join([head, *cells]) + "\n}\n"

    @classmethod
    def from_json(cls, text: str, where: str = "genotype") -> "Genotype":
        """Parse the output of `to_json`. Anything else raises a one-line error that starts with `where`."""
        return genotype_from_data(parse_json(text, where), where)

    def to_darts(self) -> str:
        """The genotype in the form that DARTS's code writes and reads."""
        concat = range(2, len(self.normal) + 2)
        normal, reduction = ([(e.op, e.source) for node in nodes for e in node] for nodes in self.cells.values())
        return f"Genotype(normal={normal}, normal_concat={concat}, reduce={reduction}, reduce_concat={concat})"

    @classmethod
    def from_darts(cls, text: str, name: str | None = None, where: str = "genotype") -> "Genotype":
        """Parse DARTS's form, alone or as `NAME = Genotype(...)`; the text is never run."""
        return _genotype_from_darts(text, name, where)

    @property
    def cells(self) -> dict[str, Nodes]:
        """Both cells by name."""
        return {"normal": self.normal, "reduction": self.reduction}

    def save(self, path: Path | str) -> None:
        """Write the genotype as JSON."""
        Path(path).write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: Path | str) -> "Genotype":
        """Read a genotype file: JSON, or DARTS's form in a file that ends in .txt or .py."""
        where = f"genotype file {shown_path(path)}"
        if Path(path).suffix.lower() in DARTS_SUFFIXES:
            return cls.from_darts(read_text(path, "genotype", MAX_DARTS_BYTES), where=where)
        return genotype_from_data(read_json(path, "genotype"), where)


def genotype_from_data(data: Any, where: str) -> Genotype:
    """A genotype from parsed JSON; errors name the field."""
    check_header(data, FORMAT, (VERSION,), {"normal", "reduction"}, where, "DARTS's form is read from a .txt file")
    normal, reduction = (_nodes_from_data(data.get(kind), f"{where}: {kind}") for kind in ("normal", "reduction"))
    return located(where, Genotype, normal, reduction, data.get("name", "genotype"))


def pair_up(edges: Sequence[tuple[str, int]]) -> Nodes:
    """Group DARTS's flat list of (op, source) into nodes of two edges."""
    built = [Edge(op, source) for op, source in edges]
    if len(built) % 2:
        raise InputError(f"a cell has {len(built)} edges; every node takes two, add or drop one")
    return tuple(zip(built[::2], built[1::2], strict=True))


def _rows(nodes: Nodes) -> str:
    return ",\n    ".join(json.dumps([{"op": edge.op, "source": edge.source} for edge in node]) for node in nodes)


def _check_cell(kind: str, nodes: Any) -> None:
    if not isinstance(nodes, tuple) or not all(isinstance(node, tuple) for node in nodes):
        raise InputError(f"{kind} is not a tuple of nodes; write ((Edge(...), Edge(...)), ...)")
    check_nodes(len(nodes), f"the number of nodes of {kind}")
    for place, node in enumerate(nodes):
        if len(node) != 2 or not all(isinstance(edge, Edge) for edge in node):
            raise InputError(f"{kind}[{place}] has {len(node)} edges; wanted two, (Edge(...), Edge(...))")
        for edge in node:
            if edge.source > place + 1:
                raise InputError(
                    f"{kind}[{place}] reads source {shown(edge.source)}, which is not computed before it; "
                    f"choose a source from 0 to {place + 1}"
                )
        if node[0].source == node[1].source:
            raise InputError(f"{kind}[{place}] reads source {node[0].source} twice; choose two different sources")


def _nodes_from_data(rows: Any, where: str) -> Nodes:
    if not isinstance(rows, list):
        raise InputError(f"{where} is {shown(rows)}; wanted a list of nodes")
    return tuple(_node_from_data(row, f"{where}[{place}]") for place, row in enumerate(rows))


def _node_from_data(row: Any, where: str) -> tuple[Edge, Edge]:
    if not isinstance(row, list) or len(row) != 2:
        raise InputError(f"{where} is {shown(row)}; wanted a list of two edges")
    first, second = (_edge_from_data(entry, f"{where}[{place}]") for place, entry in enumerate(row))
    return first, second


def _edge_from_data(entry: Any, where: str) -> Edge:
    check_keys(entry, {"op", "source"}, where)
    if entry.keys() != {"op", "source"}:
        raise InputError(f"{where} has the keys {sorted(entry)}; give op and source")
    return located(where, Edge, entry["op"], entry["source"])


def _genotype_from_darts(text: str, name: str | None, where: str) -> Genotype:
    call, assigned = _darts_call(text, where)
    given = dict(zip(DARTS_FIELDS, call.args, strict=False))
    given |= {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg in DARTS_FIELDS}
    if len(call.args) + len(call.keywords) != len(DARTS_FIELDS) or len(given) != len(DARTS_FIELDS):
        raise InputError(f"{where} does not give {', '.join(DARTS_FIELDS)} once each; write it as {DARTS_FORM}")
    cells = []
    for kind in ("normal", "reduce"):
        edges = _literal(given[kind], f"{where}: {kind}")
        if not all(isinstance(edge, tuple) and len(edge) == 2 for edge in edges):
            raise InputError(f"{where}: {kind} is {shown(edges)}; write it as {DARTS_FORM}")
        nodes = located(f"{where}: {kind}", pair_up, edges)
        concat, all_nodes = _literal(given[f"{kind}_concat"], f"{where}: {kind}_concat"), range(2, len(nodes) + 2)
        if concat not in (all_nodes, list(all_nodes), tuple(all_nodes)):
            raise InputError(
                f"{where}: {kind}_concat is {shown(concat)}, but a cell here outputs all its nodes; "
                f"use a genotype with {all_nodes} there"
            )
        cells.append(nodes)
    return located(where, Genotype, *cells, name or assigned)


def _darts_call(text: str, where: str) -> tuple[ast.Call, str]:
    """The single call Genotype(...) of a text, and the name that it is assigned to."""
    try:
        body = ast.parse(text.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        # The last two were seen on Python 3.11 to 3.13 for some 10,000 nested operators.
        raise InputError(f"{where} is not Python ({shown(str(error))}); write it as {DARTS_FORM}") from None
    statement = body[0] if len(body) == 1 else None
    call = statement.value if isinstance(statement, ast.Expr | ast.Assign) else None
    if not isinstance(call, ast.Call) or _last_name(call.func) != "Genotype":
        raise InputError(f"{where} is not one Genotype(...); write it as {DARTS_FORM}")
    return call, _last_name(statement.targets[0]) if isinstance(statement, ast.Assign) else "genotype"


def _last_name(node: ast.expr) -> str:
    """The last part of a name: b for `b` and for `a.b`."""
    return str(getattr(node, "id", getattr(node, "attr", "")))


def _literal(node: ast.expr, where: str) -> Sequence[Any]:
    """The value of a literal list or of range(...)."""
    try:
        if isinstance(node, ast.Call) and _last_name(node.func) == "range" and not node.keywords:
            return range(*map(ast.literal_eval, node.args))
        value = ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError, MemoryError):
        value = None
    if not isinstance(value, list | tuple):
        raise InputError(f"{where} is not a literal list; write it as {DARTS_FORM}")
    return value


def resolve_genotype(given: Genotype | Path | str) -> Genotype:
    """The genotype that is given as a value, in DARTS's form, by the name of a published one, or as a file."""
    if isinstance(given, Genotype):
        return given
    if str(given).startswith("Genotype("):
        return Genotype.from_darts(str(given))
    if str(given) in PUBLISHED:
        return PUBLISHED[str(given)]
    if Path(given).suffix or Path(given).exists():
        return Genotype.load(given)
    raise InputError(
        f"genotype {shown(str(given))} is neither published nor a file ending in .json or .txt; "
        f"{nearest(given, PUBLISHED)}"
    )


# As the authors' code prints them: DARTS (Liu et al. 2019), PC-DARTS (Xu et al. 2020).
_PUBLISHED_DARTS = """
DARTS_V1 = Genotype(normal=[('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 0), ('sep_conv_3x3', 1),
    ('skip_connect', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 2)], normal_concat=range(2, 6),
    reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 0),
    ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('avg_pool_3x3', 0)], reduce_concat=range(2, 6))

DARTS_V2 = Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1),
    ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=range(2, 6),
    reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1),
    ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=range(2, 6))

PC_DARTS_CIFAR = Genotype(normal=[('sep_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 0), ('dil_conv_3x3', 1),
    ('sep_conv_5x5', 0), ('sep_conv_3x3', 1), ('avg_pool_3x3', 0), ('dil_conv_3x3', 1)], normal_concat=range(2, 6),
    reduce=[('sep_conv_5x5', 1), ('max_pool_3x3', 0), ('sep_conv_5x5', 1), ('sep_conv_5x5', 2),
    ('sep_conv_3x3', 0), ('sep_conv_3x3', 3), ('sep_conv_3x3', 1), ('sep_conv_3x3', 2)], reduce_concat=range(2, 6))

PC_DARTS_IMAGENET = Genotype(normal=[('skip_connect', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 0), ('skip_connect', 1),
    ('sep_conv_3x3', 1), ('sep_conv_3x3', 3), ('sep_conv_3x3', 1), ('dil_conv_5x5', 4)], normal_concat=range(2, 6),
    reduce=[('sep_conv_3x3', 0), ('skip_connect', 1), ('dil_conv_5x5', 2), ('max_pool_3x3', 1),
    ('sep_conv_3x3', 2), ('sep_conv_3x3', 1), ('sep_conv_5x5', 0), ('sep_conv_3x3', 3)], reduce_concat=range(2, 6))
"""
PUBLISHED = {genotype.name: genotype for genotype in map(Genotype.from_darts, _PUBLISHED_DARTS.strip().split("\n\n"))}
