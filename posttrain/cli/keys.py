"""keys: who may ask and teach the models of the service."""

from __future__ import annotations

import datetime
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from posttrain import api
from posttrain.api.engines import DATABASE
from posttrain.api.keys import Action, ApiKey
from posttrain.api.serving import DATA
from posttrain.cli import documents, show
from posttrain.cli.options import Json


def add(app: typer.Typer) -> None:
    app.command("keys")(keys)


def keys(
    action: Annotated[Action, typer.Argument(help="create, list or revoke.")],
    name: Annotated[str, typer.Argument(help="What to call the key; to revoke one, its id.")] = "",
    organisation: Annotated[str, typer.Option(help="Whose files, jobs and models it sees.")] = "local",
    scopes: Annotated[str, typer.Option(help="What it may do: ask, teach.")] = "ask,teach",
    days: Annotated[float | None, typer.Option(help="How long it is good for; default: until revoked.", min=0)] = None,
    data: Annotated[Path, typer.Option(help="Folder of the service.")] = DATA,
    database: Annotated[str, typer.Option(help="URL of its database.", envvar=DATABASE)] = "",
    as_json: Json = False,
) -> None:
    """Make, list and revoke API keys of the service.  From the first one on, every request needs a key.

    Example: posttrain keys create laptop --organisation acme --days 90
    """
    found = api.keys(
        action,
        name,
        organisation=organisation,
        scopes=[scope.strip() for scope in scopes.split(",") if scope.strip()],
        days=days,
        data=data,
        database=database,
    )
    if as_json:
        documents.print_document({"keys": [asdict(key) for key in found]})
    elif action == "create":
        show.errors.print(f"a key for {found[0].organisation}, which is told only now:", markup=False)
        show.console.print(found[0].secret, markup=False, soft_wrap=True)
    else:
        show.console.print(_table(found) if found else "no keys: everybody on this machine may ask and teach")


def _table(found: list[ApiKey]) -> Table:
    table = Table("id", "name", "organisation", "may", "expires")
    for key in found:
        expires = datetime.datetime.fromtimestamp(key.expires_at).isoformat(" ", "minutes") if key.expires_at else "–"
        table.add_row(key.id, key.name, key.organisation, ", ".join(key.scopes), expires)
    return table
