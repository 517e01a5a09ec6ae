"""What tests expect around them: `unittest`, `doctest`, `asyncio`, the module `solution`, and `exit`.

A test runner catches what a test raises and only reports it. Here it is written down, so that it counts
like an assertion. All of this lives in the judge; the code under test has no part in it.
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any

from .remote import Remote

SOLUTION = "solution"
"""The name under which tests may import the code."""
ENDING = {"exit": sys.exit, "quit": sys.exit}
"""Built-ins that the module `site` brings, which is not loaded here."""


def imported(tree: ast.AST) -> tuple[set[str], set[str]]:
    """The modules that a test imports at any place, and the names that it takes from `solution`."""
    modules: set[str] = set()
    taken: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add((node.module or "").partition(".")[0] if not node.level else ".")
            if node.module == SOLUTION:
                taken |= {alias.name for alias in node.names} - {"*"}
    if SOLUTION in modules:
        taken |= {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == SOLUTION
        }
    return modules, taken


def examples(tree: ast.AST) -> set[str]:
    """The words in the examples (`>>> f(1)`) that a test's documentation holds, for `doctest`."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and ">>>" in node.value:
            for line in re.findall(r"^\s*(?:>>>|\.\.\.) (.*)", node.value, re.MULTILINE):
                found |= set(re.findall(r"[^\W\d]\w*", line))
    return found


def absent(tree: ast.Module) -> str | None:
    """A module that a test imports, first of all and without a `try`, and that the sandbox does not have."""
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            for name in imported(node)[0]:
                if not is_known(name):
                    return name
    return None


def is_known(module: str) -> bool:
    root = module.partition(".")[0]
    return root == SOLUTION or root in sys.stdlib_module_names


def module_of_tests() -> types.ModuleType:
    """A fresh `__main__`, in whose names tests run: `unittest.main()` looks for them there."""
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    sys.argv = ["tests"]
    return module


def offer(names: dict[str, Any]) -> None:
    """Make the code's names the module `solution`."""
    module = sys.modules[SOLUTION] = types.ModuleType(SOLUTION)
    vars(module).update(names)


def prepare(modules: Iterable[str], note: Callable[[BaseException | str], None]) -> None:
    """Have the runners among these modules tell what they find.

    Args:
        note: called with each failure: an exception, or text for a test that checks nothing.
    """
    if "unittest" in modules:
        _watch_unittest(importlib.import_module("unittest"), note)
    if "doctest" in modules:
        _watch_doctest(importlib.import_module("doctest"), note)
    if "asyncio" in modules:
        _run_remotes(importlib.import_module("asyncio"))


def _watch_unittest(unittest: Any, note: Callable[[BaseException | str], None]) -> None:
    result, runner = unittest.TestResult, unittest.TextTestRunner
    for name in ("addFailure", "addError", "addSubTest", "addUnexpectedSuccess"):
        setattr(result, name, _noting(getattr(result, name), note))
    run = runner.run

    def run_suite(self: Any, test: Any) -> Any:
        found = run(self, test)
        if found.wasSuccessful() and found.testsRun <= len(found.skipped):
            note("unittest ran no test: every answer would pass")
        return found

    runner.run = run_suite


def _noting(method: Callable[..., Any], note: Callable[[BaseException | str], None]) -> Callable[..., Any]:
    def add(self: Any, test: Any, *args: Any) -> Any:
        error = args[-1] if args else None
        if isinstance(error, tuple):
            note(error[1])
        elif not args:
            note(AssertionError("a success that the test does not expect"))
        return method(self, test, *args)

    return add


def _watch_doctest(doctest: Any, note: Callable[[BaseException | str], None]) -> None:
    runner, testmod = doctest.DocTestRunner, doctest.testmod

    def failure(self: Any, out: Any, test: Any, example: Any, got: Any) -> None:
        note(AssertionError("an example in the tests' documentation fails"))

    def exception(self: Any, out: Any, test: Any, example: Any, error: Any) -> None:
        note(error[1])

    def run(*args: Any, **kwargs: Any) -> Any:
        found = testmod(*args, **kwargs)
        if not found.attempted:
            note("doctest found no example in the tests: every answer would pass")
        return found

    runner.report_failure, runner.report_unexpected_exception, doctest.testmod = failure, exception, run


def _run_remotes(asyncio: Any) -> None:
    """`asyncio.run` takes coroutines only; the code's are awaited where they are."""
    run = asyncio.run

    async def awaited(remote: Remote) -> Any:
        return await remote

    def start(main: Any, **kwargs: Any) -> Any:
        return run(awaited(main) if isinstance(main, Remote) else main, **kwargs)

    asyncio.run = start
