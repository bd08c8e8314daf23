"""The certifiers: sound lower bounds on margins, and what to do where there are none.

`lirpa*.py` are the only files that know auto_LiRPA; importing this package does not import it.
"""

from benchmark.certify.graph_rules import CERTIFIERS
from benchmark.certify.hidden_units import num_hidden_units
from benchmark.certify.lirpa import BoundedModel, lirpa_version
from benchmark.certify.prepare import prepare
from benchmark.certify.refusals import CertifierUnavailable, NotCertifiable
from benchmark.certify.threshold import ABSOLUTE_MARGIN, RELATIVE_MARGIN, certified
from benchmark.certify.training import TrainingBounds

__all__ = [
    "ABSOLUTE_MARGIN",
    "CERTIFIERS",
    "RELATIVE_MARGIN",
    "BoundedModel",
    "CertifierUnavailable",
    "NotCertifiable",
    "TrainingBounds",
    "certified",
    "lirpa_version",
    "num_hidden_units",
    "prepare",
]
