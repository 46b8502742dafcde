"""Importing kdprompt costs next to nothing beside torch. Run by hand: ``pytest benchmarks/test_import_time.py``."""

import subprocess
import sys


def python(script):
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_importing_takes_little_time_beside_torch():
    timed = (
        "import time, torch\n"
        "start = time.perf_counter()\n"
        "import kdprompt\n"
        "print(time.perf_counter() - start)\n"
        "kdprompt.DistillationSelector\n"
        "print(time.perf_counter() - start)"
    )
    runs = [[float(seconds) for seconds in python(timed)] for _ in range(3)]
    package, selector = (min(column) for column in zip(*runs, strict=True))
    assert package < 0.3, f"import kdprompt took {package:.2f} s"
    assert selector < 1.5, f"kdprompt.DistillationSelector took {selector:.2f} s"
