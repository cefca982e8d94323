"""Every objective against numbers worked out by hand, and its gradient against finite differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import exp, log
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from posttrain import losses
from posttrain.types import Datum

ONE = Datum(tokens=(9, 9, 9), weights=(0.0, 1.0, 0.5), advantages=(0.0, 2.0, -1.0), logprobs=(0.0, -1.0, -2.0),
            reference_logprobs=(0.0, -1.5, -0.5), group="g")
TWO = Datum(tokens=(9, 9, 9, 9), weights=(0.0, 0.0, 2.0, 0.0), advantages=(5.0, 5.0, 0.5, 5.0),
            logprobs=(7.0, 7.0, -0.3, 7.0), reference_logprobs=(7.0, 7.0, -0.4, 7.0), group="g")


def values(*rows: Sequence[float]) -> list[Tensor]:
    return [torch.tensor(row, dtype=torch.float64, requires_grad=True) for row in rows]


LOGPROBS = ([-0.7, -1.9], [-0.2])


def test_only_trained_positions_are_aligned() -> None:
    assert losses.aligned(TWO.logprobs, TWO, torch.zeros(1)).tolist() == pytest.approx([-0.3])
    assert losses.aligned(ONE.advantages, ONE, torch.zeros(2, dtype=torch.float64)).dtype == torch.float64


def test_cross_entropy_is_the_weighted_negative_log_likelihood() -> None:
    total, metrics = losses.cross_entropy(values(*LOGPROBS), [ONE, TWO])
    assert total.item() == pytest.approx(0.7 + 0.5 * 1.9 + 2 * 0.2)
    assert metrics == {"negative_log_likelihood": total.item()}


def test_dpo_is_the_negative_log_sigmoid_of_the_margin() -> None:
    total, metrics = losses.dpo(0.3)(values(*LOGPROBS), [ONE, TWO])
    margin = (-0.7 + 1.5 - 1.9 + 0.5) - (-0.2 + 0.4)
    assert total.item() == pytest.approx(log(1 + exp(-0.3 * margin)))
    assert metrics == {"preferred": 0.0, "margin": pytest.approx(margin), "pairs": 1}
    swapped, other = losses.dpo(0.3)(values(*LOGPROBS[::-1]), [TWO, ONE])
    assert swapped.item() == pytest.approx(log(1 + exp(0.3 * margin))) and other["preferred"] == 1.0


def test_dpo_has_the_gradient_of_its_paper() -> None:
    """arXiv:2305.18290, section 4: - beta * sigmoid(-beta * margin) * (grad log pi(c) - grad log pi(r))."""
    logprobs, beta = values(*LOGPROBS), 0.3
    losses.dpo(beta)(logprobs, [ONE, TWO])[0].backward()
    margin = (-0.7 + 1.5 - 1.9 + 0.5) - (-0.2 + 0.4)
    slope = beta / (1 + exp(beta * margin))
    assert logprobs[0].grad.tolist() == pytest.approx([-slope, -slope])
    assert logprobs[1].grad.tolist() == pytest.approx([slope])


def test_dpo_is_that_of_trl_on_summed_logprobs() -> None:
    """TRL's DPOTrainer, loss_type="sigmoid": -logsigmoid(beta * ((pc - pr) - (rc - rr))), over many pairs."""
    torch.manual_seed(0)
    data, rows = [], []
    policy, reference = torch.randn(2, 6, 3, dtype=torch.float64) - 2
    for i in range(6):
        data.append(Datum((1, 2, 3, 4), (0.0, 1.0, 1.0, 1.0), reference_logprobs=(0.0, *reference[i].tolist()),
                          group=str(i // 2)))
        rows.append(policy[i].clone().requires_grad_())
    total, _ = losses.dpo(0.1)(rows, data)
    chosen, rejected = policy[0::2].sum(1), policy[1::2].sum(1)
    ref_chosen, ref_rejected = reference[0::2].sum(1), reference[1::2].sum(1)
    assert total.item() == pytest.approx(
        -logsigmoid(0.1 * ((chosen - rejected) - (ref_chosen - ref_rejected))).sum().item())


def test_dpo_refuses_what_is_no_pair() -> None:
    with pytest.raises(ValueError, match="'g' has 1 data"):
        losses.dpo()(values([-0.7, -1.9]), [ONE])
    with pytest.raises(ValueError, match="has 3 data"):
        losses.dpo()(values(*LOGPROBS, [-0.2]), [ONE, TWO, TWO])


def test_the_clipped_surrogate_by_hand() -> None:
    total, metrics = losses.clipped_policy_gradient(clip_low=0.2, clip_high=0.3)(values(*LOGPROBS), [ONE, TWO])
    up = 1.3 * 2.0  # exp(0.3) is beyond the clip, the advantage positive: clipped
    down = exp(0.1) * -1.0  # inside the clip
    other = exp(0.1) * 0.5
    assert total.item() == pytest.approx(-(1.0 * up + 0.5 * down + 2.0 * other))
    assert metrics == {"clipped": 1.0, "kl": 0.0, "tokens": 3.0}


@pytest.mark.parametrize(("ratio", "advantage", "counted"), [
    (1.5, 1.0, 1.2), (1.5, -1.0, -1.5), (0.5, 1.0, 0.5), (0.5, -1.0, -0.8), (1.1, -1.0, -1.1)])
def test_clipping_is_pessimistic(ratio: float, advantage: float, counted: float) -> None:
    datum = Datum((1, 2), (0.0, 1.0), advantages=(0.0, advantage), logprobs=(0.0, -1.0))
    logprob = values([-1.0 + log(ratio)])
    total, metrics = losses.clipped_policy_gradient()(logprob, [datum])
    assert total.item() == pytest.approx(-counted)
    total.backward()
    clipped = abs(counted) != pytest.approx(ratio)
    assert (logprob[0].grad.item() == 0) == clipped == (metrics["clipped"] == 1)


def test_the_penalty_is_the_k3_estimator() -> None:
    plain, _ = losses.clipped_policy_gradient()(values(*LOGPROBS), [ONE, TWO])
    held, metrics = losses.clipped_policy_gradient(kl=0.25)(values(*LOGPROBS), [ONE, TWO])
    distances = [-1.5 + 0.7, -0.5 + 1.9, -0.4 + 0.2]
    penalties = [exp(d) - d - 1 for d in distances]
    assert metrics["kl"] == pytest.approx(sum(penalties))
    weighted = penalties[0] + 0.5 * penalties[1] + 2 * penalties[2]
    assert held.item() - plain.item() == pytest.approx(0.25 * weighted)


def test_on_the_policy_that_sampled_it_is_reinforce() -> None:
    data = [replace(ONE, logprobs=(0.0, *LOGPROBS[0])), replace(TWO, logprobs=(0.0, 0.0, *LOGPROBS[1], 0.0))]
    logprobs = values(*LOGPROBS)
    losses.clipped_policy_gradient()(logprobs, data)[0].backward()
    assert logprobs[0].grad.tolist() == pytest.approx([-2.0, 0.5])
    assert logprobs[1].grad.tolist() == pytest.approx([-1.0])


@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.dpo(0.4), losses.clipped_policy_gradient(),
                                  losses.clipped_policy_gradient(clip_low=0.1, clip_high=0.05, kl=0.3)])
def test_gradients_are_those_of_finite_differences(loss: Callable[..., Any]) -> None:
    assert torch.autograd.gradcheck(lambda a, b: loss([a, b], [ONE, TWO])[0], values(*LOGPROBS))


@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.dpo(0.4), losses.clipped_policy_gradient(kl=0.1)])
def test_a_batch_may_be_cut_between_groups(loss: Callable[..., Any]) -> None:
    pairs = [[replace(datum, group=group) for datum in (ONE, TWO)] for group in "ab"]
    rows = [values(*LOGPROBS), values([-1.1, -0.4], [-3.0])]
    whole, metrics = loss([*rows[0], *rows[1]], [*pairs[0], *pairs[1]])
    parts = [loss(row, pair) for row, pair in zip(rows, pairs, strict=True)]
    assert whole.item() == pytest.approx(sum(part.item() for part, _ in parts))
    for key, value in metrics.items():
        assert value == pytest.approx(sum(part[key] for _, part in parts)), "metrics are sums too"
