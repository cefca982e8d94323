"""A hosted model in a comparison: what it is paid for, and what is said of one that does not do all it is asked to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from live_server import running
from small_comparison import Hearing, reviews

from posttrain.comparison import html
from posttrain.comparison.compare import compare, read
from posttrain.comparison.conclude import Settings
from posttrain.comparison.money import Prices
from posttrain.comparison.results import ComparisonResult
from posttrain.engines.chat_api import ChatApiPolicy
from posttrain.runs import Run, read_json


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """An endpoint that takes no schema, knows most of a prompt from before, and finds everything positive.

    #plain gives one choice a request, #several as many as are asked for.
    """
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def answer(request: Request) -> JSONResponse:
        asked = await request.json()
        if "response_format" in asked:
            return JSONResponse({"error": {"message": "unknown field", "param": "response_format"}}, 400)
        choices = asked.get("n", 1) if asked["model"] == "several" else 1
        usage = {"prompt_tokens": 100, "completion_tokens": 10 * choices, "prompt_tokens_details": {"cached_tokens": 60}}
        return JSONResponse({"choices": [{"message": {"content": "positive"}}] * choices, "usage": usage})

    with running(app) as address:
        yield f"chat:{address}/v1#plain"


async def compared(url: str, folder: Path, *candidates: str, hearing: Hearing | None = None,
                   **settings: Any) -> ComparisonResult:
    policy = ChatApiPolicy.open(url)
    try:
        return await compare(reviews(), {url: policy}, Run(folder), Settings(candidates, **settings),
                             listener=(hearing or Hearing()).listener)
    finally:
        await policy.close()


def test_cached_tokens_have_their_own_price(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "render", lambda *_: None)
    prices = Prices(input_per_million=10.0, cached_per_million=1.0, output_per_million=100.0)
    found = asyncio.run(compared(url, tmp_path, "base", "few_shot", prices=prices))
    request = (40 * 10 + 60 * 1 + 10 * 100) / 1e6
    base, few_shot = (found.candidate(name).cost for name in ("base", "few_shot"))
    assert base is not None and base.per_request == pytest.approx(request) and base.one_off == 0
    assert few_shot is not None and few_shot.one_off / request == pytest.approx(round(few_shot.one_off / request))
    assert read(tmp_path).candidate("base").evaluation.attempts[0].cached_tokens == 60


@pytest.mark.parametrize(("name", "requests"), [("plain", 5), ("several", 1)])
def test_a_majority_costs_what_was_billed_for_its_votes(url: str, name: str, requests: int, tmp_path: Path) -> None:
    """Five prompts where the endpoint gives one choice a request, one where it gives all five."""
    prices = Prices(input_per_million=10.0, cached_per_million=1.0, output_per_million=100.0)
    found = asyncio.run(compared(url.replace("plain", name), tmp_path, "base", "best_of", prices=prices))
    base, voted = found.candidate("base"), found.candidate("best_of")
    assert (base.evaluation.prompt_tokens, voted.evaluation.prompt_tokens) == (100, 100 * requests)
    assert voted.evaluation.completion_tokens == 50
    assert {attempt.cached_tokens for attempt in voted.evaluation.attempts} == {60 * requests}
    assert voted.cost is not None
    assert voted.cost.per_request == pytest.approx((requests * (40 * 10 + 60 * 1) + 50 * 100) / 1e6)


def test_what_an_endpoint_does_not_do_is_said_wherever_its_results_are(url: str, tmp_path: Path) -> None:
    """Its answers are formed by the instructions alone: whoever reads the table has to know."""
    hearing = Hearing()
    first = asyncio.run(compared(url, tmp_path, "base", "few_shot", hearing=hearing, latency=False))
    note = f"{url}: it takes no output schema: answers are formed by the instructions alone"
    assert hearing.said.count(note) == first.notes.count(note) == 1
    assert note in first.candidate("base").notes and note in first.candidate("few_shot").notes
    report = read_json(tmp_path / "report.json")
    assert note in report["notes"] and all(note in one["notes"] for one in report["candidates"])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("it takes no output schema") == 3, "of the run, and beside each candidate"
    again = asyncio.run(compared(url, tmp_path, "base", "few_shot", latency=False))
    assert again.notes == first.notes, "also when nothing has to be asked any more"
