"""A name is a file."""

from __future__ import annotations

from pathlib import Path

import pytest

import posttrain
from posttrain.discovery import find, names
from posttrain.types import UserError

PACKAGES = ["techniques", "graders", "candidates", "exports", "engines"]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_file_is_a_name_and_can_be_found(package: str) -> None:
    folder = Path(posttrain.__file__).parent / package
    files = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    assert names(package) == sorted(name for name in files if not name.startswith("_"))
    for name in names(package):
        assert find(package, name).__name__ == f"posttrain.{package}.{name}"


def test_a_new_file_is_a_new_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "magic.py").write_text("KIND = 'prompt'\n")
    (tmp_path / "_hidden.py").write_text("")
    import posttrain.techniques as package  # noqa: PLC0415

    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    assert "magic" in names("techniques") and "_hidden" not in names("techniques")
    assert find("techniques", "magic").KIND == "prompt"


@pytest.mark.parametrize(("wrong", "meant"), [("sfft", "sft"), ("few-shot", "few_shot"), ("gpro", "grpo")])
def test_a_typo_is_told_what_was_meant(wrong: str, meant: str) -> None:
    with pytest.raises(UserError, match=f"did you mean '{meant}'") as caught:
        find("techniques", wrong)
    assert f"no technique called '{wrong}'" in str(caught.value)


@pytest.mark.parametrize("name", ["", "_chain", "sft.py", "../runs", "zzzzz", "sft.teach"])
def test_what_is_no_name_is_refused_with_all_that_are(name: str) -> None:
    with pytest.raises(UserError, match=r"known: base, best_of, .*sft"):
        find("techniques", name)
