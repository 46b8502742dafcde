"""The README's Python runs as it stands."""

import re
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("block", range(len(BLOCKS)))
def test_python_blocks_run(block, embedder, capsys):
    exec(compile(BLOCKS[block], f"README.md block {block}", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_ten_lines_show_the_demonstrations(embedder, capsys):
    exec(compile(BLOCKS[0], "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert printed.count("Output:") == 5 and "CERTIFICATE" in printed and "REGULARISER" in printed


def test_the_test_command_stands_between_its_marks():
    text = README.read_text(encoding="utf-8")
    command = text.split("<!-- tests -->")[1].split("<!-- /tests -->")[0]
    assert "pytest" in command and "constraints.txt" in command
