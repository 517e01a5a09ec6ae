"""Micro-batches by token budget."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby


def micro_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Rows grouped so that rows × longest row stays within ``budget`` padded tokens.

    Rows are sorted by length first, which makes padding nearly vanish. A single row longer than
    the budget gets a micro-batch of its own. Longest first, so that a lack of memory shows in
    the first forward pass.

    Args:
        lengths: tokens of each row.
        budget: most padded tokens in one micro-batch.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    batches: list[list[int]] = []
    for row in order:
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def packed_batches(
    prompt_ids: Sequence[str], prompt_lengths: Sequence[int], lengths: Sequence[int], budget: int
) -> list[list[int]]:
    """Micro-batches of whole groups, as full as the budget allows (first fit, largest first).

    The rows of a group stand together, so that ``align.model.shared_prefix.pack`` computes their
    prompt once. A group over the budget is split, and its prompt computed once per piece; a single
    row over the budget gets a micro-batch of its own.

    Args:
        prompt_ids: which group each row belongs to.
        prompt_lengths: P of each row.
        lengths: T of each row; T - 1 tokens of it are fed.
        budget: most tokens in one forward pass.
    """
    groups: dict[str, list[int]] = {}
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        groups.setdefault(prompt_ids[row], []).append(row)
    pieces: list[tuple[int, list[int]]] = []
    for rows in groups.values():
        piece: list[int] = []
        size = prompt_lengths[rows[0]]
        for row in rows:
            if piece and size + lengths[row] - 1 > budget:
                pieces.append((size, piece))
                piece, size = [], prompt_lengths[row]
            piece.append(row)
            size += lengths[row] - 1
        pieces.append((size, piece))
    bins: list[tuple[int, list[int]]] = []
    for size, rows in sorted(pieces, key=lambda piece: -piece[0]):
        place = next((i for i, (used, _) in enumerate(bins) if used + size <= budget), None)
        if place is None:
            bins.append((size, list(rows)))
        else:
            used, held = bins[place]
            bins[place] = (used + size, held + rows)
    return [rows for _, rows in bins]


def packed_size(
    prompt_tokens: Sequence[Sequence[int]], lengths: Sequence[int], batches: Sequence[Sequence[int]]
) -> tuple[int, float]:
    """What one pass over packed micro-batches computes: (tokens fed, share of padding in the attention).

    Prompts are fed once for neighbouring rows that share them, and of a completion all tokens but the
    last. Attention alone is padded: the G completions behind a prompt are G rows of the longest. The
    share is that of the padding in these rows, over all micro-batches; 0 where no completion is fed.

    Args:
        prompt_tokens: prompt of each row.
        lengths: T of each row.
        batches: rows of each micro-batch, as :func:`packed_batches` gives them.
    """
    fed = own = places = 0
    for batch in batches:
        for prompt, rows in groupby(batch, key=lambda row: list(prompt_tokens[row])):
            sizes = [lengths[row] - 1 for row in rows]
            fed += len(prompt) + sum(sizes)
            own += sum(sizes)
            places += len(sizes) * max(sizes)
    return fed, 1 - own / places if places else 0.0
