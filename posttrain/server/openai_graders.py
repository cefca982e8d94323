"""OpenAI's graders by themselves: whether one is sound, and what it gives for an answer."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from posttrain.graders import _openai, openai
from posttrain.server.access import Teacher
from posttrain.server.errors import ApiError
from posttrain.types import UserError

ERRORS = (
    "formula_parse_error",
    "sample_parse_error",
    "truncated_observation_error",
    "unresponsive_reward_error",
    "invalid_variable_error",
    "other_error",
    "python_grader_server_error",
    "python_grader_runtime_error",
    "model_grader_server_error",
    "model_grader_refusal_error",
    "model_grader_parse_error",
)
DETAILS = (
    "python_grader_server_error_type",
    "python_grader_runtime_error_details",
    "model_grader_server_error_details",
)
"""What the API tells of each result: whether an error happened, and the words of some."""

router = APIRouter(prefix="/v1/fine_tuning/alpha/graders")


class ValidateBody(BaseModel):
    model_config = ConfigDict(extra="forbid")
    grader: dict[str, Any]


class RunBody(BaseModel):
    model_config = ConfigDict(extra="forbid")
    grader: dict[str, Any]
    model_sample: str
    item: dict[str, Any] = Field(default_factory=dict)


@router.post("/validate")
def validate(_: Teacher, body: ValidateBody) -> dict[str, Any]:
    _made(body.grader)
    return {"grader": body.grader}


@router.post("/run")
async def run(_: Teacher, body: RunBody) -> dict[str, Any]:
    grader = _made(body.grader)
    began = time.monotonic()
    graded = await grader.grade(body.item, openai.sample(body.model_sample))
    errors: dict[str, Any] = dict.fromkeys(ERRORS, False) | dict.fromkeys(DETAILS) | dict(graded.errors)
    return {
        "reward": graded.reward,
        "metadata": {
            "name": grader.name,
            "type": body.grader["type"],
            "errors": errors,
            "execution_time": round(time.monotonic() - began, 6),
            "scores": dict(graded.parts),
            "token_usage": None,
            "sampled_model_name": None,
        },
        "sub_rewards": dict(graded.parts),
        "model_grader_token_usage_per_model": {},
    }


def _made(definition: dict[str, Any]) -> _openai.OpenAIGrader:
    try:
        return _openai.make(definition)
    except UserError as error:
        param = error.place.partition(",")[0]
        raise ApiError(f"{error.message}; {error.remedy}", param=param, code="invalid_grader") from error
