"""Settings from a Python file that is read and never run: assignments of literals, as configs of published code are.

What an expression of literals, of names assigned before and of arithmetic gives is worked out; a call, an import or
anything else that only running could tell leaves the names that it sets unknown, with the line and the reason.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wholebody.errors import BadInput
from wholebody.files.reading import open_file
from wholebody.files.text import brief, shown

LARGEST_FILE = 4 << 20  # bytes
_LARGEST_VALUE = 100_000  # entries of a repeated list or text, digits of a power
_BASES = "_base_"  # mmcv's name for the files that a config begins with
_DEEPEST_BASES = 8
_WORDS = {"true": True, "false": False, "null": None}
"""What JSON calls them: SMPLest-X saves a run's config with these, as no Python."""


@dataclass(frozen=True)
class Unknown:
    """Stands for a value that only running the file could tell."""

    line: int
    why: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.why}"


@dataclass
class PythonSettings:
    """What a file assigns, by name; values are plain, or `Unknown`."""

    path: Path
    values: dict[str, Any] = field(default_factory=dict)
    classes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the bodies of its classes assign, by class."""
    imports: list[str] = field(default_factory=list)
    """`line N: import os`, ..."""
    calls: list[str] = field(default_factory=list)
    """Statements that call something for what it does: what that changes, only running could tell."""
    rest: list[str] = field(default_factory=list)
    """Other statements that were not looked into: functions, loops."""


def read_python_settings(path: str | Path) -> PythonSettings:
    """The settings of a Python file, and of those that its `_base_` names.

    Raises BadInput for what cannot be read, is no Python, or brings in names that are not written in it (`import *`).
    """
    return _read(Path(path), 0)


def _read(path: Path, depth: int) -> PythonSettings:
    if depth > _DEEPEST_BASES:
        raise BadInput(f"{path}: its {_BASES} files name each other without end, or more than {_DEEPEST_BASES} deep")
    try:
        with open_file(path) as file:
            data = file.read(LARGEST_FILE + 1)
    except (BadInput, OSError) as error:
        raise BadInput(f"{path}: cannot be read ({error})") from error
    if len(data) > LARGEST_FILE:
        raise BadInput(f"{path} has {path.stat().st_size:,} bytes, and is no config: those have some thousand")
    try:
        tree = ast.parse(data, filename=str(path))
    except SyntaxError as error:
        raise BadInput(f"{path}: is no Python: {error.msg} (line {error.lineno})") from error
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        raise BadInput(f"{path}: is no Python that can be read: {brief(str(error)) or 'too deep'}") from error
    found = PythonSettings(path)
    try:
        _Reader(found, found.values).read(tree.body)
    except RecursionError as error:
        raise BadInput(f"{path}: its expressions are nested too deep for a config") from error
    return _with_bases(found, depth)


def _with_bases(found: PythonSettings, depth: int) -> PythonSettings:
    """The same on top of the files that `_base_` names, as mmcv reads them."""
    bases = found.values.pop(_BASES, ())
    if isinstance(bases, Unknown):
        raise BadInput(f"{found.path}: which files it builds on cannot be told: {bases}")
    if isinstance(bases, str):
        bases = (bases,)
    if not isinstance(bases, Sequence) or not all(isinstance(one, str) for one in bases):
        raise BadInput(f"{found.path}: {_BASES} is {brief(bases)}, not the names of files")
    below: dict[str, Any] = {}
    for base in bases:
        other = _read(found.path.parent / base, depth + 1)
        below = _merged(below, other.values)
        for name in ("imports", "calls", "rest"):
            getattr(found, name)[:0] = [f"{base}, {text}" for text in getattr(other, name)]
    found.values = _merged(below, found.values)
    return found


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Tables of the same name are merged; one with `_delete_=True` takes the other's place."""
    merged = dict(below)
    for name, value in above.items():
        before = merged.get(name)
        if isinstance(value, dict) and isinstance(before, dict) and not value.get("_delete_"):
            merged[name] = _merged(before, value)
        else:
            merged[name] = {k: v for k, v in value.items() if k != "_delete_"} if isinstance(value, dict) else value
    return merged


class _CannotTell(Exception):
    """An expression that is not made of literals."""


class _Reader:
    """Goes through the statements of a file or of a class's body, in order."""

    def __init__(self, found: PythonSettings, values: dict[str, Any], outer: Mapping[str, Any] | None = None) -> None:
        self.found, self.values, self.outer = found, values, outer or {}

    def read(self, statements: Sequence[ast.stmt]) -> None:
        for statement in statements:
            self._statement(statement)

    def _statement(self, node: ast.stmt) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom):
            self._import(node)
        elif isinstance(node, ast.Assign):
            self._assign_all(node.targets, node.value, node)
        elif isinstance(node, ast.AnnAssign):
            if node.value is not None:
                self._assign_all([node.target], node.value, node)
        elif isinstance(node, ast.AugAssign):
            self._augment(node)
        elif isinstance(node, ast.Expr):
            self._expression(node)
        elif isinstance(node, ast.ClassDef):
            body: dict[str, Any] = {}
            self.found.classes[node.name] = body
            _Reader(self.found, body, self.values).read(node.body)
        elif isinstance(node, ast.If):
            self._condition(node)
        elif isinstance(node, ast.Delete):
            for target in node.targets:
                self.values.pop(target.id if isinstance(target, ast.Name) else "", None)
        elif not isinstance(node, ast.Pass):
            self._not_run(node)

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        text = f"line {node.lineno}: {_source(node)}"
        if any(alias.name == "*" for alias in node.names):
            raise BadInput(
                f"{self.found.path}, {text}: brings in settings that are not written here, and imports are not run. "
                f"Copy them into this file, or name that file as {_BASES}."
            )
        self.found.imports.append(text)
        for alias in node.names:
            name = (alias.asname or alias.name).partition(".")[0]
            self.values[name] = Unknown(node.lineno, f"{name} is imported, and imports are not run")

    def _expression(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant):  # a docstring
            return
        text = f"line {node.lineno}: {_source(node)}"
        (self.found.calls if _calls(node) else self.found.rest).append(text)
        self._forget_what_calls_change(node)

    def _condition(self, node: ast.If) -> None:
        test = self._value(node.test)
        if not isinstance(test, Unknown):
            self.read(node.body if test else node.orelse)
        else:
            self._not_run(node)

    def _not_run(self, node: ast.stmt) -> None:
        words = ast.unparse(node).strip().split("\n")
        first = next((line for line in words if not line.startswith("@")), words[0])
        self.found.rest.append(f"line {node.lineno}: {_short(first)}")
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            self.values[node.name] = Unknown(node.lineno, f"{node.name} is a function, and functions are not run")
        else:
            self._forget(node, "is set under a condition or in a loop, which are not run")

    def _forget(self, node: ast.AST, why: str) -> None:
        """What a statement that is not run may set, or change by a call, is unknown from here on."""
        for part in ast.walk(node):
            name = part.id if isinstance(part, ast.Name) else ""
            if not name:
                continue
            sets = isinstance(part.ctx, ast.Store)  # type: ignore[attr-defined]
            if sets or isinstance(self.values.get(name), dict | list):
                self.values[name] = Unknown(part.lineno, f"{name} {why}")  # type: ignore[attr-defined]

    def _forget_what_calls_change(self, node: ast.AST) -> None:
        """Tables and lists that are handed to a call, or whose own method is called, may come out of it changed."""
        for call in ast.walk(node):
            if not isinstance(call, ast.Call):
                continue
            handed = [*call.args, *(keyword.value for keyword in call.keywords)]
            if isinstance(call.func, ast.Attribute) and call.func.attr not in _ONLY_LOOKS:
                handed.append(call.func.value)
            elif isinstance(call.func, ast.Name) and call.func.id in _ONLY_LOOKS:
                continue
            for part in handed:
                while isinstance(part, ast.Subscript):
                    part = part.value
                if isinstance(part, ast.Name) and isinstance(self.values.get(part.id), dict | list):
                    why = f"{part.id} may be changed by a call, and calls are not run"
                    self.values[part.id] = Unknown(call.lineno, why)

    def _assign_all(self, targets: Sequence[ast.expr], expression: ast.expr, node: ast.stmt) -> None:
        value = self._value(expression)
        for target in targets:
            self._assign(target, value, node)
        if isinstance(value, Unknown):
            self._forget_what_calls_change(expression)

    def _assign(self, target: ast.expr, value: Any, node: ast.stmt) -> None:
        if isinstance(target, ast.Name):
            self.values[target.id] = value
        elif isinstance(target, ast.Tuple | ast.List):
            parts: Any = value
            if isinstance(value, Unknown) or not isinstance(value, Sequence) or len(value) != len(target.elts):
                why = value if isinstance(value, Unknown) else Unknown(node.lineno, "cannot be taken apart")
                parts = [why] * len(target.elts)
            for one, part in zip(target.elts, parts, strict=True):
                self._assign(one, part, node)
        elif isinstance(target, ast.Subscript):
            self._into(target, value, node)
        else:
            self.found.rest.append(f"line {node.lineno}: {_source(node)}")

    def _into(self, target: ast.Subscript, value: Any, node: ast.stmt) -> None:
        """`table["key"] = value`."""
        table, key = self._value(target.value), self._value(target.slice)
        if isinstance(table, dict) and isinstance(key, str):
            table[key] = value
        else:
            self._forget(target, "is changed in a way that cannot be read")
            self.found.rest.append(f"line {node.lineno}: {_source(node)}")

    def _augment(self, node: ast.AugAssign) -> None:
        value = self._value(ast.copy_location(ast.BinOp(node.target, node.op, node.value), node))
        self._assign(node.target, value, node)

    def _value(self, node: ast.expr) -> Any:
        try:
            return self._evaluate(node)
        except _CannotTell as error:
            return Unknown(node.lineno, str(error))
        except (ArithmeticError, LookupError, TypeError, ValueError, MemoryError) as error:
            return Unknown(node.lineno, f"{_source(node)} has no value: {brief(str(error))}")

    def _evaluate(self, node: ast.expr) -> Any:
        of = self._evaluate
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return self._name(node)
        if isinstance(node, ast.List | ast.Tuple | ast.Set):
            if any(isinstance(one, ast.Starred) for one in node.elts):
                parts = [list(of(e.value)) if isinstance(e, ast.Starred) else [self._value(e)] for e in node.elts]
                values = [one for part in parts for one in part]
            else:
                values = [self._value(one) for one in node.elts]
            for one in values:
                _known(one)
            return tuple(values) if isinstance(node, ast.Tuple) else values
        if isinstance(node, ast.Dict):
            return self._table(node)
        if isinstance(node, ast.UnaryOp):
            return _UNARY[type(node.op)](of(node.operand))
        if isinstance(node, ast.BinOp):
            if type(node.op) not in _BINARY:
                raise _CannotTell(f"{_source(node)} is worked out in a way that is not read here")
            return _bounded(type(node.op), of(node.left), of(node.right))
        if isinstance(node, ast.BoolOp):
            value = of(node.values[0])
            for other in node.values[1:]:
                if bool(value) == isinstance(node.op, ast.Or):
                    return value
                value = of(other)
            return value
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARE:
            return _COMPARE[type(node.ops[0])](of(node.left), of(node.comparators[0]))
        if isinstance(node, ast.IfExp):
            return of(node.body) if of(node.test) else of(node.orelse)
        if isinstance(node, ast.Subscript) and not isinstance(node.slice, ast.Slice):
            return _known(of(node.value)[of(node.slice)])
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, ast.Attribute):
            raise _CannotTell(f"{_source(node)} is looked up in something, which only running could do")
        raise _CannotTell(f"{_source(node)} is no value that is written out")

    def _name(self, node: ast.Name) -> Any:
        for place in (self.values, self.outer):
            if node.id in place:
                return _known(place[node.id])
        if node.id in _WORDS:
            return _WORDS[node.id]
        raise _CannotTell(f"{node.id} is not assigned in this file")

    def _table(self, node: ast.Dict) -> dict[Any, Any]:
        table: dict[Any, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                table |= self._evaluate(value)
            else:
                table[self._evaluate(key)] = self._value(value)  # one that is unknown leaves the others known
        return table

    def _call(self, node: ast.Call) -> Any:
        """`dict(a=1)` is a table written otherwise; nothing else is called."""
        plain = isinstance(node.func, ast.Name) and node.func.id == "dict" and "dict" not in self.values
        if not plain or len(node.args) > 1:
            raise _CannotTell(f"{_source(node)} is a call, and calls are not run")
        table = dict(self._evaluate(node.args[0])) if node.args else {}
        for keyword in node.keywords:
            if keyword.arg is None:
                table |= self._evaluate(keyword.value)
            else:
                table[keyword.arg] = self._value(keyword.value)
        return table


def _known(value: Any) -> Any:
    """The value; raises if it is an `Unknown`."""
    if isinstance(value, Unknown):
        raise _CannotTell(value.why)
    return value


def _source(node: ast.AST) -> str:
    return _short(" ".join(ast.unparse(node).split()))


def _short(text: str, most: int = 80) -> str:
    text = shown(text)
    return text if len(text) <= most else f"{text[: most - 3]}..."


_ONLY_LOOKS = {
    "get", "keys", "values", "items", "copy", "index", "count", "len", "print", "str", "repr", "range", "dict",
}  # fmt: skip
"""Calls that leave alone what they are handed."""


def _calls(node: ast.AST) -> bool:
    return any(isinstance(part, ast.Call | ast.Await | ast.Yield | ast.YieldFrom) for part in ast.walk(node))


def _bounded(kind: type[ast.operator], left: Any, right: Any) -> Any:
    """Arithmetic that cannot fill the memory."""
    if kind is ast.Mult:
        for one, other in ((left, right), (right, left)):
            if isinstance(one, str | bytes | list | tuple) and isinstance(other, int):
                if len(one) * max(other, 0) > _LARGEST_VALUE:
                    raise _CannotTell(f"a list or text of {len(one) * other:,} entries is no setting")
    if kind is ast.Pow and isinstance(right, int | float) and abs(right) > 64:
        raise _CannotTell(f"a power of {right} is no setting")
    if kind is ast.Mod and not isinstance(left, int | float):
        raise _CannotTell("a text is put together by %, which is not read here")
    if isinstance(left, int) and isinstance(right, int):
        if max(left.bit_length(), right.bit_length()) > 4096:
            raise _CannotTell("a number of that size is no setting")
    return _BINARY[kind](left, right)


_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow,
}  # fmt: skip
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Not: operator.not_, ast.Invert: operator.invert,
}  # fmt: skip
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.Is: operator.is_, ast.IsNot: operator.is_not,
    ast.In: lambda one, many: one in many, ast.NotIn: lambda one, many: one not in many,
}  # fmt: skip
