"""What a certifier says instead of a bound."""

from __future__ import annotations

from corobench.benchmark.errors import DependencyError


class CertifierUnavailable(DependencyError):  # noqa: N818 - named after what the user sees
    """The bound library is missing, or does not work with the installed torch.

    Args:
        reason: what was found, without a final full stop.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"Certification is not available: {reason}.\n"
            "Expected auto_LiRPA 0.3 or 0.7.x with torch 2.4 to 2.14. To fix it:\n  pip install "
            "--no-deps auto_LiRPA==0.3\n"
            "(--no-deps, because its metadata asks for a torch below 1.13; it also needs "
            "packaging, appdirs, pyyaml, ninja and tqdm)."
        )
        self.reason = reason
