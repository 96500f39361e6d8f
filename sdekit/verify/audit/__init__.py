"""Audit of a trained network without the true score: where in time, and in what, it is wrong.

from sdekit.verify import check_model
audit = check_model(model, held_out)
print(audit)
audit.plot().savefig("audit.png")
"""

from sdekit.verify.audit.front import Audit, check_model, picture
from sdekit.verify.audit.intervals import Curve, Point
from sdekit.verify.audit.recognition import Reading, Recognition, recognise
from sdekit.verify.audit.subject import Audited
from sdekit.verify.audit.tolerances import REASONS, TOLERANCES

__all__ = [
    "REASONS",
    "TOLERANCES",
    "Audit",
    "Audited",
    "Curve",
    "Point",
    "Reading",
    "Recognition",
    "check_model",
    "picture",
    "recognise",
]
