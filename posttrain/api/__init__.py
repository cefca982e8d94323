"""The Python door: the verbs of the command line, for notebooks and programs.

    import posttrain
    result = posttrain.compare("tickets.csv", minutes=10)
    answers = posttrain.predict("latest", "new.csv")

Here engines are built and joined to tasks.  Inside a running event loop (a notebook) a verb runs in its own thread.
"""

from posttrain.api.auditing import audit
from posttrain.api.comparing import compare, still_wins
from posttrain.api.engines import EMBEDDED
from posttrain.api.keys import keys
from posttrain.api.looking import check, clean, show
from posttrain.api.serving import serve
from posttrain.api.sources import init
from posttrain.api.teaching import Several, evaluate, go_on, teach
from posttrain.api.tool_forms import compare_tools
from posttrain.api.using import chat, export, predict
from posttrain.comparison.money import Prices, StatedCost

__all__ = [
    "EMBEDDED",
    "Prices",
    "Several",
    "StatedCost",
    "audit",
    "chat",
    "check",
    "clean",
    "compare",
    "compare_tools",
    "evaluate",
    "export",
    "go_on",
    "init",
    "keys",
    "predict",
    "serve",
    "show",
    "still_wins",
    "teach",
]
