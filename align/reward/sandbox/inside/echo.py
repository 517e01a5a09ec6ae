"""What the code prints, for a test that has put something in the place of ``sys.stdout``."""

from __future__ import annotations

import os
import sys


class Echo:
    """Around a question to the code: what it prints meanwhile is written to the test's ``sys.stdout``.

    Args:
        output: file descriptor of what the code prints.
    """

    def __init__(self, output: int) -> None:
        self._output = output
        self._own = sys.stdout
        self._depth = 0
        self._seen = 0

    def __enter__(self) -> None:
        if not self._depth and sys.stdout is not self._own:
            self._seen = os.fstat(self._output).st_size
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if sys.stdout is not self._own and sys.stdout is not None:
            size = os.fstat(self._output).st_size
            if size > self._seen:
                printed = os.pread(self._output, size - self._seen, self._seen)
                self._seen = size
                sys.stdout.write(printed.decode(errors="replace"))
