"""The certifiers: sound lower bounds on margins, and what to do where there are none.

`lirpa*.py` are the only files that know auto_LiRPA; importing this package does not import it.
"""

from corobench.benchmark.certify.bab.budget import Ascent, BranchBudget, BranchResult
from corobench.benchmark.certify.hidden_units import num_hidden_units
from corobench.benchmark.certify.lirpa.bounded import BoundedModel
from corobench.benchmark.certify.lirpa.compat import lirpa_version
from corobench.benchmark.certify.lirpa.graph_rules import BRANCHING, CERTIFIERS
from corobench.benchmark.certify.prover import TOO_COSTLY, Proven, Prover
from corobench.benchmark.certify.refusals import CertifierUnavailable
from corobench.benchmark.certify.training import TrainingBounds
from corobench.benchmark.errors import NotCertifiable
from corobench.benchmark.network.prepare import prepare

__all__ = [
    "BRANCHING",
    "CERTIFIERS",
    "TOO_COSTLY",
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
