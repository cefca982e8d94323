"""Can a grader be paid without doing its task?  It is given answers that do not do it, and what they earn is compared
with the wanted answers and with chance.  No model is needed."""

from posttrain.evaluation.audit.auditing import Audit, audit
from posttrain.evaluation.audit.verdicts import Verdict, Word

__all__ = ["Audit", "Verdict", "Word", "audit"]
