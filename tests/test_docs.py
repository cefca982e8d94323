"""Every console, python and toml block of README.md and docs/ is run, page by page and in order, as a reader would run it
(`make test-docs`).

A comment on the line before a block says how the test differs from the reader, who does not see it:

    <!-- test: "--minutes 10" becomes "--minutes 0.3" -->   other words, for a smaller budget
    <!-- test: serves -->                                    keeps running; later blocks speak to it
    <!-- test: as tasks/x/grade.py -->                       a file of the reader's, not a program
    <!-- not run: why -->

Several are separated by a semicolon.  A page's blocks share a folder in which the reader's files lie.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from posttrain import tasks

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"(?:^<!-- (?P<comment>[^\n]*) -->\n)?^```(?P<language>console|python|toml)\n(?P<text>.*?)^```$", re.M | re.S
)
BECOMES = re.compile(r"""(["'])(?P<old>.*?)\1 becomes (["'])(?P<new>.*?)\3""")
SERVING = re.compile(r"http://127\.0\.0\.1:(\d+)")


@dataclass(frozen=True)
class Block:
    """`place` is page:line; `text` what the test runs; `file` where a file of the reader's goes."""

    place: str
    language: str
    text: str
    serves: bool = False
    file: str = ""

    @property
    def commands(self) -> list[str]:
        """The lines after a prompt; what stands below them is what the reader sees."""
        return [line.removeprefix("$ ") for line in self.text.splitlines() if line.startswith("$ ")]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page that are run."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in BLOCK.finditer(text):
        place = f"{page.relative_to(ROOT)}:{text[: match.start('text')].count(chr(10)) + 1}"
        comment = match["comment"] or "test: "
        if not comment.startswith("not run: "):
            found.append(_block(place, match["language"], match["text"], comment))
    return found


def _block(place: str, language: str, text: str, comment: str) -> Block:
    assert comment.startswith("test: "), f"{place}: what is {comment!r}?"
    serves = False
    file = ""
    for word in filter(None, (part.strip() for part in comment.removeprefix("test: ").split(";"))):
        if becomes := BECOMES.fullmatch(word):
            assert becomes["old"] in text, f"{place}: {becomes['old']!r} is not in the block"
            text = text.replace(becomes["old"], becomes["new"])
        elif word.startswith("as "):
            file = word.removeprefix("as ")
        else:
            assert word == "serves", f"{place}: what is {word!r}?"
            serves = True
    return Block(place, language, text, serves, file)


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=named)
def test_the_blocks_of_a_page(page: Path, tmp_path: Path, tiny_model_folder: Path) -> None:
    lay_out(tmp_path)
    shutil.copytree(tiny_model_folder, tmp_path / "my-other-model")
    read_along(blocks(page), tmp_path)


def read_along(page: list[Block], folder: Path) -> None:
    """Does what a reader does, from the top of the page, in a folder with the reader's files."""
    address = ""
    with ExitStack() as servers:
        for block in page:
            if block.file:
                (folder / block.file).write_text(block.text, encoding="utf-8")
            elif block.serves:
                (command,) = block.commands
                address = servers.enter_context(serving(re.sub(r" --port \d+", "", command) + " --port 0", folder))
            else:
                run(block, address, folder)


def run(block: Block, address: str, folder: Path) -> None:
    if block.language == "console":
        assert block.commands, f"{block.place}: a console block without a line that begins with $"
        programs = [["bash", "-euo", "pipefail", "-c", command] for command in block.commands]
    else:
        programs = [[sys.executable, "-c", block.text]]
    for *shell, text in programs:
        text = re.sub(r"localhost:80\d\d", address, text) if address else text
        done = subprocess.run(
            [*shell, text],
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
        )
        said = f"{block.place}: {text}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == 0, said
        assert "Traceback" not in done.stderr, said


@contextmanager
def serving(command: str, folder: Path) -> Iterator[str]:
    """The address of a server, as host:port, while the block runs."""
    program = ["bash", "-c", f"exec {command}"]
    with subprocess.Popen(program, cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            found = next((match for line in server.stdout if (match := SERVING.search(line))), None)
            assert found, f"{command} did not say where it serves"
            yield f"127.0.0.1:{found[1]}"
        finally:
            server.terminate()


def environment() -> dict[str, str]:
    """The reader's shell: our commands in the path, no hub, one thread beside other tests."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def lay_out(folder: Path) -> None:
    """The reader's files: labelled tickets, what their system said to them, new tickets; and the examples."""
    shutil.copytree(ROOT / "examples", folder / "examples")
    rows = tasks.load(ROOT / "examples" / "support_triage").rows("train")[:120]
    with (folder / "tickets.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("message", "queue", "urgency"))
        table.writerows((row.text, row.target["queue"], row.target["urgency"]) for row in rows)
    with (folder / "production.jsonl").open("w", encoding="utf-8") as file:
        for i, row in enumerate(rows):  # a system that is right on two of three
            answer = row.target["queue"] if i % 3 else "account"
            file.write(json.dumps({"input": row.text, "answer": answer}) + "\n")
    with (folder / "new_tickets.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("message",))
        table.writerows((row.text,) for row in tasks.load(ROOT / "examples" / "support_triage").rows("dev")[:5])


# ---------------------------------------------------------------------------------------------------------
# What the pages say of the repository


def test_links_lead_somewhere() -> None:
    cards = sorted(ROOT.glob("examples/*/README.md"))
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "AGENTS.md", *cards]:
        text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
        for link in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{named(page)}: no {link}"


def test_every_guide_and_concept_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    missing = [
        page.name for kind in ("guides", "concepts") for page in (ROOT / "docs" / kind).glob("*.md")
        if f"({kind}/{page.name})" not in index
    ]
    assert not missing


def test_make_demo_is_the_command_that_the_issue_and_the_readme_promise() -> None:
    said = subprocess.run(["make", "--dry-run", "demo"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "posttrain compare examples/support_triage --minutes 10" in said


def test_a_package_mirror_of_pip_is_used_by_uv_too() -> None:
    def said(**variables: str) -> str:
        command = ["make", "--dry-run", "--always-make", "install"]
        given = {name: value for name, value in os.environ.items() if name not in ("UV_DEFAULT_INDEX", "PIP_INDEX_URL")}
        return subprocess.run(command, cwd=ROOT, env=given | variables, capture_output=True, text=True, check=True).stdout

    assert said(PIP_INDEX_URL="http://mirror/simple").count("UV_DEFAULT_INDEX=http://mirror/simple .venv/bin/uv") == 2
    assert "UV_DEFAULT_INDEX=http://mirror" not in said()


def test_a_card_names_the_hash_of_its_task() -> None:
    for card in [path.parent / "README.md" for path in ROOT.glob("examples/*/task.toml")]:
        task = tasks.load(card.parent)
        assert task.hash in card.read_text(encoding="utf-8"), f"{named(card)}: the hash is {task.hash}"


def test_every_technique_and_grader_is_explained() -> None:
    pages = {
        "techniques": ROOT / "docs" / "concepts" / "candidates_and_techniques.md",
        "graders": ROOT / "docs" / "guides" / "your_own_data.md",
        "exports": ROOT / "docs" / "guides" / "exporting.md",
    }
    for package, page in pages.items():
        text = page.read_text(encoding="utf-8")
        for file in (ROOT / "posttrain" / package).glob("[!_]*.py"):
            assert f"`{file.stem}`" in text, f"{named(page)} does not say what {package}/{file.name} does"
