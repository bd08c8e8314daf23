"""The certifiers: sound lower bounds on margins, and what to do where there are none.

`lirpa*.py` are the only files that know auto_LiRPA; importing this package does not import it.
"""

from benchmark.certify.budget import Ascent, BranchBudget, BranchResult
from benchmark.certify.graph_rules import BRANCHING, CERTIFIERS
from benchmark.certify.hidden_units import num_hidden_units
from benchmark.certify.lirpa import BoundedModel
from benchmark.certify.lirpa_compat import lirpa_version
from benchmark.certify.prepare import prepare
from benchmark.certify.prover import Proven, Prover
from benchmark.certify.refusals import CertifierUnavailable, NotCertifiable
from benchmark.certify.training import TrainingBounds

__all__ = [
    "BRANCHING",
    "CERTIFIERS",
    "Ascent",
    "BoundedModel",
    "BranchBudget",
    "BranchResult",
    "CertifierUnavailable",
    "NotCertifiable",
    "Proven",
    "Prover",
    "TrainingBounds",
    "lirpa_version",
    "num_hidden_units",
    "prepare",
]
