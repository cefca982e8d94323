"""The documents of a task: Markdown and plain text files in a folder, at any depth."""

from __future__ import annotations

from pathlib import Path

from posttrain.tasks.records import read_text
from posttrain.types import Document, UserError

ENDINGS = (".md", ".txt")


def read_documents(folder: Path) -> tuple[Document, ...]:
    """One document a file, in the order of their ids (paths within the folder).  Raises UserError."""
    if not folder.is_dir():
        raise UserError("no such folder of documents", place=str(folder), remedy="correct `documents` in task.toml")
    documents = []
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    for path in sorted(paths, key=lambda path: path.relative_to(folder).as_posix()):
        if path.suffix.lower() not in ENDINGS:
            raise UserError(
                f"cannot read {path.suffix or 'a file without an ending'} as a document",
                place=str(path),
                remedy="turn it into Markdown or plain text, or move it elsewhere",
            )
        title, text = _parts(path, read_text(path).replace("\r\n", "\n"))
        documents.append(Document(path.relative_to(folder).as_posix(), title, text))
    if not documents:
        raise UserError("no documents in the folder", place=str(folder), remedy="add .md or .txt files")
    return tuple(documents)


def _parts(path: Path, text: str) -> tuple[str, str]:
    """(title, text): the first heading of Markdown and what follows it, else the name of the file and all of it."""
    first, _, rest = text.strip().partition("\n")
    return (first.lstrip("#").strip(), rest.strip()) if first.startswith("#") else (path.stem, text.strip())
