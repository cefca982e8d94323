"""Lists in pages, as OpenAI's API gives them: what follows the item `after`, `limit` at most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def page(items: Sequence[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """A page of objects that each have an id."""
    ends = {"first_id": items[0]["id"], "last_id": items[-1]["id"]} if items else {"first_id": None, "last_id": None}
    return {"object": "list", "data": list(items), **ends, "has_more": has_more}
