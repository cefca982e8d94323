"""What tests of comparisons are given."""

from __future__ import annotations

from typing import Any

import pytest

from posttrain.techniques import _chain as chain


@pytest.fixture
def taught(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The expressions that were taught, as they are: teaching goes on as ever."""
    seen: list[str] = []
    teach = chain.teach

    async def watched(expression: str, *rest: Any, **more: Any) -> Any:
        seen.append(expression)
        return await teach(expression, *rest, **more)

    monkeypatch.setattr(chain, "teach", watched)
    return seen
