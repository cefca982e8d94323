"""What can be said without knowing an answer, and is found in the grader's own source or in the questions."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable, Sequence

LONGEST = 200
"""Characters of a text that is worth trying; longer ones are prose."""

QUOTED = re.compile(r"[`\"'“]([^`\"'”\n]{1,200})[`\"'”]")
LED_IN = re.compile(
    r"(?:example|e\.g\.|such as|format|like this|answer)[^:\n]{0,80}:[ \n]*([^\n]{1,200})", re.IGNORECASE
)
NUMBER = re.compile(r"(?<![\w.])\d{1,6}(?![\w.])")


def literals(source: str) -> list[str]:
    """The texts written in a program, docstrings left out, each once, in order; [] when it is no Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return []
    scopes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    documented = {id(node.body[0]) for node in ast.walk(tree) if isinstance(node, scopes) and node.body}
    documented = {
        id(statement.value)
        for statement in ast.walk(tree)
        if isinstance(statement, ast.Expr) and id(statement) in documented
    }
    found = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documented
    ]
    return [text for text in dict.fromkeys(found) if text.strip() and len(text) <= LONGEST]


def names(source: str) -> list[str]:
    """The names that a program uses, and what it looks up in them, as they are written there, each once; [] when it is
    no Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return []
    kinds = (ast.Subscript, ast.Attribute, ast.Name)
    found = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, kinds)]
    arguments = [node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)]
    return [text for text in dict.fromkeys([*arguments, *found]) if len(text) <= 40]


def examples(questions: Iterable[str]) -> list[str]:
    """What questions quote, or lead in as an example, those that most of them name first."""
    named: Counter[str] = Counter()
    for question in questions:
        found = [*QUOTED.findall(question), *LED_IN.findall(question)]
        named.update(dict.fromkeys([text.strip() for text in found if text.strip()], 1))
    return [text for text, _ in named.most_common()]


def common_numbers(questions: Sequence[str]) -> list[int]:
    """Whole numbers that every question names."""
    sets = [{int(number) for number in NUMBER.findall(question)} for question in questions]
    return sorted(set.intersection(*sets)) if sets else []


def expressions(number: int) -> list[str]:
    """Ways of writing a number as a sum, a product and a quotient, of few and of several terms."""
    written = [f"{number}", f"{number}+0", f"{number}*1", f"{number * 2}/2", f"{number - 1}+1"]
    for terms in (2, 3, 4):
        if number % terms == 0:
            written.append("+".join([str(number // terms)] * terms))
    return written
