"""What doctor found in a pool as one HTML file: counts, each finding with its cases, and what the other checks say."""

from pathlib import Path

from kdprompt.diagnose import Diagnosis
from kdprompt.report.page import write_template

__all__ = ["write_diagnosis"]

SHOWN = 5  # cases that are open; the others unfold
MOST = 500  # cases of a finding on the page


def write_diagnosis(diagnosis: Diagnosis, path: Path, about: dict[str, object] | None = None) -> None:
    """Writes the page. Texts of the pool are escaped; the page loads nothing and runs nothing.

    Args:
        diagnosis: What was found.
        path: The file; replaced where it exists.
        about: What was looked at, by name: the pool's file, the embedding model.
    """
    severities = [finding.severity for finding in diagnosis.findings]
    counts = {"example": diagnosis.examples, "output": len(diagnosis.outputs)}
    counts |= {severity: severities.count(severity) for severity in ("error", "warning", "note")}
    write_template(
        path,
        "diagnosis",
        title="kdprompt doctor",
        about=about or {},
        counts={name if count == 1 else f"{name}s": count for name, count in counts.items()},
        diagnosis=diagnosis,
        shown=SHOWN,
        most=MOST,
    )
