"""The names of a module: what it defines, assigns, changes and uses."""

from __future__ import annotations

import ast
from collections.abc import Iterator

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
SCOPES = (*FUNCTIONS, ast.ClassDef)


def is_stub(node: ast.AST) -> bool:
    """Whether a function has a signature and nothing else."""
    if not isinstance(node, FUNCTIONS):
        return False
    return all(
        isinstance(statement, ast.Pass)
        or (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
        or (isinstance(statement, ast.Raise) and loads(statement) & {"NotImplemented", "NotImplementedError"})
        for statement in node.body
    )


def outside(tree: ast.Module | None) -> Iterator[ast.AST]:
    """The nodes of a module outside of its functions and classes, these included."""
    assert tree is not None
    open_: list[ast.AST] = list(tree.body)
    while open_:
        node = open_.pop()
        yield node
        if not isinstance(
            node, (*SCOPES, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
        ):
            open_ += ast.iter_child_nodes(node)


def strong(tree: ast.Module | None) -> dict[str, bool]:
    """The functions and classes that a module defines, and whether each is a mere signature."""
    nodes = sorted((n for n in outside(tree) if isinstance(n, SCOPES)), key=lambda n: n.lineno)
    found: dict[str, bool] = {}
    for node in nodes:
        found[node.name] = is_stub(node) and found.get(node.name, True)
    return found


def weak(tree: ast.Module | None) -> set[str]:
    """The names that a module assigns or imports."""
    found: set[str] = set()
    for node in outside(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.alias):
            found.add((node.asname or node.name).partition(".")[0])
    return found


def loads(tree: ast.AST | None) -> set[str]:
    """The names that a tree uses."""
    assert tree is not None
    return {
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }


def changed(tree: ast.Module | None) -> set[str]:
    """The names whose objects a module changes: ``x[0] = 1``, ``x.y = 1``, ``x.append(1)``."""
    found: set[str] = set()
    for node in outside(tree):
        part = node.func if isinstance(node, ast.Call) else node
        stores = isinstance(getattr(part, "ctx", None), ast.Store)
        if isinstance(part, ast.Attribute | ast.Subscript) and (stores or part is not node):
            while isinstance(part, ast.Attribute | ast.Subscript):
                part = part.value
            if isinstance(part, ast.Name):
                found.add(part.id)
    return found
