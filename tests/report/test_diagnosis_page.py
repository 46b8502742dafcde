"""The page of a diagnosis: every finding with its cases, in text that is escaped, loading and running nothing."""

import pytest

from kdprompt.diagnose import Diagnosis, Finding, Instance
from kdprompt.report import write_diagnosis

HOSTILE = "<script>alert(1)</script>"


def diagnosis_of(cases):
    instances = tuple(
        Instance(ids=(f"id {i}",), text=f"{HOSTILE} {i}", other="other", detail=f"case {i}", score=0.5)
        for i in range(cases)
    )
    finding = Finding(check="conflicts", severity="error", summary=HOSTILE, remedy="decide", instances=instances)
    return Diagnosis(
        examples=1234, outputs=(("", HOSTILE, 3),), findings=(finding,), said={"mixed-tasks": "no mixture"}
    )


@pytest.mark.parametrize("cases", [0, 3, 5, 9])
def test_every_case_stands_on_the_page_and_is_escaped(tmp_path, cases):
    write_diagnosis(diagnosis_of(cases), tmp_path / "page.html", {"pool": HOSTILE})
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script" not in page and page.count("&lt;script&gt;") == cases + 3
    assert all(page.count(f"case {i}<") == 1 for i in range(cases)) and ("<details>" in page) == (cases > 5)
    assert "error: conflicts" in page and "1,234" in page and "no mixture" in page
    assert "http" not in page.replace('http-equiv="', "")


def test_a_clean_pool_has_a_page_too(tmp_path):
    write_diagnosis(Diagnosis(examples=2, outputs=(), findings=(), said={}), tmp_path / "page.html")
    assert "Nothing found." in (tmp_path / "page.html").read_text(encoding="utf-8")
