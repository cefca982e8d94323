"""The functions in C are what the formulas say, and where they cannot be compiled torch computes the same."""

from __future__ import annotations

import logging
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from posttrain.engines.torch import int8
from posttrain.engines.torch.gate import gated
from posttrain.engines.torch.native import layers, library, products
from posttrain.engines.torch.norms import root_mean_square_norm
from posttrain.engines.torch.rotation import turned

needs_c = pytest.mark.skipif(library.library() is None, reason="no C compiler, or a processor without AVX-512")
SIZES = [1, 15, 16, 33, 576]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def pieces(x: Tensor) -> list[Tensor]:
    """The same numbers as they may lie: together, in a part of longer rows, and the other way round."""
    wider = torch.cat([x, torch.full_like(x, 7.0)], dim=1)
    return [x, wider[:, : x.shape[1]], x.t().contiguous().t()]


@needs_c
@pytest.mark.parametrize("size", SIZES)
def test_norms(size: int) -> None:
    x, scale, gradient = torch.randn(5, size), torch.randn(size), torch.randn(5, size)
    plain = x.double().requires_grad_()
    wanted = plain * (plain.square().mean(dim=1, keepdim=True) + 1e-5).rsqrt() * scale
    wanted.backward(gradient.double())
    for given, reached in zip(pieces(x), pieces(gradient), strict=True):
        found, inverse = layers.norm(given, scale, 1e-5)
        torch.testing.assert_close(found.double(), wanted.detach(), rtol=1e-5, atol=1e-6)
        of_x = layers.norm_backward(reached, given, scale, inverse)
        torch.testing.assert_close(of_x.double(), plain.grad, rtol=1e-4, atol=1e-5)


@needs_c
@pytest.mark.parametrize("width", SIZES)
def test_gates(width: int) -> None:
    joined, gradient = 8 * torch.randn(5, 2 * width), torch.randn(5, width)
    joined[0, :width] = torch.linspace(-200, 200, width)
    joined[1, 0] = -1e38
    plain = joined.double().requires_grad_()
    wanted = silu(plain[:, :width]) * plain[:, width:]
    wanted.backward(gradient.double())
    for given, reached in zip(pieces(joined), pieces(gradient), strict=True):
        torch.testing.assert_close(layers.gate(given).double(), wanted.detach(), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(layers.gate_backward(given, reached).double(), plain.grad, rtol=1e-5, atol=1e-5)


@needs_c
@pytest.mark.parametrize("size", [2, 16, 64, 80])
def test_turns_there_and_back(size: int) -> None:
    cos, sin = torch.randn(5, size), torch.randn(5, size)  # neither need their halves be alike
    for x in pieces(torch.randn(5, 3 * size)):
        heads = x.reshape(5, 3, size).double().requires_grad_()
        first, second = heads.chunk(2, dim=2)
        wanted = heads * cos[:, None] + torch.cat([-second, first], dim=2) * sin[:, None]
        found, gradient, back = torch.empty(5, 3 * size), torch.randn(5, 3 * size), torch.empty(5, 3 * size)
        layers.turn(x, cos, sin, found)
        torch.testing.assert_close(found, wanted.flatten(1).float())
        wanted.flatten(1).backward(gradient.double())
        layers.turn(gradient, cos, sin, back, back=True)
        torch.testing.assert_close(back, heads.grad.flatten(1).float())


@needs_c
@pytest.mark.parametrize("rows", [*range(1, 10), 17, 25, 128, 775])
@pytest.mark.parametrize("out, size", [(1, 1), (48, 40), (64, 16), (63, 33), (200, 1030), (90, 2049)])
def test_rows(out: int, size: int, rows: int) -> None:
    """Of more than a panel is deep, and than meet it at once; of columns to spare; and back."""
    bias = torch.randn(out)
    for weight in (torch.randn(size, out).t(), torch.randn(size, out + 16)[:, :out].t()):
        for x in pieces(torch.randn(rows, size)):
            wanted = nn.functional.linear(x.double(), weight.double())
            found = products.multiply(x, weight)
            torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5 * size**0.5)
            assert torch.equal(products.multiply(x[-1:], weight), found[-1:]), "no row depends on the others"
            found, wanted = products.multiply(x, weight, bias), wanted + bias
            torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5 * size**0.5)
        for gradient in pieces(torch.randn(rows, out)):
            back = gradient.double() @ weight.double()
            found = products.multiply(gradient, weight.t())
            torch.testing.assert_close(found.double(), back, rtol=1e-5, atol=1e-4)
            room = torch.randn(rows, size + 3)
            beside, onto = room[:, size:].clone(), room[:, :size]
            wanted = onto.double() + back
            products.add_product(onto, gradient, weight.t())
            torch.testing.assert_close(onto.double(), wanted, rtol=1e-5, atol=1e-4)
            assert torch.equal(room[:, size:], beside)


@needs_c
@pytest.mark.parametrize("rows", [1, 9, 130, 775])
@pytest.mark.parametrize("out, size", [(48, 40), (63, 33), (200, 1700)])
def test_additions(out: int, size: int, rows: int) -> None:
    """On parts that begin and end within a panel and a block of rows, overlap, or are empty; deeper than a panel; in
    bfloat16, where what is added is not rounded.  To the bit as when they are added afterwards."""
    x, weight, bias = torch.randn(rows, size), torch.randn(size, out).t(), torch.randn(out)
    whole, some, half = slice(None), slice(5, out - 3), slice(rows // 2, rows)
    parts = [(whole, whole, 16), (half, some, 5), (half, slice(7, 8), 2100), (slice(0, 0), whole, 3), (whole, some, 1)]
    additions = []
    for at, columns, rank in parts:
        count, width = len(range(rows)[at]), len(range(out)[columns])
        wide = torch.randn(width, rank) if rank % 2 else torch.randn(rank, width).t()
        additions.append(products.Addition(at, columns, torch.randn(count, rank + 3)[:, 2 : rank + 2], wide))
    ways = [lambda *more: products.multiply(x, weight, bias, *more)]
    if paired := products.PairedWeight.suiting(weight):
        ways.append(lambda *more: paired.multiply(x, bias, *more))
    for multiply in ways:
        wanted = multiply()
        for each in additions:
            products.add_product(wanted[each.rows, each.columns], each.narrow, each.wide)
        assert torch.equal(multiply(additions), wanted)
    with pytest.raises(RuntimeError, match="do not make"):
        products.multiply(x, weight, bias, [products.Addition(whole, some, torch.randn(rows, 4), torch.randn(out, 4))])


@needs_c
def test_a_product_of_no_depth_is_zero() -> None:
    x, weight, y = torch.empty(3, 0), torch.empty(5, 0), torch.full((3, 5), 7.0)
    products.add_product(y, x, weight)
    assert torch.equal(y, torch.full((3, 5), 7.0))
    products._multiply(x, weight, (None, 0), y)
    assert torch.equal(y, torch.zeros(3, 5))


@needs_c
@pytest.mark.parametrize("rows", [1, 3, 40])
@pytest.mark.parametrize("out, size", [(4, 64), (160, 128), (12, 32768)])
def test_int8_rounds_what_is_multiplied_to_16_bits(out: int, size: int, rows: int) -> None:
    x, weight = torch.randn(rows, size) * torch.logspace(-20, 20, rows)[:, None], torch.randint(-127, 128, (out, size))
    x[0], scales = x[0].abs(), torch.rand(out)
    weight[0] = 127  # the largest sums there are
    suiting = products.Int8Weight.suiting(weight.to(torch.int8), scales)
    assert suiting is not None
    found, wanted = suiting.multiply(x), x.double() @ (weight * scales[:, None]).double().t()
    assert float(((found - wanted).norm(dim=1) / wanted.norm(dim=1)).max()) < 5e-4
    alone = torch.cat([suiting.multiply(row[None]) for row in x])
    assert torch.equal(found, alone), "no row depends on the others"
    assert torch.equal(suiting.multiply(torch.zeros(1, size)), torch.zeros(1, out))
    assert suiting.multiply(torch.full((1, size), 6e-41)).abs().max() < 1e-35, "as good as zeros"
    x[-1, 5] = float("inf")
    assert suiting.multiply(x)[-1].isnan().all() and suiting.multiply(x)[:-1].isfinite().all()


@needs_c
@pytest.mark.parametrize("size", [64, 4096, 4160, 9216])
def test_sums_in_int8_are_exact_and_so_the_same_on_every_processor(size: int) -> None:
    x, weight, scales = torch.randn(5, size), torch.randint(-127, 128, (8, size)), torch.rand(8)
    x[0], weight[0] = 1, 127  # the largest sums there are
    suiting = products.Int8Weight.suiting(weight.to(torch.int8), scales)
    assert suiting is not None
    by = x.abs().amax(dim=1) / 32767
    sums = (x / by[:, None]).round().to(torch.int64) @ weight.t()
    assert torch.equal(suiting.multiply(x), sums.float() * (by[:, None] * scales))


def test_int8_leaves_odd_shapes_to_torch() -> None:
    for shape in ((8, 96), (6, 64), (4, 2 * 32768)):
        assert products.Int8Weight.suiting(torch.ones(shape, dtype=torch.int8), torch.ones(shape[0])) is None


@needs_c
def test_what_is_not_a_number_stays_none() -> None:
    """A policy that has diverged must be seen to have."""
    for odd in (float("nan"), float("inf")):
        x = torch.randn(2, 64)
        x[0, 3] = odd
        assert not layers.norm(x, torch.ones(64), 1e-5)[0][0].isfinite().all()
        assert not layers.gate(x)[0].isfinite().all()
        assert layers.gate(x)[1].isfinite().all()


def numbers() -> list[Tensor]:
    """Of all that may be computed in C."""
    torch.manual_seed(1)
    x, joined, gradient = (torch.randn(3, n, requires_grad=True) for n in (64, 128, 64))
    linear = nn.Linear(64, 64).requires_grad_(False)
    outs = [root_mean_square_norm(x, torch.ones(64), 1e-5), gated(joined, nn.SiLU())]
    outs += turned(x, torch.ones(3, 16), torch.ones(3, 16), [32, 16, 16])
    found = torch.autograd.grad(sum((out * gradient[:, : out.shape[1]]).sum() for out in outs), [x, joined])
    return [*outs, *found, int8.Int8Product(linear).product(x.detach())]


def test_without_a_compiler_torch_computes_the_same(
        monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    wanted = numbers()
    monkeypatch.setattr(library, "library", library.library.__wrapped__)
    monkeypatch.setenv("CC", "/nowhere/cc --fast")
    with caplog.at_level(logging.INFO):
        found = numbers()
    assert library.library() is None and not library.has_pairs()
    if torch.backends.cpu.get_cpu_capability() in ("AVX512", "AVX2"):
        assert "no C compiler (/nowhere/cc --fast)" in caplog.text
    torch.testing.assert_close(found[:-1], wanted[:-1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[-1], wanted[-1], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("named", [" ", '"', "gcc -m32"])
def test_an_odd_compiler_is_none(named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", named)
    monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path))
    assert library.library.__wrapped__() is None


def test_gradients_of_gradients_are_refused() -> None:
    """By C they would have no graph, and silently lack terms."""
    x, joined = torch.randn(3, 64, requires_grad=True), torch.randn(3, 128, requires_grad=True)
    outs = [root_mean_square_norm(x, torch.ones(64), 1e-5), gated(joined, nn.SiLU()),
            turned(x, torch.ones(3, 16), torch.ones(3, 16), [32, 32])[0]]
    for out, given in zip(outs, (x, joined, x), strict=True):
        [first] = torch.autograd.grad(out.square().sum(), [given], create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            first.sum().backward()


@needs_c
def test_a_compiler_that_fails_is_told_of(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho 'no AVX-512 here' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path / "cache"))
    assert library.library.__wrapped__() is None
    assert "no AVX-512 here" in caplog.text and "left to torch" in caplog.text
    assert not [*tmp_path.glob("cache/native/*")], "nothing half made stays"


@needs_c
def test_it_is_compiled_once_and_by_several_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path))
    code = "from posttrain.engines.torch.native.library import library; assert library() is not None"
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [process.wait(300) for process in processes] == [0, 0, 0]
    [made] = (tmp_path / "native").iterdir()
    assert stat.S_IMODE((tmp_path / "native").stat().st_mode) == 0o700
    before = made.stat().st_mtime_ns
    assert library.library.__wrapped__() is not None
    assert [each.stat().st_mtime_ns for each in (tmp_path / "native").iterdir()] == [before]


@needs_c
def test_a_broken_file_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path))
    made = library._compiled(["cc"], library.MARCH[torch.backends.cpu.get_cpu_capability()])
    made.write_bytes(b"cut short")
    assert library.library.__wrapped__() is not None


def test_a_compiler_that_takes_too_long_is_ended_with_what_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tmp_path / "slow"
    slow.write_text(f"#!/bin/sh\nsleep 300 &\necho $! > {tmp_path}/began\nwait\n")
    slow.chmod(0o755)
    monkeypatch.setattr(library, "PATIENCE_S", 2)
    with pytest.raises(subprocess.TimeoutExpired):
        library._run([str(slow)])
    began = Path(f"/proc/{(tmp_path / 'began').read_text().strip()}/stat")
    for _ in range(100):  # who is killed is gone a little later
        if not began.exists() or began.read_text().split()[2] == "Z":
            return
        time.sleep(0.1)
    raise AssertionError("it goes on")


@needs_c
def test_a_home_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path / "a file"))
    assert library.library.__wrapped__() is not None


@needs_c
def test_what_others_may_write_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path))
    assert library._folder() == tmp_path / "native"
    (tmp_path / "native").chmod(0o777)
    assert library._folder() != tmp_path / "native"


def test_another_processor_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "platform", SimpleNamespace(machine=lambda: "arm64"))
    assert library.library.__wrapped__() is None
