"""costs.toml: what candidates cost that nothing here can measure, in the money of the other prices.

    [ours]                      # the system of --answers ours=FILE
    per_1000_requests = 12.50
    standing_per_month = 300

    [sft]
    people = 800                # once

It is added to what is measured.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from posttrain.comparison.money import Prices, StatedCost
from posttrain.tasks.records import read_text
from posttrain.types import UserError

KEYS = tuple(field.name for field in fields(StatedCost))


def read_costs(path: Path) -> dict[str, StatedCost]:
    """The stated costs of each candidate that the file names.  Raises UserError with file and line."""
    text = read_text(path)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"not valid TOML: {error}", place=str(path), remedy="mend the file") from error
    costs: dict[str, StatedCost] = {}
    for name, stated in table.items():
        if not isinstance(stated, dict):
            raise _error(path, text, name, f"{name!r} stands under no candidate", "put it below [NAME]")
        for key, cost in stated.items():
            if key not in KEYS:
                raise _error(path, text, key, f"{name} has no key {key!r}", f"known: {', '.join(KEYS)}")
            if isinstance(cost, bool) or not isinstance(cost, int | float) or not 0 <= cost < math.inf:
                raise _error(path, text, key, f"{key} of {name} is {cost!r}", "give a number, 0 or more")
        costs[name] = StatedCost(**stated)
    return costs


def refuse_unpriced(costs: Mapping[str, StatedCost], priced: Mapping[str, bool]) -> None:
    """Raises UserError for costs that would be ignored.  `priced`: of each candidate, whether all else is in money."""
    for name in costs:
        if name not in priced:
            raise UserError(
                f"costs of {name!r}, which is not compared", place="--costs", remedy=f"known: {', '.join(priced)}"
            )
        if not priced[name]:
            raise UserError(
                f"costs of {name!r} are money, what else it costs has no price",
                place="--costs",
                remedy="state --price-per-hour for what runs here, --price-input and --price-output for an endpoint",
            )


def refuse_unused(prices: Prices, *, hosted: bool, here: bool) -> None:
    """Raises UserError for prices that would be ignored: of tokens without a candidate that is `hosted`, of the device
    without one that runs `here`."""
    if prices.input_per_million is not None and not hosted:
        raise UserError(
            "prices of tokens, and no endpoint is compared",
            place="--price-input --price-output",
            remedy="leave them out, or name an endpoint: --model chat:URL#NAME",
        )
    if prices.per_hour is not None and not here:
        raise UserError(
            "a price of the device, and nothing that is compared runs on it",
            place="--price-per-hour",
            remedy="leave it out, and state --price-input and --price-output for the endpoint",
        )


def _error(path: Path, text: str, word: str, message: str, remedy: str) -> UserError:
    """With the first line that begins with the word."""
    lines = enumerate(text.split("\n"), 1)
    number = next((i for i, line in lines if line.strip().lstrip('["').startswith(word)), None)
    return UserError(message, place=f"{path}:{number}" if number else str(path), remedy=remedy)
