"""Every branch of the verdict, on made-up outcomes."""

from __future__ import annotations

import pytest
from synthetic_comparison import evaluation, result

from posttrain.comparison.money import BreakEven, Cost
from posttrain.comparison.results import CandidateResult
from posttrain.comparison.verdict import (
    choose_reference,
    choose_winner,
    decide,
    detectable,
    detectable_sentence,
    next_commands,
)
from posttrain.evaluation.statistics import Pairs, holm, mcnemar_p_value, newcombe_interval
from posttrain.types import Kind, UserError


def right(first: int, last: int, n: int = 120) -> list[bool]:
    """Right on rows first..last-1 only."""
    return [first <= i < last for i in range(n)]


def candidate(name: str, kind: Kind, first: int, last: int, dev: float | None, **fields: object) -> CandidateResult:
    return result(name, kind, 0, dev=-1 if dev is None else dev, passed=right(first, last), **fields)


def test_near_ties_on_dev_go_to_the_simpler_then_the_cheaper() -> None:
    taught, prompted = candidate("sft", "weights", 0, 60, 0.51), candidate("few_shot", "prompt", 0, 60, 0.50)
    assert choose_winner([taught, prompted]).name == "few_shot"
    assert choose_winner([taught, prompted], margin=0.005).name == "sft"
    dear = candidate("sft+grpo", "weights", 0, 60, 0.52, cost=Cost(0, 2.0))
    cheap = candidate("sft", "weights", 0, 60, 0.51, cost=Cost(0, 1.0))
    assert choose_winner([dear, cheap]).name == "sft"
    with pytest.raises(UserError, match="no candidate has a dev score"):
        choose_winner([candidate("ours", "given", 0, 60, None)])


def test_the_reference_is_yours_else_the_best_prompt_on_dev() -> None:
    ours = candidate("ours", "given", 0, 90, None)
    weak, strong = candidate("base", "prompt", 0, 100, 0.1), candidate("few_shot", "prompt", 0, 10, 0.4)
    taught = candidate("sft", "weights", 0, 60, 0.9)
    found = [choose_reference(results, name) for results, name in
             [([taught, weak, strong, ours], "ours"), ([taught, weak, strong], None), ([taught], None)]]
    assert [one and one.name for one in found] == ["ours", "few_shot", None]  # on test, base is better: never looked at
    with pytest.raises(UserError, match="no candidate called 'theirs'"):
        choose_reference([taught], "theirs")


def test_the_tests_are_paired_exact_and_adjusted_within_their_family() -> None:
    results = [candidate("sft", "weights", 0, 80, 0.7), candidate("few_shot", "prompt", 0, 50, 0.4),
               candidate("linear", "floor", 10, 70, 0.3)]
    comparisons, _ = decide(results)
    winner = {c.b: c for c in comparisons if c.family == "winner"}
    assert set(winner) == {"few_shot", "linear"} and {c.a for c in winner.values()} == {"sft"}
    pairs = Pairs(50, 30, 0, 40)
    assert winner["few_shot"].p_value == mcnemar_p_value(pairs) == pytest.approx(2 * 0.5**30)
    assert winner["few_shot"].interval == newcombe_interval(pairs)
    assert winner["few_shot"].difference == pytest.approx(0.25)
    raw = [winner[name].p_value for name in ("few_shot", "linear")]
    assert [winner[name].p_value_adjusted for name in ("few_shot", "linear")] == holm(raw)
    reference = {c.a: c for c in comparisons if c.family == "reference"}
    assert set(reference) == {"sft", "linear"} and {c.b for c in reference.values()} == {"few_shot"}


def test_a_winner_names_its_reason_its_cost_and_what_it_is_not_shown_better_than() -> None:
    pays = BreakEven(250.0, (220, 280), "after 250 requests")
    _, verdict = decide([candidate("sft", "weights", 0, 84, 0.7, training_seconds=180.0, break_even=pays),
                         candidate("sft+grpo", "weights", 0, 82, 0.65, training_seconds=300.0),
                         candidate("few_shot", "prompt", 0, 50, 0.4), candidate("linear", "floor", 0, 40, 0.3)])
    assert (verdict.candidate, verdict.outcome) == ("sft", "winner")
    assert verdict.sentences[0].startswith("Take sft, because it gets 70 % of 120 test rows right and is better than "
                                           "few_shot by 28 points (95 % interval +")
    assert verdict.sentences[1] == ("It took 3 min to make, is cheaper after 250 requests and is not shown better than "
                                    "sft+grpo.")


@pytest.mark.parametrize("dev", [0.53, None])
def test_keep_what_you_have_when_nothing_is_shown_better(dev: float | None) -> None:
    comparisons, verdict = decide([candidate("ours", "given", 0, 62, dev), candidate("sft", "weights", 5, 65, 0.54),
                                   candidate("few_shot", "prompt", 0, 30, 0.3)], yours="ours")
    assert (verdict.candidate, verdict.outcome) == ("ours", "keep what you have")
    assert verdict.reason.startswith("Keep what you have: ")
    assert {c.b for c in comparisons if c.family == "reference"} == {"ours"}


def test_your_own_system_is_left_for_something_better_or_as_good_and_cheaper() -> None:
    ours = candidate("ours", "given", 0, 50, None)
    _, verdict = decide([ours, candidate("sft", "weights", 0, 80, 0.7)], yours="ours")
    assert (verdict.candidate, verdict.outcome) == ("sft", "winner")
    _, verdict = decide([ours, candidate("linear", "floor", 0, 80, 0.7)], yours="ours")
    assert (verdict.candidate, verdict.outcome) == ("linear", "a floor wins")
    for pays, outcome in [(BreakEven(40, (30, 50), "after 40 requests"), "winner"),
                          (BreakEven(40, (30, 50), "only below 40 requests"), "keep what you have"),
                          (BreakEven(None, None, "never"), "keep what you have"), (None, "keep what you have")]:
        as_good = candidate("sft", "weights", 0, 51, 0.7, break_even=pays)
        _, verdict = decide([ours, as_good], yours="ours")
        assert verdict.outcome == outcome
    _, verdict = decide([ours, candidate("sft", "weights", 0, 30, 0.7)], yours="ours")
    assert verdict.sentences[1] == "Keep what you have: what was chosen on dev does not beat it."


@pytest.mark.parametrize("better", ["few_shot", "sft"])
def test_an_endpoint_of_yours_is_kept_like_any_other_system_of_yours(better: str) -> None:
    kind: Kind = "prompt" if better == "few_shot" else "weights"
    own = candidate("base", "prompt", 0, 60, 0.5)
    _, verdict = decide([own, candidate(better, kind, 5, 66, 0.6)], yours="base")
    assert (verdict.candidate, verdict.outcome) == ("base", "keep what you have")
    assert verdict.sentences[0].startswith(f"Keep what you have: {better}, the best on dev, gets 51 % ")
    _, verdict = decide([own, candidate(better, kind, 0, 30, 0.6)], yours="base")
    assert (verdict.candidate, verdict.sentences[1]) == (
        "base", "Keep what you have: what was chosen on dev does not beat it.")
    _, verdict = decide([own, candidate(better, kind, 0, 30, 0.4)], yours="base")
    assert verdict.outcome == "keep what you have", "it was the best on dev as well"
    _, verdict = decide([own, candidate(better, kind, 0, 90, 0.8)], yours="base")
    assert (verdict.candidate, verdict.outcome) == (better, "winner")
    pays = BreakEven(40, (30, 50), "after 40 requests")
    _, verdict = decide([own, candidate(better, kind, 0, 61, 0.6, break_even=pays)], yours="base")
    assert verdict.sentences[0].startswith(f"Take {better} because it is cheaper and as good")


def test_a_reason_to_take_something_is_a_rival_that_it_beats() -> None:
    alike, beaten = candidate("sft", "weights", 5, 66, 0.51), candidate("base", "prompt", 0, 20, 0.3)
    _, verdict = decide([candidate("few_shot", "prompt", 0, 60, 0.5), alike, beaten])
    assert verdict.sentences[0].startswith("Take few_shot, because it gets 50 % of 120 test rows right and is better than base")
    assert verdict.sentences[1] == "It is not shown better than sft."
    for last in (66, 58):
        _, verdict = decide([candidate("sft", "weights", 5, 66, 0.51), candidate("dpo", "weights", 0, last, 0.4)])
        assert (verdict.candidate, verdict.outcome) == ("sft", "no clear winner"), "chosen on dev, and not on test"
        assert "but cannot be told apart from dpo" in verdict.sentences[0]


def test_a_floor_wins_on_dev_or_when_it_is_shown_as_good_as_the_winner() -> None:
    _, verdict = decide([candidate("linear", "floor", 0, 105, 0.88), candidate("sft", "weights", 0, 98, 0.82),
                         candidate("few_shot", "prompt", 0, 60, 0.5)])
    assert (verdict.candidate, verdict.outcome) == ("linear", "a floor wins")
    assert verdict.reason.startswith("A floor wins: linear, which needs no language model, gets 88 % of 120 test rows")
    assert verdict.sentences[1].startswith("It ")
    assert "sft" in verdict.sentences[1] and "the best candidate with a language model" in verdict.sentences[1]
    for sft in (candidate("sft", "weights", 0, 60, 0.88), candidate("sft", "weights", 3, 104, 0.88)):  # worse; as good
        _, verdict = decide([candidate("linear", "floor", 0, 105, 0.80), sft])
        assert (verdict.candidate, verdict.outcome) == ("linear", "a floor wins")
        assert "linear, which needs no language model, gets 88 %" in verdict.sentences[0]
        assert verdict.sentences[1].startswith("sft, the best on dev, ") and " linear " in verdict.sentences[1]


def test_no_clear_winner_says_how_many_rows_would_tell() -> None:
    _, verdict = decide([candidate("sft", "weights", 0, 64, 0.6), candidate("few_shot", "prompt", 10, 64, 0.5),
                         candidate("linear", "floor", 0, 20, 0.2)])
    assert verdict.outcome == "winner"  # 10 rows won, none lost: p = 0.004 after Holm
    _, verdict = decide([candidate("sft", "weights", 0, 64, 0.6), candidate("few_shot", "prompt", 20, 80, 0.5),
                         candidate("linear", "floor", 0, 20, 0.2)])
    assert (verdict.candidate, verdict.outcome) == ("sft", "no clear winner")
    assert "cannot be told apart from few_shot" in verdict.sentences[0]
    assert "test rows would show" in verdict.sentences[1]
    _, verdict = decide([candidate("sft", "weights", 0, 60, 0.6), candidate("few_shot", "prompt", 15, 80, 0.5),
                         candidate("linear", "floor", 0, 20, 0.2)])
    assert verdict.candidate == "sft", "a simpler one that is ahead on test was not chosen for that"


# ---- test chooses nothing

SFT = candidate("sft", "weights", 0, 40, 0.7)
BETTER_ON_DEV, BETTER_ON_TEST = candidate("sft+grpo", "weights", 0, 70, 0.6), candidate("dpo", "weights", 0, 90, 0.5)


def test_where_test_contradicts_dev_the_choice_of_dev_is_kept_and_that_is_said() -> None:
    for rivals in ([BETTER_ON_DEV, BETTER_ON_TEST], [BETTER_ON_TEST, BETTER_ON_DEV]):
        _, verdict = decide([SFT, *rivals])
        assert (verdict.candidate, verdict.outcome) == ("sft", "no clear winner")
        assert verdict.sentences[0].startswith("sft was chosen on dev, but on test it is worse than sft+grpo")
        assert "dev and test disagree: let fresh test rows confirm sft+grpo" in verdict.sentences[1]


def test_what_may_be_as_good_is_named_in_the_order_of_dev() -> None:
    first, second = candidate("few_shot", "prompt", 12, 48, 0.6), candidate("linear", "floor", 20, 62, 0.5)
    _, verdict = decide([SFT, second, first])
    assert (verdict.candidate, verdict.outcome) == ("sft", "no clear winner")
    assert "but cannot be told apart from few_shot" in verdict.sentences[0], "linear is the better one on test"


@pytest.mark.parametrize("last", [87, 93])
def test_whether_a_floor_is_ahead_on_test_does_not_matter_where_neither_is_shown_as_good(last: int) -> None:
    _, verdict = decide([candidate("linear", "floor", 0, 80, 0.80), candidate("sft", "weights", 10, last, 0.88)])
    assert (verdict.candidate, verdict.outcome) == ("sft", "no clear winner")
    assert "cannot be told apart from linear" in verdict.sentences[0]


def test_beside_your_system_too_the_choice_is_that_of_dev_or_yours() -> None:
    beaten, level = candidate("ours", "given", 0, 15, None), candidate("ours", "given", 5, 45, None)
    _, verdict = decide([SFT, BETTER_ON_DEV, BETTER_ON_TEST, beaten], yours="ours")
    assert (verdict.candidate, verdict.outcome) == ("sft", "no clear winner")
    assert "worse than sft+grpo" in verdict.sentences[0] and "It is better than ours" in verdict.sentences[1]
    _, verdict = decide([SFT, BETTER_ON_DEV, BETTER_ON_TEST, level], yours="ours")
    assert (verdict.candidate, verdict.outcome) == ("ours", "keep what you have")
    endpoint = candidate("base", "prompt", 0, 40, 0.7)
    _, verdict = decide([endpoint, BETTER_ON_DEV, BETTER_ON_TEST], yours="base")
    assert (verdict.candidate, verdict.outcome) == ("base", "keep what you have")
    assert "On test it is worse than sft+grpo" in verdict.sentences[1] and "confirm sft+grpo" in verdict.sentences[1]


# ---- floors beside a system of yours

def test_beside_your_system_a_winner_must_beat_the_floors_too() -> None:
    ours, sft = candidate("ours", "given", 0, 20, None), candidate("sft", "weights", 3, 80, 0.7)
    _, verdict = decide([ours, sft, candidate("linear", "floor", 0, 70, 0.5)], yours="ours")
    assert (verdict.candidate, verdict.outcome) == ("linear", "a floor wins"), "it is shown better than ours as well"
    assert "linear, which needs no language model, gets 58 %" in verdict.sentences[0]
    assert "and is better than ours by 42 points" in verdict.sentences[0]
    assert verdict.sentences[1].startswith("sft, the best on dev, is not shown better than linear (+6 points")


def test_a_floor_that_is_not_shown_better_than_your_system_is_named_and_not_taken() -> None:
    ours = candidate("ours", "given", 0, 60, None)
    for first, last, found in ((0, 72, ("sft", "no clear winner")), (0, 90, ("sft", "winner"))):
        sft, linear = candidate("sft", "weights", first, last, 0.7), candidate("linear", "floor", 10, 76, 0.5)
        _, verdict = decide([ours, sft, linear], yours="ours")
        assert (verdict.candidate, verdict.outcome) == found
        assert "is better than ours by " in verdict.sentences[0]
        assert ("but is not shown better than linear (+5 points" in verdict.sentences[0]) == (last == 72)


def test_a_floor_that_beats_the_winner_takes_the_place_of_your_system_only_if_it_beats_that() -> None:
    sft, linear = candidate("sft", "weights", 0, 50, 0.7), candidate("linear", "floor", 0, 90, 0.6)
    for last, found in ((60, ("linear", "a floor wins")), (88, ("ours", "keep what you have"))):
        _, verdict = decide([candidate("ours", "given", 0, last, None), sft, linear], yours="ours")
        assert (verdict.candidate, verdict.outcome) == found


def test_a_floor_that_wins_beside_your_system_is_said_to_beat_it() -> None:
    linear, sft = candidate("linear", "floor", 0, 80, 0.7), candidate("sft", "weights", 0, 30, 0.4)
    _, verdict = decide([candidate("ours", "given", 0, 50, None), linear, sft], yours="ours")
    assert (verdict.candidate, verdict.outcome) == ("linear", "a floor wins")
    assert "gets 67 % of 120 test rows right and is better than ours by 25 points" in verdict.sentences[0]
    assert "It is better than sft" in verdict.sentences[1]
    _, verdict = decide([candidate("base", "prompt", 0, 50, 0.4), linear], yours="base")
    assert "is better than base by 25 points" in verdict.sentences[0]
    assert verdict.sentences[1] == "No other candidate with a language model was compared."


def test_one_candidate_is_nothing_compared() -> None:
    comparisons, verdict = decide([candidate("sft", "weights", 0, 40, 0.7)])
    assert comparisons == [] and verdict.outcome == "no clear winner" and "Nothing was compared" in verdict.reason


def test_a_prompt_that_wins_must_beat_the_floors_too() -> None:
    _, verdict = decide([candidate("few_shot", "prompt", 0, 80, 0.7), candidate("linear", "floor", 0, 40, 0.3)])
    assert (verdict.candidate, verdict.outcome) == ("few_shot", "winner")
    assert "better than linear" in verdict.sentences[0]


def test_unlike_rows_refuse_to_be_compared() -> None:
    other = result("few_shot", "prompt", 0.3, n=60)
    with pytest.raises(UserError, match="different rows"):
        decide([candidate("sft", "weights", 0, 40, 0.7), other])
    changed = CandidateResult("b", "", "", "", "prompt", evaluation("b", right(0, 9), task_hash="new"), 0.1)
    with pytest.raises(UserError, match="different versions"):
        decide([candidate("sft", "weights", 0, 40, 0.7), changed])


def test_what_these_rows_cannot_tell() -> None:
    comparisons, verdict = decide([candidate("sft", "weights", 0, 64, 0.6),
                                   candidate("few_shot", "prompt", 20, 80, 0.5)])
    found = detectable(comparisons, 120, "right")
    assert found is not None and 0.14 < found < 0.22  # churn is 2 * 16 / 120
    weak = [candidate(name, "prompt", 0, 1, 0.1) for name in ("base", "best_of", "retrieval")]
    beside_weak_ones, _ = decide([candidate("sft", "weights", 0, 64, 0.6),
                                  candidate("few_shot", "prompt", 20, 80, 0.5), *weak])
    assert detectable(beside_weak_ones, 120, "right") == found  # they differ from sft one way only
    assert detectable_sentence(0.13, 120) == "cannot tell differences below 13 points with n=120"
    assert detectable_sentence(None, 4) == "cannot tell any difference with n=4: too few test rows"
    assert len(next_commands(verdict, "tickets.csv", "latest")) == 3


@pytest.mark.parametrize("outcome", ["winner", "keep what you have", "a floor wins", "no clear winner"])
def test_there_are_always_three_next_commands(outcome: str) -> None:
    _, verdict = decide([candidate("sft", "weights", 0, 64, 0.6), candidate("few_shot", "prompt", 0, 20, 0.5)])
    commands = next_commands(type(verdict)("sft", outcome, ("", "")), "my tickets", "latest")  # type: ignore[arg-type]
    assert len(set(commands)) == 3 and all(command.startswith("posttrain ") for command in commands)
    instead = next_commands(type(verdict)("ours", outcome, ("", "")), "my tickets", "latest", instead="latest/sft")  # type: ignore[arg-type]
    assert len(set(instead)) == 3 and instead[-1] == "posttrain serve latest/sft"
    assert all("'my tickets'" in command for command in commands if "my" in command)
