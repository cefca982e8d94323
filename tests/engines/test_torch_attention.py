"""Every way of computing the attention of a forest is the plain one of the separate sequences, gradients too."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_models import WINDOW, sequences

from posttrain.engines.torch import capped_attention, flex_attention, merged_attention
from posttrain.engines.torch.cache import SlotCache, Trunk
from posttrain.engines.torch.decoding import DecodingLayout
from posttrain.engines.torch.flex_attention import FlexAttention
from posttrain.engines.torch.forest import Forest, plant
from posttrain.engines.torch.manner import Manner
from posttrain.engines.torch.masked_attention import MaskedAttention
from posttrain.engines.torch.merged_attention import MergedAttention
from posttrain.engines.torch.native import library as native_library
from posttrain.engines.torch.native.attention import suits_attention
from posttrain.engines.torch.native.library import library
from posttrain.engines.torch.native_attention import NativeAttention
from posttrain.engines.torch.sight import Sight

CPU = torch.device("cpu")
HEADS, SHARED, SIZE = 6, 2, 8
DEEP = [tuple(range(300, 300 + length)) for length in (3, 15, 40, 60)]  # turns of an episode, and a fork of each
ROUNDING = 1e-5
"""Of the largest number: the fp32 kernels of some processors are off by 3e-6, and what should be zero by as much."""

SINKS = torch.linspace(-2, 4, HEADS)
MANNERS = [
    Manner(0.3), Manner(0.3, 1), Manner(0.3, WINDOW), Manner(0.3, cap=2.0), Manner(0.3, WINDOW, cap=2.0),
    Manner(0.3, sinks=SINKS), Manner(0.3, WINDOW, sinks=SINKS), Manner(0.3, WINDOW, 2.0, SINKS),
]


def named(manner: Manner) -> str:
    """For the names of tests."""
    return f"window {manner.window}, cap {manner.cap}, {'no' if manner.sinks is None else 'with'} sinks"


BATCHES = {
    "one sequence": [tuple(range(40))],
    "two levels": sequences(),
    "an episode with forks": [*DEEP, *((*turns, 1, 2, 3) for turns in DEEP)],
    "nothing shared": [tuple(range(50 * i, 50 * i + 30)) for i in range(4)],
}
LONG = [tuple(range(210)), (*range(100), *range(300, 370)), (*range(100), *range(300, 330), *range(400, 465))]


def numbers(forest: Forest, trunk: int, size: int = SIZE) -> list[Tensor]:
    torch.manual_seed(0)
    tokens = len(forest.tokens)
    shapes = ((HEADS, tokens), (SHARED, trunk + tokens), (SHARED, trunk + tokens))
    return [(3 * torch.randn(1, *shape, size)).requires_grad_() for shape in shapes]


def by_definition(forest: Forest, trunk: int, manner: Manner, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Each token beside the keys of its own prefix, found by walking up from its segment; in double precision."""
    q, k, v = (tensor.double() for tensor in (q, k, v))
    k, v = (tensor.repeat_interleave(HEADS // SHARED, dim=1) for tensor in (k, v))
    rows = []
    for segment in forest.segments:
        above = [place for span in segment.ancestors for place in range(*span)]
        for place in range(segment.start, segment.end):
            keys = [*range(trunk), *(trunk + i for i in (*above, *range(segment.start, place + 1)))]
            keys = keys[-manner.window:] if manner.window else keys
            scores = torch.einsum("hd,hkd->hk", q[0, :, place], k[0, :, keys]) * manner.scale
            if manner.cap:
                scores = manner.cap * (scores / manner.cap).tanh()
            if manner.sinks is not None:
                scores = torch.cat([scores, manner.sinks.double()[:, None]], dim=1)
            weights = scores.softmax(dim=1)[:, :len(keys)]
            rows.append(torch.einsum("hk,hkd->hd", weights, v[0, :, keys]))
    return torch.stack(rows, dim=1)[None]


def with_gradients(compute: Any, given: Sequence[Tensor]) -> list[Tensor]:
    out = compute(*given)
    weights = torch.linspace(-1, 1, out.numel()).reshape(out.shape)
    return [out.detach(), *torch.autograd.grad((out * weights).sum(), given)]


def planted(batch: str, trunk: int) -> Forest:
    tokens = BATCHES[batch]
    return plant(tokens, ["a" if i % 3 else "b" for i in range(len(tokens))], first_position=trunk)


def same(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    largest = max(float(plain.abs().max()) for plain in wanted)
    for mine, plain in zip(found, wanted, strict=True):
        assert float((mine.cpu() - plain).abs().max()) < ROUNDING * largest


@pytest.mark.parametrize("manner", [*MANNERS, Manner(0.3, 1000)], ids=named)
@pytest.mark.parametrize("trunk", [0, 17])
@pytest.mark.parametrize("batch", BATCHES)
def test_merged_attention_is_that_of_separate_sequences(
        batch: str, trunk: int, manner: Manner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merged_attention, "BLOCK_TOKENS", 24)
    forest = planted(batch, trunk)
    given, attention = numbers(forest, trunk), MergedAttention(Sight(forest, trunk, CPU))
    wanted = with_gradients(lambda *qkv: by_definition(forest, trunk, manner, *qkv), given)
    same(with_gradients(lambda *qkv: attention(*qkv, manner), given), wanted)


@pytest.mark.skipif(library() is None, reason="no C compiler, or a processor without AVX-512")
@pytest.mark.parametrize("manner", [manner for manner in [*MANNERS, Manner(0.3, 1000)] if not manner.cap], ids=named)
@pytest.mark.parametrize("trunk", [0, 17])
@pytest.mark.parametrize("batch", [*BATCHES, "long"])
@pytest.mark.parametrize("size", [16, 80])
def test_attention_in_c_is_that_of_separate_sequences(size: int, batch: str, trunk: int, manner: Manner) -> None:
    """Also of more keys than a block, with a fork in the midst of one, and as what is joined lies: token by token."""
    forest = plant(LONG, [""] * len(LONG), first_position=trunk) if batch == "long" else planted(batch, trunk)
    given = [_token_by_token(tensor.detach() / 2) for tensor in numbers(forest, trunk, size)]
    assert suits_attention(*given, manner)
    attention = NativeAttention(Sight(forest, trunk, CPU))
    wanted = with_gradients(lambda *qkv: by_definition(forest, trunk, manner, *qkv), given)
    same(with_gradients(lambda *qkv: attention(*qkv, manner), given), wanted)


def test_what_c_does_not_compute_is_left_to_torch() -> None:
    """Values of another size than keys, a cap, other types, sizes of no whole vectors."""
    def x(size: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.ones(1, 2, 3, size, dtype=dtype)

    assert suits_attention(x(32), x(32), x(32), Manner(1.0)) is (library() is not None)
    for q, k, v, manner in [
            (x(32), x(32), x(16), Manner(1.0)), (x(32), x(48), x(48), Manner(1.0)), (x(24), x(24), x(24), Manner(1.0)),
            (x(272), x(272), x(272), Manner(1.0)), (x(32), x(32), x(32), Manner(1.0, cap=2.0)),
            (x(32), x(32, torch.bfloat16), x(32, torch.bfloat16), Manner(1.0)),
            (x(32, torch.float64), x(32, torch.float64), x(32, torch.float64), Manner(1.0))]:
        assert not suits_attention(q, k, v, manner)


@pytest.mark.skipif(library() is None, reason="no C compiler, or a processor without AVX-512")
def test_keys_may_lie_in_any_way() -> None:
    forest = planted("two levels", 0)
    given = [_token_by_token(tensor.detach()) for tensor in numbers(forest, 0, 16)]
    turned = [tensor.detach().transpose(2, 3).contiguous().transpose(2, 3).requires_grad_() for tensor in given]
    attention = NativeAttention(Sight(forest, 0, CPU))
    same(with_gradients(lambda *qkv: attention(*qkv, Manner(0.3)), turned),
         with_gradients(lambda *qkv: attention(*qkv, Manner(0.3)), given))


def _token_by_token(x: Tensor) -> Tensor:
    return x.transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()


@pytest.mark.parametrize("manner", MANNERS, ids=named)
@pytest.mark.parametrize("trunk", [0, 17])
@pytest.mark.parametrize("batch", BATCHES)
def test_flex_attention_is_that_of_separate_sequences(batch: str, trunk: int, manner: Manner) -> None:
    """With its gradients where there is a GPU: on a CPU it has none."""
    forest = planted(batch, trunk)
    given = numbers(forest, trunk)
    if torch.cuda.is_available():
        moved = [tensor.detach().cuda().requires_grad_() for tensor in given]
        attention = FlexAttention(Sight(forest, trunk, torch.device("cuda")))
        wanted = with_gradients(lambda *qkv: by_definition(forest, trunk, manner, *qkv), given)
        same(with_gradients(lambda *qkv: attention(*qkv, manner), moved), wanted)
    else:
        attention = FlexAttention(Sight(forest, trunk, CPU))
        given = [tensor.detach() for tensor in given]
        same([attention(*given, manner)], [by_definition(forest, trunk, manner, *given)])


@pytest.mark.parametrize("manner", MANNERS, ids=named)
@pytest.mark.parametrize("trunk", [0, 17])
@pytest.mark.parametrize("batch", BATCHES)
def test_masked_attention_is_that_of_separate_sequences(batch: str, trunk: int, manner: Manner) -> None:
    forest = planted(batch, trunk)
    given = [tensor.detach().double().requires_grad_() for tensor in numbers(forest, trunk)]
    attention = MaskedAttention(Sight(forest, trunk, CPU))
    wanted = with_gradients(lambda *qkv: by_definition(forest, trunk, manner, *qkv), given)
    same(with_gradients(lambda *qkv: attention(*qkv, manner), given), wanted)


@pytest.mark.parametrize("scores", [1, 500, 1 << 22])
def test_capped_scores_are_computed_in_pieces_of_any_size(scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capped_attention, "MOST_SCORES", scores)
    forest, manner = planted("two levels", 17), Manner(0.3, WINDOW, 2.0, SINKS)
    given, attention = numbers(forest, 17), MergedAttention(Sight(forest, 17, CPU))
    wanted = with_gradients(lambda *qkv: by_definition(forest, 17, manner, *qkv), given)
    same(with_gradients(lambda *qkv: attention(*qkv, manner), given), wanted)


def test_an_ancestor_is_attended_to_once_for_all_that_hang_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merged_attention, "BLOCK_TOKENS", 64)
    system = tuple(range(100))
    forest = plant([(*system, *range(200 + 50 * i, 240 + 50 * i)) for i in range(5)], [""] * 5)
    found = MergedAttention(Sight(forest, 0, CPU)).parts(None)
    assert [(part.queries, part.keys) for part in found if not part.own] == [((100, 300), (0, 100))]
    assert [part.queries for part in found if part.own] == [(0, 100), *((i, i + 40) for i in range(100, 300, 40))]


def test_no_mask_is_made_of_what_needs_none() -> None:
    forest = plant([tuple(range(500))], [""])
    attention = MergedAttention(Sight(forest, 0, CPU))
    attention(*numbers(forest, 0), Manner(0.3))
    assert [part.mask for part in attention._masked[None]] == [None]


def test_what_a_window_hides_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long sequence takes memory and time by its length, and not by its square."""
    monkeypatch.setattr(merged_attention, "BLOCK_TOKENS", 24)
    forest = plant([tuple(range(1000))], [""])
    attention = MergedAttention(Sight(forest, 0, CPU))
    given = [tensor.detach().double().requires_grad_() for tensor in numbers(forest, 0)]
    wanted = with_gradients(lambda *qkv: by_definition(forest, 0, Manner(0.3, 50), *qkv), given)
    same(with_gradients(lambda *qkv: attention(*qkv, Manner(0.3, 50)), given), wanted)
    pairs = [(part.queries.stop - part.queries.start) * (part.keys.stop - part.keys.start)
             for part in attention._masked[50]]
    assert sum(pairs) <= 1000 * 100, "each token with about twice the window"


@pytest.mark.parametrize("manner", [
    Manner(0.3), Manner(0.3, 4), Manner(0.3, 9), Manner(0.3, 9, cap=1.0), Manner(0.3, sinks=SINKS),
    Manner(0.3, 9, 1.0, SINKS)], ids=named)
@pytest.mark.parametrize("fed", [1, 3])
@pytest.mark.parametrize("trunk_length", [0, 6])
def test_a_row_alone_is_what_it_is_beside_another(
        trunk_length: int, fed: int, manner: Manner, monkeypatch: pytest.MonkeyPatch) -> None:
    """One kernel for a single row, products and a softmax for several, and C for either: the same numbers, written to
    the same places."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    heads, kv_heads, size, start = 6, 2, 16, 7
    shared = random(1, kv_heads, trunk_length, size), random(1, kv_heads, trunk_length, size)
    trunk = Trunk(tuple(range(trunk_length)), [shared]) if trunk_length else None
    cached = random(1, kv_heads, 16, size), random(1, kv_heads, 16, size)
    q, k, v = random(1, heads, fed, size), random(1, kv_heads, fed, size), random(1, kv_heads, fed, size)
    found = []
    for rows, in_c in ((1, False), (2, False), (1, True), (2, True)):
        slots = SlotCache()
        slots.layers = [tuple(each.repeat(rows, 1, 1, 1) for each in cached)]  # type: ignore[list-item]
        layout = DecodingLayout(slots, 0, [start] * rows, [fed] * rows, [trunk] * rows, CPU)
        with monkeypatch.context() as patch:
            if not in_c:
                patch.setattr(native_library, "library", lambda: None)
            out = layout.attend(0, *(each.repeat(1, 1, rows, 1) for each in (q, k, v)), manner)
        found.append((out[:, :, :fed], slots.layers[0][0][:1], slots.layers[0][1][:1]))
    for alone, *others in zip(*found, strict=True):
        for other in others:
            torch.testing.assert_close(other, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("manner", [Manner(0.3), Manner(0.3, 9), Manner(0.3, 20, sinks=SINKS)], ids=named)
def test_rows_of_different_trunks_see_theirs(manner: Manner) -> None:
    """Each beside others, of other lengths and with other trunks, is what it is alone."""
    torch.manual_seed(0)
    size, room = 32, 48
    trunks = [Trunk(tuple(range(n)), [(torch.randn(1, SHARED, n, size), torch.randn(1, SHARED, n, size))])
              for n in (70, 5)]
    of_rows = [trunks[0], trunks[0], None, trunks[1], trunks[0]]
    starts, counts = [3, 40, 17, 1, 9], [1, 4, 2, 1, 3]
    cached = torch.randn(len(of_rows) + 1, SHARED, room, size), torch.randn(len(of_rows) + 1, SHARED, room, size)
    fed = [torch.randn(1, heads, sum(counts), size) for heads in (HEADS, SHARED, SHARED)]
    found = []
    for runs in ([range(5)], [range(row, row + 1) for row in range(5)]):  # the first slot is another's
        slots = SlotCache()
        slots.layers = [tuple(each.clone() for each in cached)]  # type: ignore[list-item]
        outs = []
        for rows in runs:
            first, last = sum(counts[: rows[0]]), sum(counts[: rows[-1] + 1])
            layout = DecodingLayout(slots, 1 + rows[0], [starts[row] for row in rows], [counts[row] for row in rows],
                                    [of_rows[row] for row in rows], CPU)
            outs.append(layout.attend(0, *(each[:, :, first:last] for each in fed), manner))
        found.append((torch.cat(outs, dim=2), *slots.layers[0]))
    for together, alone in zip(*found, strict=True):
        torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.parametrize("manner", [Manner(0.3), Manner(0.3, cap=2.0)], ids=named)
def test_flex_attention_compiles(manner: Manner, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is called on a GPU; on a CPU forward only, without sinks, and without a window, of which torch 2.13 makes
    code there that does not compile."""
    forest = planted("two levels", 0)
    given = [tensor.detach().repeat_interleave(2, dim=3) for tensor in numbers(forest, 0)]  # heads of 16 and more
    attention = FlexAttention(Sight(forest, 0, CPU))
    monkeypatch.setattr(flex_attention, "flex_attention", flex_attention.compiled())
    same([attention(*given, manner)], [by_definition(forest, 0, manner, *given)])


def test_what_sinks_take_of_bf16_scores_is_not_rounded_to_bf16() -> None:
    """Ten keys of score 25 sum to 27.30, for which bfloat16 has 27.25."""
    slots, sink = SlotCache(), 27.25
    keys = torch.zeros(2, SHARED, 16, SIZE, dtype=torch.bfloat16)
    keys[..., 0] = 5
    slots.layers = [(keys, torch.ones_like(keys))]
    layout = DecodingLayout(slots, 0, [9, 9], [1, 1], [None, None], CPU)
    q, k = keys[:1, :1, :2].repeat(1, HEADS, 1, 1), keys[:1, :, :2]
    out = layout.attend(0, q, k, torch.ones_like(k), Manner(1.0, sinks=torch.full((HEADS,), sink)))
    wanted = torch.sigmoid(torch.tensor(25.0 - sink) + torch.tensor(10.0).log())
    assert float((out.float() - wanted).abs().max()) < 5e-3
