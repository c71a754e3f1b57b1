"""All mechanical mutants of a module: one small change each, in the text of the program as it stands."""

import ast
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

_COMPARED: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_CALCULATED: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
_CALLED: Final = {"any": "all", "all": "any", "min": "max", "max": "min"}


class Mutant(Struct, frozen=True):
    """One change to one module.

    Attributes:
        file: The module, relative to the checkout.
        function: In which function or class it is; empty at the top.
        line: Its number, counted from 1.
        operator: What kind of change it is.
        old: The text that gives way.
        new: The text that comes for it.
        start: Where the old text begins, in bytes.
    """

    file: str
    function: str
    line: int
    operator: str
    old: str
    new: str
    start: int

    def apply(self, text: str) -> str:
        """The module with this change."""
        data = text.encode()
        old = self.old.encode()
        assert data[self.start : self.start + len(old)] == old
        return (data[: self.start] + self.new.encode() + data[self.start + len(old) :]).decode()


def list_mutants(file: str, text: str) -> list[Mutant]:
    """All mutants of a module that are programs at all, in the order of the text."""
    finder = _Finder(file, text)
    finder.visit(ast.parse(text))
    found = {(mutant.start, mutant.old, mutant.new): mutant for mutant in finder.found}
    return [mutant for _, mutant in sorted(found.items()) if _is_program(mutant.apply(text))]


def _is_program(text: str) -> bool:
    try:
        compile(text, "mutant", "exec")
    except SyntaxError:
        return False
    return True


class _Finder(ast.NodeVisitor):
    """Goes through what is carried out: no docstrings, annotations, decorators, assertions, texts."""

    def __init__(self, file: str, text: str) -> None:
        self.found: list[Mutant] = []
        self._file = file
        self._data = text.encode()
        self._lines = [0]
        for line in self._data.splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))
        self._where: list[str] = []

    # --- where to look

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._where.append(node.name)
        for default in [*node.args.defaults, *node.args.kw_defaults]:
            if default is not None:
                self.visit(default)
        for statement in node.body:
            self.visit(statement)
        self._where.pop()

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._where.append(node.name)
        for statement in node.body:
            self.visit(statement)
        self._where.pop()

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Assert(self, node: ast.Assert) -> None:
        """What is always true is no rule."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Its parts have no place of their own in the text."""

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        """Nothing happens there."""

    visit_ImportFrom = visit_Import  # noqa: N815

    # --- what to change

    def visit_Compare(self, node: ast.Compare) -> None:
        for index, op in enumerate(node.ops):
            if type(op) in _COMPARED:
                ops = [*node.ops]
                ops[index] = _COMPARED[type(op)]()
                self._replace("comparison", node, ast.Compare(node.left, ops, node.comparators))
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        self._replace("and, or", node, ast.BoolOp(other, node.values))
        for index in range(len(node.values)):
            left = node.values[:index] + node.values[index + 1 :]
            self._replace("term left out", node, left[0] if len(left) == 1 else ast.BoolOp(node.op, left))
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not | ast.USub):
            self._replace("not", node, node.operand)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        other = _CALCULATED.get(type(node.op))
        if other is not None:
            self._replace("arithmetic", node, ast.BinOp(node.left, other(), node.right))
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self._replace("constant", node, ast.Constant(not node.value))
        elif isinstance(node.value, int):
            self._replace("constant", node, ast.Constant(node.value + 1))

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id in _CALLED:
            other = ast.Name(_CALLED[node.func.id])
            self._replace("any, all", node, ast.Call(other, node.args, node.keywords))
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self._negate(test)
            self._replace("condition left out", test, ast.Constant(True))
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None and not _is_none(node.value):
            self._replace("return None", node, ast.Return(ast.Constant(None)))
        self.generic_visit(node)

    def visit_Continue(self, node: ast.Continue) -> None:
        self._replace("break, continue", node, ast.Break())

    def visit_Break(self, node: ast.Break) -> None:
        self._replace("break, continue", node, ast.Continue())

    def visit_Raise(self, node: ast.Raise) -> None:
        self._replace("statement left out", node, ast.Pass())

    def visit_Assign(self, node: ast.Assign) -> None:
        if self._where and not all(isinstance(target, ast.Name) for target in node.targets):
            self._replace("statement left out", node, ast.Pass())
        self.visit(node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._replace("statement left out", node, ast.Pass())
        self.visit(node.value)

    def visit_Delete(self, node: ast.Delete) -> None:
        self._replace("statement left out", node, ast.Pass())

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant):
            return  # a docstring
        if not isinstance(node.value, ast.Yield | ast.YieldFrom):
            self._replace("statement left out", node, ast.Pass())
        self.visit(node.value)

    # --- how

    def _negate(self, test: ast.expr) -> None:
        if not isinstance(test, ast.Compare) and not (
            isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
        ):
            self._replace("condition", test, ast.UnaryOp(ast.Not(), test))

    def _replace(self, operator: str, node: ast.expr | ast.stmt, other: ast.expr | ast.stmt) -> None:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = self._lines[node.lineno - 1] + node.col_offset
        end = self._lines[node.end_lineno - 1] + node.end_col_offset
        new = ast.unparse(ast.fix_missing_locations(other))
        if isinstance(other, ast.expr) and not isinstance(other, ast.Constant | ast.Name | ast.Call):
            new = f"({new})"
        self.found.append(
            Mutant(
                file=self._file,
                function=".".join(self._where),
                line=node.lineno,
                operator=operator,
                old=self._data[start:end].decode(),
                new=new,
                start=start,
            )
        )


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def describe(mutant: Mutant) -> Iterator[str]:
    """A mutant, as a person reads it."""
    yield f"{mutant.file}:{mutant.line} in {mutant.function or 'the module'} ({mutant.operator})"
    for sign, text in (("-", mutant.old), ("+", mutant.new)):
        yield f"    {sign} {' '.join(text.split())}"
