"""How a job teaches: OpenAI's methods and hyperparameters, in our techniques' words.

    supervised       sft     n_epochs, batch_size, learning_rate_multiplier
    dpo              dpo     the same, and beta
    reinforcement    grpo    the same, compute_multiplier, eval_interval, eval_samples

`lora_rank` is ours, and so is `max_tokens` of an answer that is rewarded.  What is "auto" is the technique's own
choice, and is told in numbers once the job runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from posttrain.graders import _openai
from posttrain.server.errors import ApiError
from posttrain.techniques import dpo, grpo, sft
from posttrain.techniques._optimiser import RATES
from posttrain.types import LoRA, UserError

Auto = Literal["auto"]
Epochs = Auto | Annotated[int, Field(ge=1, le=50)]
Batch = Auto | Annotated[int, Field(ge=1, le=256)]
Multiplier = Auto | Annotated[float, Field(gt=0, allow_inf_nan=False)]
AtLeastOne = Auto | Annotated[int, Field(ge=1)]

DEFAULT_GROUP = grpo.Config().group_size


class Hyperparameters(BaseModel):
    """Those of every method."""

    model_config = ConfigDict(extra="forbid")
    n_epochs: Epochs = "auto"
    batch_size: Batch = "auto"
    learning_rate_multiplier: Multiplier = "auto"
    lora_rank: Annotated[int, Field(ge=1, le=256)] | None = None


class DpoHyperparameters(Hyperparameters):
    beta: Auto | Annotated[float, Field(gt=0, le=2)] = "auto"


class ReinforcementHyperparameters(Hyperparameters):
    compute_multiplier: Auto | Annotated[float, Field(gt=1e-5, le=10)] = "auto"
    eval_interval: AtLeastOne = "auto"
    eval_samples: AtLeastOne = "auto"
    reasoning_effort: Literal["default"] | None = None  # models here have one
    max_tokens: Annotated[int, Field(ge=1)] | None = None


class Supervised(BaseModel):
    model_config = ConfigDict(extra="forbid")
    hyperparameters: Hyperparameters = Field(default_factory=Hyperparameters)


class Dpo(BaseModel):
    model_config = ConfigDict(extra="forbid")
    hyperparameters: DpoHyperparameters = Field(default_factory=DpoHyperparameters)


class Reinforcement(BaseModel):
    model_config = ConfigDict(extra="forbid")
    grader: dict[str, Any]
    hyperparameters: ReinforcementHyperparameters = Field(default_factory=ReinforcementHyperparameters)
    response_format: None = None


class Method(BaseModel):
    """The `method` of a job; only the part of its `type` may be there."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: Supervised | None = None
    dpo: Dpo | None = None
    reinforcement: Reinforcement | None = None

    @model_validator(mode="after")
    def of_its_type(self) -> Method:
        for name in ("supervised", "dpo", "reinforcement"):
            if name != self.type and getattr(self, name) is not None:
                raise ValueError(f"{name} beside the type {self.type}")
        if self.type == "reinforcement" and self.reinforcement is None:
            raise ValueError("reinforcement needs a grader")
        if self.type == "supervised" and self.supervised is None:
            self.supervised = Supervised()
        if self.type == "dpo" and self.dpo is None:
            self.dpo = Dpo()
        return self

    @property
    def told(self) -> dict[str, Any]:
        """As the API shows it."""
        return self.model_dump(exclude_none=True)


def check_grader(method: Method) -> None:
    """Raises ApiError naming the field of the grader that is wrong."""
    if method.reinforcement is None:
        return
    try:
        _openai.make(method.reinforcement.grader)
    except UserError as error:
        param = f"method.reinforcement.{error.place.partition(',')[0]}"
        raise ApiError(f"{error.message}; {error.remedy}", param=param, code="invalid_grader") from error


@dataclass(frozen=True)
class Teaching:
    """A technique with its settings, and the hyperparameters in numbers."""

    technique: str
    settings: Mapping[str, Any]
    chosen: Mapping[str, float]


def teaching(method: Mapping[str, Any], rows: int) -> Teaching:
    """What a method does with so many rows to learn from."""
    asked = Method.model_validate(method)
    if asked.type == "reinforcement":
        assert asked.reinforcement is not None
        return _reinforcement(asked.reinforcement.hyperparameters, rows)
    if asked.type == "dpo":
        assert asked.dpo is not None
        return _dpo(asked.dpo.hyperparameters)
    assert asked.supervised is not None
    return _supervised(asked.supervised.hyperparameters, rows)


def _supervised(given: Hyperparameters, rows: int) -> Teaching:
    batch = _or(given.batch_size, min(16, max(2, rows // 100)))
    epochs, multiplier = _or(given.n_epochs, sft.Config().epochs), _or(given.learning_rate_multiplier, 1.0)
    settings = {"batch_size": batch, "epochs": epochs, "learning_rate": multiplier * RATES["adam"]}
    if given.n_epochs != "auto":
        settings["patience"] = epochs  # so many were asked for
    lora = {"lora": LoRA(rank=given.lora_rank, layers=sft.UPPER_HALF.layers)} if given.lora_rank else {}
    chosen = {"n_epochs": epochs, "batch_size": batch, "learning_rate_multiplier": multiplier}
    return Teaching("sft", settings | lora, chosen)


def _dpo(given: DpoHyperparameters) -> Teaching:
    usual = dpo.Config()
    multiplier = _or(given.learning_rate_multiplier, 1.0)
    chosen = {
        "n_epochs": _or(given.n_epochs, usual.epochs),
        "batch_size": _or(given.batch_size, usual.pairs_per_step),
        "learning_rate_multiplier": multiplier,
        "beta": _or(given.beta, usual.beta),
    }
    settings = {
        "epochs": chosen["n_epochs"],
        "pairs_per_step": chosen["batch_size"],
        "learning_rate": multiplier * usual.learning_rate,
        "beta": chosen["beta"],
    }
    return Teaching("dpo", settings | _lora(given), chosen)


def _reinforcement(given: ReinforcementHyperparameters, rows: int) -> Teaching:
    usual = grpo.Config()
    batch = _or(given.batch_size, min(rows, usual.rows_per_step))
    steps = usual.steps if given.n_epochs == "auto" else given.n_epochs * math.ceil(rows / batch)
    multiplier = _or(given.learning_rate_multiplier, 1.0)
    group = max(2, round(DEFAULT_GROUP * _or(given.compute_multiplier, 1.0)))
    chosen = {
        "n_epochs": max(1, round(steps * batch / rows)),
        "batch_size": batch,
        "learning_rate_multiplier": multiplier,
        "compute_multiplier": group / DEFAULT_GROUP,
        "eval_interval": _or(given.eval_interval, usual.evaluate_every),
        "eval_samples": _or(given.eval_samples, usual.dev_rows),
    }
    settings = {
        "steps": steps,
        "rows_per_step": batch,
        "group_size": group,
        "learning_rate": multiplier * RATES["adam"],
        "evaluate_every": chosen["eval_interval"],
        "dev_rows": chosen["eval_samples"],
    }
    return Teaching("grpo", settings | _lora(given), chosen)


def _lora(given: Hyperparameters) -> dict[str, Any]:
    return {"lora": LoRA(rank=given.lora_rank)} if given.lora_rank else {}


def _or(value: Any, usual: Any) -> Any:
    return usual if value == "auto" else value
