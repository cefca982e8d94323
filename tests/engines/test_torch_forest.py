"""The layout of a batch loses nothing, repeats nothing that it need not, and is cut between groups only."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.engines.torch.forest import (
    MOST_SHARED,
    SHORTEST_SHARED,
    SMALLEST_PART,
    common_prefix,
    common_prefix_of_all,
    cut,
    deal,
    plant,
    share_out,
)

Sequences = list[tuple[int, ...]]


@st.composite
def batches(draw: st.DrawFn) -> Sequences:
    """Sequences that share much: each is a cut of an earlier one with something put after it."""
    few = st.integers(0, 2)
    made: Sequences = [tuple(draw(st.lists(few, min_size=1, max_size=30)))]
    for _ in range(draw(st.integers(0, 7))):
        stem = draw(st.sampled_from(made))
        tokens = stem[:draw(st.integers(0, len(stem)))] + tuple(draw(st.lists(few, max_size=12)))
        made.append(tokens or (0,))
    return made


adapted = batches().flatmap(lambda made: st.tuples(
    st.just(made), st.lists(st.sampled_from(["", "a", "b"]), min_size=len(made), max_size=len(made))))


@given(adapted, st.integers(0, 50))
def test_every_sequence_is_found_again(drawn: tuple[Sequences, list[str]], first: int) -> None:
    sequences, adapters = drawn
    forest = plant(sequences, adapters, first_position=first)
    for i, tokens in enumerate(sequences):
        index = forest.index(i)
        assert tuple(forest.tokens[place] for place in index) == tokens
        assert [forest.positions[place] for place in index] == list(range(first, first + len(tokens)))


@given(adapted)
def test_a_token_sees_its_own_prefix_and_nothing_else(drawn: tuple[Sequences, list[str]]) -> None:
    sequences, adapters = drawn
    forest = plant(sequences, adapters)
    seen_by = {}
    for segment in forest.segments:
        above = [i for start, end in segment.ancestors for i in range(start, end)]
        for place in range(segment.start, segment.end):
            seen_by[place] = [*above, *range(segment.start, place + 1)]
    for i in range(len(sequences)):
        index = forest.index(i)
        for length, place in enumerate(index, 1):
            assert seen_by[place] == index[:length]


@given(adapted)
def test_the_layout_is_covered_once(drawn: tuple[Sequences, list[str]]) -> None:
    sequences, adapters = drawn
    forest = plant(sequences, adapters)
    assert [place for segment in forest.segments for place in range(segment.start, segment.end)] == list(
        range(len(forest.tokens))), "segments are in order and without gaps, as attention splits them"
    assert all(segment.start < segment.end for segment in forest.segments)
    for segment in forest.segments:
        below = [other for other in forest.segments if (segment.start, segment.end) in other.ancestors]
        assert [(segment.end, segment.reach)] == [(below[0].start, below[-1].end)] if below else (
            segment.reach == segment.end), "what hangs on a segment lies in one run behind it"
    assert [place for _, start, end in forest.adapters for place in range(start, end)] == list(
        range(len(forest.tokens)))
    owner = {place: name for name, start, end in forest.adapters for place in range(start, end)}
    for i, adapter in enumerate(adapters):
        assert {owner[place] for place in forest.index(i)} == {adapter}
    assert len(forest.tokens) == len(forest.positions) <= sum(map(len, sequences))


@given(batches())
def test_what_is_shared_is_laid_out_once(sequences: Sequences) -> None:
    prefixes = {tokens[:length] for tokens in sequences for length in range(1, len(tokens) + 1)}
    laid_out = len(plant(sequences, [""] * len(sequences)).tokens)
    assert len(prefixes) <= laid_out <= len(prefixes) + (SHORTEST_SHARED - 1) * (len(sequences) - 1)


def test_an_episode_grows_and_is_never_repeated() -> None:
    turns = [tuple(range(length)) for length in range(1, 200, 3)]
    forest = plant(turns, [""] * len(turns))
    assert len(forest.tokens) == len(turns[-1])


def test_a_batch_as_deep_as_it_is_long_is_no_matter() -> None:
    deep = [(*range(8 * i), -1, -2) for i in range(1, 1500, 60)]
    assert len(plant(deep, [""] * len(deep)).segments) >= 2 * len(deep) - 1


@given(st.lists(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=20).map(tuple), min_size=1, max_size=4),
                max_size=12), st.integers(1, 120))
def test_cutting_covers_every_group_once_and_splits_none(groups: list[Sequences], largest: int) -> None:
    pieces = list(cut(groups, largest))
    assert [number for piece in pieces for number in piece] == list(range(len(groups)))
    for piece in pieces:
        assert len(piece) == 1 or laid_out(groups, piece) <= largest


@given(batches(), st.integers(1, 120), st.booleans())
def test_no_more_is_cut_than_must_be(sequences: Sequences, largest: int, in_order: bool) -> None:
    groups = [[tokens] for tokens in (sorted(sequences) if in_order else sequences)]
    pieces = list(cut(groups, largest))
    for piece, following in pairwise(pieces):
        assert laid_out(groups, [*piece, following[0]]) > largest, "the next one did not fit"


def laid_out(groups: list[Sequences], numbers: list[int]) -> int:
    """Tokens that are laid out for some of the groups."""
    sequences = [tokens for number in numbers for tokens in groups[number]]
    return len(plant(sequences, [""] * len(sequences)).tokens)


@pytest.mark.parametrize("from_its_end", [False, True])
def test_a_deep_tree_that_fits_is_not_cut(from_its_end: bool) -> None:
    turns = [tuple(range(100 + 40 * turn)) for turn in range(6)]
    groups = [[turn, (*turn, *range(1000, 1010))] for turn in turns]  # each is gone on with, and forks
    groups = groups[::-1] if from_its_end else groups
    assert list(cut(groups, 300 + 6 * 10)) == [[0, 1, 2, 3, 4, 5]]
    assert len(list(cut(groups, 300 + 6 * 10 - 1))) == 2


@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=9), min_size=1, max_size=6))
def test_common_prefixes(sequences: list[list[int]]) -> None:
    for a in sequences:
        for b in sequences:
            shared = common_prefix(a, b)
            assert a[:shared] == b[:shared] and (a[shared:shared + 1] != b[shared:shared + 1] or a == b)
    of_all = common_prefix_of_all(sequences)
    assert all(tokens[:of_all] == sequences[0][:of_all] for tokens in sequences)
    ends = {tuple(tokens[of_all:of_all + 1]) for tokens in sequences}
    assert len(ends) > 1 or ends == {()}


@given(st.lists(st.integers(0, 60), min_size=1, max_size=40), st.integers(1, 8))
def test_parts_are_runs_of_about_equal_size(sizes: list[int], most: int) -> None:
    parts = deal(sizes, most)
    assert [i for part in parts for i in part] == list(range(len(sizes)))
    assert 1 <= len(parts) <= most
    largest = max(sum(sizes[i] for i in part) for part in parts)
    assert largest <= max(sum(sizes) / most, 2 * SMALLEST_PART) + 2 * max(sizes), "off by what cannot be cut"


def test_what_is_small_or_shares_much_stays_together() -> None:
    short, long = (1,) * (SMALLEST_PART // 4), tuple(range(2 * SMALLEST_PART))
    assert share_out([[short], [short]], 2) == [[0, 1]]
    apart = [[(first, *long)] for first in range(4)]
    assert share_out(apart, 2) == [[0, 1], [2, 3]]
    assert share_out(apart, 1) == [[0, 1, 2, 3]]
    shared = tuple(range(100, 100 + int(1.1 * MOST_SHARED * 4 * len(long))))
    assert share_out([[shared + tokens[0]] for tokens in apart], 2) == [[0, 1, 2, 3]]
