"""OpenAI's models: those that can be asked."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from posttrain.server.access import Asker, Models, Teacher

router = APIRouter(prefix="/v1/models")


@router.get("")
def listed(served: Models, whose: Asker) -> dict[str, Any]:
    return {"object": "list", "data": [*served.all(whose)]}


@router.get("/{name:path}")
def shown(served: Models, name: str, whose: Asker) -> dict[str, Any]:
    return served.told(name, whose)


@router.delete("/{name:path}")
def delete(served: Models, name: str, whose: Teacher) -> dict[str, Any]:
    served.delete(name, whose)
    return {"id": name, "object": "model", "deleted": True}
