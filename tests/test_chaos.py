"""Kills at random moments lose nothing (tests/chaos.py says how), two sweeps at once do each run once."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.slow
def test_killed_sweeps_and_two_at_once():
    """Six kills; python tests/chaos.py --kills 25 does more."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "chaos.py"), "--kills", "6"], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["kills"] == 6 and {"fsync", "evaluate", "write_record"} <= report["by"].keys()
    assert report["resumed"] >= 2 and report["sweeps"] >= 1
    assert report["two sweeps at once"] == {"runs": 4, "begun": 4}
