"""The shape of the code: limits that keep it readable, and a README that tells the truth about the tree.

The import contracts are in pyproject.toml and checked by `make check` (lint-imports).
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "posttrain"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parts[-3:-1] != ("migrations", "versions"))
"""Without what alembic writes."""
MOST_LINES = 400
MOST_FUNCTION_LINES = 60
MOST_PARAMETERS = 11
MODEL_NAMES = ("smollm", "llama", "qwen", "gemma", "mistral", "gpt", "phi3", "deepseek")
MODELS_MAY_BE_NAMED = {
    "engines/torch/base.py": "holds the embedded model",
    "api/engines.py": "its name as a default",
    "cli/teaching.py": "its name as a default",
}
COMMAND_LINE = "cli/"
"""A command's parameters are its options and its docstring its help: both may be longer."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def named(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def functions() -> Iterator[tuple[str, Function]]:
    """Every function with its place."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, Function):
                yield f"{named(path)}:{node.lineno} {node.name}", node


def test_a_file_can_be_read_in_one_sitting() -> None:
    lengths = {named(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert not {name: lines for name, lines in lengths.items() if lines > MOST_LINES}


def test_a_function_fits_a_screen() -> None:
    lengths = {place: _lines(function, place.startswith(COMMAND_LINE)) for place, function in functions()}
    assert not {place: lines for place, lines in lengths.items() if lines > MOST_FUNCTION_LINES}


def _lines(function: Function, is_command: bool) -> int:
    lines = (function.end_lineno or 0) - function.lineno + 1
    first = function.body[0]
    return lines - ((first.end_lineno or 0) - function.lineno) if is_command else lines


def test_a_function_takes_few_parameters() -> None:
    counts = {
        place: len(function.args.posonlyargs) + len(function.args.args) + len(function.args.kwonlyargs)
        for place, function in functions()
        if not place.startswith(COMMAND_LINE)
    }
    assert not {place: count for place, count in counts.items() if count > MOST_PARAMETERS}


def test_a_module_says_its_idea() -> None:
    silent = [path for path in FILES if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]
    assert not [named(path) for path in silent if path.name != "__init__.py"]


def test_own_modules_are_imported_at_the_top() -> None:
    """An import inside a function is how a cycle hides.  The exceptions load a large library that few commands need."""
    late = ("from posttrain import losses", "from posttrain.comparison import html", "from posttrain.api import service")
    lazy = [
        f"{place}: {ast.unparse(node)}"
        for place, function in functions()
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom) and "posttrain" in ast.unparse(node)
        if not ast.unparse(node).startswith(late)
    ]
    assert not lazy


def test_names_say_what_is_inside() -> None:
    vague = re.compile(r"utils?|helpers?|common|misc|manager|base_\w+|\w+_impl", re.I)
    assert not [named(path) for path in FILES if vague.fullmatch(path.stem.strip("_"))]
    filler = re.compile(r"Manager|Helper|Handler|^Base|^Abstract|Impl$|Utils?$")
    classes = [
        f"{named(path)}: {node.name}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and filler.search(node.name)
    ]
    assert not classes


def test_no_logic_knows_a_model_by_name() -> None:
    """Names in sentences (messages, help, docstrings) are for people; a bare name is logic."""
    found = []
    for path in FILES:
        if named(path) in MODELS_MAY_BE_NAMED:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value.strip():
                found += [f"{named(path)}:{node.lineno}" for name in MODEL_NAMES if name in node.value.casefold()]
    assert not found


def readme_tree() -> list[str]:
    """The lines of the README's tree."""
    tree = re.search(r"```text\n(posttrain/ .*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    assert tree, "README.md has no tree"
    return tree[1].splitlines()


def test_the_readme_shows_the_tree_as_it_is() -> None:
    inside = {line.split()[0].rstrip("/") for line in readme_tree() if line.startswith("  ")}
    outside = {line.split()[0].rstrip("/") for line in readme_tree() if not line.startswith("  ")}
    modules = {path.name for path in PACKAGE.glob("[!_.]*.py")}
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert inside == modules | packages
    made = {"build", "dist", "runs", "tasks"}
    folders = {path.parts[len(ROOT.parts)] for path in ROOT.glob("[!.]*/**/*") if path.is_file()}
    assert outside == {name for name in folders - made if not name.endswith(".egg-info")}


def test_the_readme_lists_the_modules_from_the_bottom_layer_up() -> None:
    """As in the contract of pyproject.toml, so that "only from those above" holds."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    level = {name: i for i, layer in enumerate(reversed(layers)) for name in layer.split(" | ")}
    listed = [line.split()[0].rstrip("/").removesuffix(".py") for line in readme_tree() if line.startswith("  ")]
    assert [level[name] for name in listed] == sorted(level[name] for name in listed)
