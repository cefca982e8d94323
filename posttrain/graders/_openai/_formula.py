"""Arithmetic over named numbers: "0.5 * style + 0.5 * max(exact, fuzzy)"; nothing else of Python is understood."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Collection, Mapping
from typing import Any

from posttrain.types import UserError

LONGEST = 2000
"""Characters."""

OPERATORS: Mapping[type, Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: math.pow,  # floats: no power takes long
}
SIGNS: Mapping[type, Callable[[float], float]] = {ast.USub: operator.neg, ast.UAdd: operator.pos}
FUNCTIONS: Mapping[str, tuple[Callable[..., float], int | None]] = {
    "min": (min, None),
    "max": (max, None),
    "abs": (abs, 1),
    "floor": (math.floor, 1),
    "ceil": (math.ceil, 1),
    "exp": (math.exp, 1),
    "sqrt": (math.sqrt, 1),
    "log": (math.log, 1),
}
"""With how many numbers each takes."""


class Formula:
    """Raises UserError for what is no formula over these names."""

    def __init__(self, text: str, names: Collection[str]) -> None:
        self.names = names
        try:
            if len(text) > LONGEST:
                raise ValueError(f"longer than {LONGEST:,} characters")
            self.tree = ast.parse(text.replace("^", "**").strip(), mode="eval").body
            self._check(self.tree)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise UserError(
                f"calculate_output: {error}",
                place="grader.calculate_output",
                remedy=f"names: {', '.join(names)}; operators: + - * / ^; functions: {', '.join(FUNCTIONS)}",
            ) from error

    def value(self, numbers: Mapping[str, float]) -> float:
        """Raises ArithmeticError or ValueError where there is none: 1 / 0."""
        return float(self._value(self.tree, numbers))

    def _check(self, node: ast.AST) -> None:
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
            self._check(node.left)
            self._check(node.right)
        elif isinstance(node, ast.UnaryOp) and type(node.op) in SIGNS:
            self._check(node.operand)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            if node.func.id not in FUNCTIONS:
                raise ValueError(f"no function {node.func.id!r}")
            wanted = FUNCTIONS[node.func.id][1]
            if not node.args or wanted not in (None, len(node.args)):
                raise ValueError(f"{node.func.id} takes {wanted or 'some'} numbers")
            for argument in node.args:
                self._check(argument)
        elif isinstance(node, ast.Name):
            if node.id not in self.names:
                raise ValueError(f"no grader {node.id!r}")
        elif not (isinstance(node, ast.Constant) and type(node.value) in (int, float)):
            raise ValueError(f"{ast.unparse(node)[:80]!r} is not understood")

    def _value(self, node: Any, numbers: Mapping[str, float]) -> float:
        if isinstance(node, ast.BinOp):
            return OPERATORS[type(node.op)](self._value(node.left, numbers), self._value(node.right, numbers))
        if isinstance(node, ast.UnaryOp):
            return SIGNS[type(node.op)](self._value(node.operand, numbers))
        if isinstance(node, ast.Call):
            found = [self._value(argument, numbers) for argument in node.args]
            return FUNCTIONS[node.func.id][0](*found)  # type: ignore[attr-defined]
        return numbers[node.id] if isinstance(node, ast.Name) else float(node.value)
