"""A world for a task, to begin with: what `posttrain init --environment` writes."""

from __future__ import annotations

from pathlib import Path

ENVIRONMENT = '''"""What is said to each answer, and what it earns.  Guide: docs/guides/environments.md"""

TRIES = 3


class Environment:
    """One episode: a wrong answer may be thought over, and what is right at once earns most."""

    def reset(self, row):
        """Begins with a row: row.text is what is asked, row.target what is wanted.  A text that is given back is said
        instead of the row's own messages."""
        self.target = row.target
        self.wrong = 0
        return None

    def step(self, answer):
        """A text goes on, a reward from 0 to 1 ends the episode; (text, reward) does both, rewards add up."""
        if answer.strip() == str(self.target).strip():
            return 1.0 - self.wrong / TRIES
        self.wrong += 1
        return "That is not right. Think again, and answer once more." if self.wrong < TRIES else 0.0
'''

TEST = '''"""Run with: pytest test_environment.py"""

from types import SimpleNamespace

from environment import TRIES, Environment


def begun():
    world = Environment()
    world.reset(SimpleNamespace(id="1", text="what?", target="this", metadata={}, messages=[]))
    return world


def test_what_is_right_at_once_earns_all():
    assert begun().step("this") == 1.0


def test_what_is_right_later_earns_less():
    world = begun()
    assert isinstance(world.step("that"), str)
    assert 0 < world.step("this") < 1


def test_what_is_never_right_earns_nothing():
    world = begun()
    assert [world.step("that") for _ in range(TRIES)][-1] == 0.0
'''

TABLE = """
[environment]
name = "episodes"
turns = 3
"""


def add_world(folder: Path) -> str:
    """Writes environment.py and a test of it, and names it in task.toml; what was done, in words."""
    (folder / "environment.py").write_text(ENVIRONMENT, encoding="utf-8")
    (folder / "test_environment.py").write_text(TEST, encoding="utf-8")
    with (folder / "task.toml").open("a", encoding="utf-8") as file:
        file.write(TABLE)
    return (
        f"environment: {folder / 'environment.py'} lets an answer be thought over; change it (and its test) to your own"
    )
