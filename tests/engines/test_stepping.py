"""Muon in batches against its definition and torch's own; and what of an optimiser is kept to go on from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from posttrain.engines.muon import COEFFICIENTS, ITERATIONS, orthogonalised
from posttrain.engines.stepping import kept, restored, take_step
from posttrain.optimisers import Adam, Muon, Optimiser
from posttrain.types import UserError

SHAPES = [(4, 24), (24, 4), (4, 24), (7, 7), (4, 40), (24, 4)]


def matrices(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator) for shape in SHAPES]


def with_gradients(parameters: list[Tensor], seed: int) -> list[Tensor]:
    for parameter, gradient in zip(parameters, matrices(seed), strict=True):
        parameter.grad = gradient * torch.logspace(0, -2, gradient.shape[0])[:, None]  # singular values far apart
    return parameters


def newton_schulz(matrix: Tensor) -> Tensor:
    """As Jordan writes it, one matrix at a time."""
    a, b, c = COEFFICIENTS
    x = (matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T) / matrix.norm()
    for _ in range(ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


def test_matrices_are_orthogonalised_as_one_by_one() -> None:
    for matrix in with_gradients(matrices(0), 1):
        assert matrix.grad is not None
        wide = matrix.grad if matrix.shape[0] <= matrix.shape[1] else matrix.grad.T
        found, wanted = orthogonalised(wide[None])[0], newton_schulz(wide)
        assert (found - wanted).norm() < 1e-3 * wanted.norm()
        low, high = torch.linalg.svdvals(found).aminmax()
        assert low > 0.3 and high < 1.3


def test_steps_are_those_of_muons_definition() -> None:
    """Momentum, Nesterov's form, weight decay, and the rate by shape."""
    parameters, plain = matrices(0), matrices(0)
    momenta, last = [torch.zeros_like(each) for each in plain], None
    for step in range(3):
        settings = Muon(0.02 / (step + 1), momentum=0.9, weight_decay=0.1, max_grad_norm=0.0)
        last, metrics = take_step(with_gradients(parameters, step), settings, last)
        gradients = [each.grad for each in with_gradients([torch.zeros(*shape) for shape in SHAPES], step)]
        assert metrics["gradient_norm"] == pytest.approx(float(sum(g.square().sum() for g in gradients)) ** 0.5)
        for weights, momentum, gradient in zip(plain, momenta, gradients, strict=True):
            momentum.copy_(0.9 * momentum + 0.1 * gradient)
            along = newton_schulz(0.1 * gradient + 0.9 * momentum)
            rate = settings.learning_rate * max(1.0, weights.shape[0] / weights.shape[1]) ** 0.5
            weights.copy_(weights * (1 - settings.learning_rate * 0.1) - rate * along)
    for found, wanted, before in zip(parameters, plain, matrices(0), strict=True):
        assert (found - wanted).norm() < 1e-3 * (wanted - before).norm()


def test_steps_are_those_of_torchs_muon_but_for_its_rounding() -> None:
    parameters, theirs = matrices(0), matrices(0)
    optimiser, last = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.0), None
    for step in range(3):
        last, _ = take_step(with_gradients(parameters, step), Muon(0.02, max_grad_norm=0.0), last)
        with_gradients(theirs, step)
        optimiser.step()
    for found, wanted, before in zip(parameters, theirs, matrices(0), strict=True):
        assert (found - wanted).norm() < 0.05 * (wanted - before).norm()  # it computes in bfloat16


@pytest.mark.parametrize("settings", [Adam(1e-2), Muon(1e-2)], ids=["adam", "muon"])
def test_what_is_kept_goes_on_as_if_nothing_had_happened(settings: Optimiser) -> None:
    names = [str(i) for i in range(len(SHAPES))]
    one = with_gradients(matrices(0), 0)
    one[2].grad = None  # had none yet
    last, _ = take_step(one, settings, None)
    other = [each.clone() for each in one]
    state = {name: value.clone() for name, value in kept(last, dict(zip(names, one, strict=True))).items()}
    again = restored(state, dict(zip(names, other, strict=True)))
    assert type(again) is type(last)
    for step in (1, 2):
        last, _ = take_step(with_gradients(one, step), settings, last)
        again, _ = take_step(with_gradients(other, step), settings, again)
    assert all(map(torch.equal, one, other))


def test_another_kind_of_step_begins_anew_and_parts_of_a_state_are_refused() -> None:
    parameters = with_gradients(matrices(0), 0)
    numbered = {str(i): parameter for i, parameter in enumerate(parameters)}
    adam, _ = take_step(parameters, Adam(1e-2), None)
    moments = kept(adam, numbered)
    assert restored({}, numbered) is None
    muon, _ = take_step(with_gradients(parameters, 1), Muon(1e-2), adam)
    assert muon is not adam and set(kept(muon, numbered)) == {f"{name}.momentum_buffer" for name in numbered}
    for broken in (moments | kept(muon, numbered), {"0.momentum_buffer": torch.zeros(2)},
                   {"9.momentum_buffer": torch.zeros(4, 24)}, {"0.exp_avg": torch.zeros(4, 24)}):
        with pytest.raises(ValueError):
            restored(broken, numbered)


@pytest.mark.parametrize("settings", [Adam(1e-2), Muon(1e-2)], ids=["adam", "muon"])
def test_a_gradient_that_is_no_number_changes_nothing(settings: Optimiser) -> None:
    parameters = with_gradients(matrices(0), 0)
    assert parameters[1].grad is not None
    parameters[1].grad[0, 0] = float("nan")
    with pytest.raises(UserError, match="diverged"):
        take_step(parameters, settings, None)
    assert all(map(torch.equal, parameters, matrices(0)))
    with pytest.raises(UserError, match="without a gradient"):
        take_step(parameters, settings, None)
