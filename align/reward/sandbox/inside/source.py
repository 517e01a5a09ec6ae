"""A test as its text says it: compiled, with what it uses, binds and imports."""

from __future__ import annotations

import ast
import builtins

from . import runners

STATEMENT = "__call_as_statement__"
_PURE = (
    *(ast.Module, ast.Assert, ast.Call, ast.keyword, ast.Name, ast.Load, ast.Constant),
    *(ast.Compare, ast.cmpop, ast.BoolOp, ast.boolop, ast.UnaryOp, ast.unaryop, ast.BinOp, ast.operator),
    *(ast.List, ast.Tuple, ast.Set, ast.Dict, ast.Subscript, ast.Slice),
)
_PURE_BUILTINS = frozenset(
    (
        *("abs", "all", "any", "bool", "bytes", "complex", "dict", "divmod", "enumerate", "float"),
        *("frozenset", "int", "len", "list", "map", "max", "min", "range", "reversed", "round", "set"),
        *("sorted", "str", "sum", "tuple", "zip"),
    )
)


class Test:
    """A compiled test, the names that it uses and those that it binds.

    ``absent`` is a module that it imports and the sandbox lacks. A ``pure`` one only evaluates expressions
    of plain data: it cannot change anything in this process, so that the next job may use the same
    process.

    Raises:
        SyntaxError, ValueError: it does not parse.
    """

    def __init__(self, source: str) -> None:
        tree = ast.parse(source)
        names: set[str] = set()
        bound: set[str] = set()
        dotted: set[str] = set()
        pure = True
        for node in ast.walk(tree):
            pure = pure and isinstance(node, _PURE)
            if isinstance(node, ast.Name):
                (names if isinstance(node.ctx, ast.Load) else bound).add(node.id)
            elif isinstance(node, ast.FunctionDef | ast.ClassDef | ast.ExceptHandler) and node.name:
                bound.add(node.name)
            elif isinstance(node, ast.arg):
                bound.add(node.arg)
            elif isinstance(node, ast.alias):
                bound.add((node.asname or node.name).partition(".")[0])
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                dotted.add(node.value.id)
            elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                call = node.value
                call.args.insert(0, call.func)
                call.func = ast.copy_location(ast.Name(STATEMENT, ast.Load()), call)
        self.modules, self.taken = (frozenset(found) for found in runners.imported(tree))
        if "doctest" in self.modules:
            names |= runners.examples(tree)
        self.absent = runners.absent(tree)
        self.names, self.bound, self.dotted = frozenset(names), frozenset(bound), frozenset(dotted)
        self.pure = pure and not names & ((vars(builtins).keys() | runners.ENDING.keys()) - _PURE_BUILTINS)
        self.code = compile(tree, "<test>", "exec", dont_inherit=True)
