"""``tools/damage.py``, on few cases of each kind; CONTRIBUTING says how many a release is tried with."""

import os
import random

import pytest

import damage


@pytest.mark.skipif(not hasattr(os, "fork"), reason="writers are forked")
def test_nothing_is_taken_for_good_that_is_damaged(capsys):
    counts = ["--flips", "24", "--truncations", "8", "--hostile", "40", "--settings", "16", "--kills", "6"]
    assert damage.main(counts) == 0, capsys.readouterr().out
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 7 and all("0 silent, 0 foreign, 0 lost" in row for row in rows)
    assert "24 refused" in rows[0] and "8 refused" in rows[2]


def test_silent_and_foreign_cases_are_noticed():
    assert damage.judge(lambda: False) == "silent" and damage.judge(lambda: True) == "harmless"
    assert damage.judge(lambda: 1 / 0) == "foreign"
    assert sum(a != b for a, b in zip(damage.flip(bytes(9), random.Random(0)), bytes(9), strict=True)) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="writers are forked")
def test_a_file_that_is_written_in_place_is_lost(tmp_path):
    path = tmp_path / "file"

    def write(text):
        def in_place():
            with path.open("w") as file:
                for line in text:
                    file.write(line)
                    file.flush()

        return in_place

    assert "lost" in {damage.judge_kill(path, [write("a" * 4000), write("b" * 4000)], 0.01) for _ in range(20)}
