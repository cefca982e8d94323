"""A name is a file: `find("techniques", "sft")` is the module posttrain/techniques/sft.py.  No registry."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from types import ModuleType

from posttrain.types import UserError


def names(package: str) -> list[str]:
    """The names of the public modules of `posttrain.<package>`, sorted."""
    parent = importlib.import_module(f"posttrain.{package}")
    return sorted(module.name for module in pkgutil.iter_modules(parent.__path__) if not module.name.startswith("_"))


def find(package: str, name: str) -> ModuleType:
    """The module `name` of `posttrain.<package>`.  Raises UserError naming the nearest when there is none."""
    known = names(package)
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1)
        remedy = f"did you mean {nearest[0]!r}? " if nearest else ""
        raise UserError(f"no {package.rstrip('s')} called {name!r}", remedy=f"{remedy}known: {', '.join(known)}")
    return importlib.import_module(f"posttrain.{package}.{name}")
