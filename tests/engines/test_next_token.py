"""Drawing the next token: the distribution asked for, and the same token whatever else is drawn."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from posttrain.engines.constraints import Constraint
from posttrain.engines.next_token import BLOCK, LINES, draw, pick, truncate
from posttrain.engines.writing import Writing
from posttrain.types import Sampling, UserError

FIVE = torch.tensor([[0.4, 0.3, 0.15, 0.1, 0.05]]).log()
GREEDY, FREE = Sampling(temperature=0.0), Sampling(temperature=1.0)


@dataclass
class Row:
    sampling: Sampling
    generator: random.Random
    constraint: Constraint | None = None


@dataclass
class Among:
    """A constraint that allows the same tokens for ever."""

    tokens: Sequence[int]

    def forced(self) -> list[int]:
        return []

    def allowed(self, vocabulary: int) -> torch.Tensor:
        return torch.tensor([token for token in self.tokens if token < vocabulary])

    def accept(self, token: int) -> None:
        assert token in self.tokens


def rows(count: int, sampling: Sampling = FREE, constraint: Constraint | None = None) -> list[Row]:
    return [Row(sampling, random.Random(i), constraint) for i in range(count)]


@pytest.mark.parametrize(("top_k", "top_p", "wanted"), [
    (0, 1.0, [0.4, 0.3, 0.15, 0.1, 0.05]),
    (2, 1.0, [4 / 7, 3 / 7, 0, 0, 0]),
    (0, 0.8, [0.4 / 0.85, 0.3 / 0.85, 0.15 / 0.85, 0, 0]),
    (1, 0.9, [1, 0, 0, 0, 0]),
    (3, 0.5, [4 / 7, 3 / 7, 0, 0, 0]),
])
def test_draws_follow_the_distribution_and_its_truncation(top_k: int, top_p: float, wanted: list[float]) -> None:
    drawn = draw(FIVE, [0] * 2000, rows(2000, Sampling(temperature=1.0, top_k=top_k, top_p=top_p)))
    counts = Counter(each.token for each in drawn)
    support = [i for i, share in enumerate(wanted) if share]
    assert set(counts) == set(support)
    if len(support) > 1:
        assert chisquare([counts[i] for i in support], [2000 * wanted[i] for i in support]).pvalue > 1e-4
    for each in drawn:
        assert each.logprob == each.log_confidence == pytest.approx(float(FIVE[0, each.token]), abs=1e-6), (
            "log-probabilities are before truncation")


def test_draws_over_many_blocks_follow_the_distribution() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 3 * BLOCK + 7) * 2
    drawn = draw(logits, [0] * 20_000, rows(20_000))
    counts = torch.bincount(torch.tensor([each.token for each in drawn]), minlength=logits.shape[1]).double()
    expected = logits[0].double().softmax(0) * 20_000
    rare = expected < 5
    observed = [*counts[~rare].tolist(), counts[rare].sum().item()]
    assert chisquare(observed, [*expected[~rare].tolist(), expected[rare].sum().item()], sum_check=False).pvalue > 1e-4


def test_greedy_takes_the_likeliest_and_says_its_logprob_at_temperature_1() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0], [5.0, 2.0, 1.0]])
    drawn = draw(logits, [1, 0], rows(2, GREEDY))
    assert [each.token for each in drawn] == [0, 1]
    assert drawn[1].logprob == pytest.approx(float(logits[0].log_softmax(0)[1]), abs=1e-6)


def test_temperature_shapes_what_is_drawn_and_said() -> None:
    drawn = draw(FIVE, [0] * 3000, rows(3000, Sampling(temperature=0.5)))
    wanted = (FIVE[0] / 0.5).log_softmax(0)
    assert chisquare([sum(each.token == i for each in drawn) for i in range(5)], (wanted.exp() * 3000).double(),
                     sum_check=False).pvalue > 1e-4
    assert all(each.logprob == pytest.approx(float(wanted[each.token]), abs=1e-6) for each in drawn)


def test_a_constraint_renormalises_the_confidence_and_not_the_logprob() -> None:
    drawn = draw(FIVE, [0] * 2000, rows(2000, FREE, Among([1, 3])))
    counts = Counter(each.token for each in drawn)
    assert chisquare([counts[1], counts[3]], [1500, 500]).pvalue > 1e-4 and set(counts) == {1, 3}
    for each in drawn:
        assert each.logprob == pytest.approx(float(FIVE[0, each.token]), abs=1e-6)
        assert each.log_confidence == pytest.approx(float(FIVE[0, [1, 3]].log_softmax(0)[[1, 3].index(each.token)]), abs=1e-6)
    (greedy,) = draw(FIVE, [0], rows(1, GREEDY, Among([2, 4])))
    assert greedy.token == 2


WAYS = (FREE, GREEDY, Sampling(temperature=0.7, top_k=5), Sampling(temperature=2.0, top_p=0.9))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2 * LINES), st.sampled_from(WAYS), st.booleans()), min_size=1, max_size=80),
       st.integers(0, 10_000))
def test_what_a_row_draws_does_not_depend_on_other_rows(
        asked: list[tuple[int, Sampling, bool]], seed: int) -> None:
    logits = torch.randn(2 * LINES + 1, 2 * BLOCK + 3, generator=torch.Generator().manual_seed(seed)) * 3
    together = draw(logits, [line for line, _, _ in asked], [
        Row(sampling, random.Random(i), Among(range(0, 99, 3)) if constrained else None)
        for i, (_, sampling, constrained) in enumerate(asked)])
    for i, (line, sampling, constrained) in enumerate(asked):
        (alone,) = draw(logits[line : line + 1], [0], [
            Row(sampling, random.Random(i), Among(range(0, 99, 3)) if constrained else None)])
        assert alone == together[i]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.0, 1e-30, 1e-9, 0.1, 0.5, 1.0]), min_size=1, max_size=3 * BLOCK),
       st.floats(0.0, 1.0, exclude_max=True))
def test_what_is_picked_has_mass_and_lies_where_the_point_falls(masses: list[float], point: float) -> None:
    line = torch.tensor([masses])
    if not sum(masses):
        return
    (choice,) = pick(line, [0], torch.tensor([point], dtype=torch.float64)).tolist()
    assert 0 <= choice < len(masses) and line[0, choice] > 0
    cumulated = line[0].double().cumsum(0)
    total, rounding = float(cumulated[-1]), 1e-12
    assert float(cumulated[choice]) >= (point - rounding) * total
    assert (float(cumulated[choice - 1]) if choice else 0.0) <= (point + rounding) * total


def test_truncation_keeps_the_smallest_set() -> None:
    logprobs = torch.tensor([[0.5, 0.25, 0.125, 0.125], [0.125, 0.25, 0.125, 0.5]]).log()
    assert truncate(logprobs, 0, 0.5).isfinite().tolist() == [[True, False, False, False], [False, False, False, True]]
    assert truncate(logprobs, 0, 0.51).isfinite().tolist() == [[True, True, False, False], [False, True, False, True]]
    assert truncate(logprobs, 2, 1.0).isfinite().tolist() == [[True, True, False, False], [False, True, False, True]]
    assert truncate(logprobs, 99, 1.0).isfinite().all()


@pytest.mark.parametrize("way", [FREE, GREEDY])
@pytest.mark.parametrize("constraint", [None, Among([1, 3])])
def test_logits_that_are_no_numbers_are_refused(way: Sampling, constraint: Constraint | None) -> None:
    [drawn] = draw(torch.full((1, 5), float("nan")), [0], rows(1, way, constraint))
    writing = Writing(prompt=(1,), sampling=way, constraint=constraint, generator=random.Random(0))
    with pytest.raises(UserError, match="diverged"):
        writing.take(drawn, ())
    assert writing.tokens == [] == writing.logprobs
