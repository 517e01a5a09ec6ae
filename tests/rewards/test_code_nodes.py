"""Functions of linked lists and of trees, by lists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from align.errors import RewardError

Score = Callable[..., Any]
ARGS = {"timeout": 20.0, "isolation": "best_effort"}
REVERSE = """class Solution:
    def turned(self, head: Optional[ListNode]) -> Optional[ListNode]:
        before = None
        while head:
            head.next, before, head = before, head, head.next
        return before"""
MIRROR = """class Solution:
    def mirror(self, root: Optional[TreeNode]) -> Optional[TreeNode]:
        if root:
            root.left, root.right = self.mirror(root.right), self.mirror(root.left)
        return root"""
MERGE = """import heapq
def merge(lists: List[Optional[ListNode]]) -> Optional[ListNode]:
    values = []
    for node in lists:
        while node:
            values.append(node.val)
            node = node.next
    first = last = ListNode(0)
    for value in sorted(values):
        last.next = ListNode(value)
        last = last.next
    return first.next"""
DROP = """def drop(head: ListNode) -> None:
    if head and head.next:
        head.next = head.next.next"""
DEPTH = """class Solution:
    def depth(self, root: 'TreeNode', extra: int) -> int:
        if root is None:
            return extra
        return 1 + max(self.depth(root.left, extra), self.depth(root.right, extra))"""
PARENT = """class Solution:
    def parent(self, root: TreeNode, child: TreeNode) -> TreeNode:
        for side in (root.left, root.right):
            if side is child:
                return root
            found = side and self.parent(side, child)
            if found:
                return found"""


def scored(score: Score, code: str, name: str, ins: list[Any], outs: list[Any], **row: Any) -> float:
    tests = {"fn_name": name, "inputs": ins, "outputs": outs}
    return score("unit_tests", f"```python\n{code}\n```", args=ARGS, tests=tests, **row)["score"]


@pytest.mark.parametrize(
    ("code", "name", "ins", "outs", "wrong"),
    [
        (REVERSE, "turned", [[[1, 2, 3]], [[]], [[5]]], [[3, 2, 1], [], [5]], [[1, 2, 3], [], [5]]),
        (REVERSE, "turned", [[[1, 2]], [None]], [[2, 1], None], [[2, 1], [0]]),
        (
            MIRROR,
            "mirror",
            [[[4, 2, 7, 1, 3]], [[1, 2]], [[1, None, 2]], [[]]],
            [[4, 7, 2, None, None, 3, 1], [1, None, 2], [1, 2, None], []],
            [[4, 7, 2, 3, 1], [1, None, 2], [1, 2], []],
        ),
        (MERGE, "merge", [[[[1, 4], [], [2]]], [[]]], [[1, 2, 4], []], [[1, 4, 2], []]),
        (DROP, "drop", [[[1, 2, 3]]], [[1, 3]], [[1, 2, 3]]),
        (DEPTH, "depth", [[[3, 9, 20, None, None, 15, 7], 0], [[], 2]], [3, 2], [4, 2]),
        (PARENT, "parent", [[[3, 5, 1, 6], 6]], [5], [3]),
    ],
)
def test_lists_are_made_nodes_and_nodes_lists(
    score: Score, code: str, name: str, ins: list[Any], outs: list[Any], wrong: list[Any]
) -> None:
    assert scored(score, code, name, ins, outs) == 1.0
    assert scored(score, code, name, ins, wrong) == 0.0


def test_the_class_of_the_answer_counts(score: Score) -> None:
    own = "class ListNode:\n    def __init__(self, x):\n        self.val = x\n        self.next = None\n"
    assert scored(score, own + REVERSE, "turned", [[[1, 2]]], [[2, 1]]) == 1.0


def test_the_signature_of_the_row_counts(score: Score) -> None:
    starter = REVERSE.partition("before")[0]
    bare = REVERSE.replace(": Optional[ListNode]", "").replace(" -> Optional[ListNode]", "")
    assert scored(score, bare, "turned", [[[1, 2]]], [[2, 1]], starter_code=starter) == 1.0


def test_a_ring_is_no_chain(score: Score) -> None:
    ring = "def ring(head: ListNode) -> ListNode:\n    head.next = head\n    return head"
    assert scored(score, ring, "ring", [[[1, 2]]], [[1, 2]]) == 0.0


@pytest.mark.parametrize(
    ("starter", "ins", "message"),
    [
        ("def f(self, root: 'Node') -> int:", [[[1]]], "of type Node"),
        ("def f(self, head: ListNode) -> bool:", [[[1, 2], 1]], "2 values for 1 arguments"),
    ],
)
def test_nodes_that_no_list_says_are_an_error(
    score: Score, starter: str, ins: list[Any], message: str
) -> None:
    code = f"class Solution:\n    {starter}\n        return 1"
    with pytest.raises(RewardError, match=message):
        scored(score, code, "f", ins, [1], starter_code=f"class Solution:\n    {starter}\n        ")
