"""What statements check: the calls that a test runner would make are added, and tests that check nothing
are an error of the row, because every answer would pass."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence

from align.reward import RewardError

from ._code_blocks import parse, written
from ._code_names import FUNCTIONS, SCOPES, loads

_QUIET = (*SCOPES, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)
_CHECKING = re.compile(r"_*(?:assert|fail|expect|verify|ensure|testmod|run_docstring)", re.IGNORECASE)
_ENDING = frozenset({"exit", "quit", "_exit", "abort"})
_RUNNING = frozenset({"main", "run"})


def completed(tests: list[str], setup: str, name: str | None, column: str) -> list[str]:
    """The tests, with the calls that they leave to a test runner or to the reader: functions ``test_…``,
    classes of ``unittest`` and of pytest, HumanEval's ``check``.

    Args:
        setup: statements that run before them.
        name: of the function asked for, for ``check``.
        column: named in errors.

    Raises:
        RewardError: they check nothing, so that every answer would pass; or need fixtures of pytest.
    """
    trees = [parse(text) for text in (setup, *tests)]
    if any(tree is None for tree in trees):
        return tests  # the sandbox says what is wrong
    body = [node for tree in trees if tree is not None for node in tree.body]
    for node in body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Compare):
            raise _checks_nothing(f"`{written(node)}` compares and drops the result", column)
    added = [*_runs(body, column)]
    if not _check_something(body, added) and name and any(_named(node, "check") for node in body):
        added.append(f"check({name})")
    if not _check_something(body, added):
        only = all(isinstance(node, _QUIET) or _is_text(node) for node in body)
        why = "the tests only define functions or names" if only else "the tests check nothing"
        raise _checks_nothing(why, column)
    return [*tests, *added]


def _check_something(body: Sequence[ast.stmt], added: Sequence[str]) -> bool:
    """Whether something that runs can make a test fail."""
    calls = [node for text in added for node in ast.parse(text).body]
    return any(_is_check(part) for node in _live([*body, *calls]) for part in ast.walk(node))


def _live(body: Sequence[ast.stmt]) -> list[ast.stmt]:
    """The statements that run, and the definitions that these name, and so on."""
    live = [node for node in body if not isinstance(node, SCOPES) or node.decorator_list or _is_suite(node)]
    rest = [node for node in body if node not in live]
    while True:
        used = {name for node in live for name in loads(node)}
        dynamic = bool(used & {"globals", "locals", "vars", "eval", "exec"})
        more = [node for node in rest if dynamic or getattr(node, "name", "") in used]
        if not more:
            return live
        live += more
        rest = [node for node in rest if node not in more]


def _is_check(node: ast.AST) -> bool:
    if isinstance(node, ast.Assert | ast.Raise):
        return True
    if not isinstance(node, ast.Call):
        return False
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return bool(_CHECKING.match(called)) or (called in _ENDING and bool(node.args))


def _is_suite(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef) and any("TestCase" in (written(base) or "") for base in node.bases)


def _runs(body: Sequence[ast.stmt], column: str) -> Iterator[str]:
    """The calls that a test runner makes of what nothing calls."""
    used = {name for node in _live(body) for name in loads(node)}
    for node in body:
        if isinstance(node, SCOPES) and node.name in used:
            continue
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test") and not _is_suite(node):
            yield from _of_class(node, column)
        elif isinstance(node, FUNCTIONS) and node.name.startswith("test"):
            _without_fixtures(node, 0, column)
            waits = isinstance(node, ast.AsyncFunctionDef)
            yield f"__import__('asyncio').run({node.name}())" if waits else f"{node.name}()"
    if any(map(_is_suite, body)) and not any(map(_runs_suites, body)):
        yield "import unittest\nunittest.main()"


def _runs_suites(node: ast.stmt) -> bool:
    """Whether a statement calls ``unittest.main`` or a runner's ``run``."""
    for part in ast.walk(node) if not isinstance(node, SCOPES) else ():
        called = part.func if isinstance(part, ast.Call) else None
        if (
            isinstance(called, ast.Attribute)
            and called.attr in _RUNNING
            and written(called.value) != "asyncio"
        ):
            return True
    return False


def _of_class(found: ast.ClassDef, column: str) -> Iterator[str]:
    methods = {node.name: node for node in found.body if isinstance(node, FUNCTIONS)}
    for name, node in methods.items():
        if name.startswith("test"):
            _without_fixtures(node, 1, column)
            before, after = (
                "".join(f"_case.{other}()\n" for other in pair if other in methods)
                for pair in (("setup_method", "setUp"), ("teardown_method", "tearDown"))
            )
            yield f"_case = {found.name}()\n{before}_case.{name}()\n{after}"


def _without_fixtures(node: ast.FunctionDef | ast.AsyncFunctionDef, given: int, column: str) -> None:
    """Raises RewardError where a function takes more than its caller gives, as pytest's fixtures."""
    if len(node.args.posonlyargs) + len(node.args.args) - len(node.args.defaults) > given:
        raise RewardError(
            f"nothing calls the test `{node.name}`, and it takes arguments, as pytest would give",
            key=column,
            remedy="call it in the tests",
        )


def _named(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name == name


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _checks_nothing(why: str, column: str) -> RewardError:
    return RewardError(
        f"{why}: every answer would pass",
        key=column,
        remedy="assert something, call what they define, or give the column `entry_point` beside "
        "HumanEval's `check`",
    )
