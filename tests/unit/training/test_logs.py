"""A script's log holds what it said and what it died of; stderr has one line."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import logging, sys, types, warnings
from gemstones import logs
from gemstones.errors import UserError
logs.start(types.SimpleNamespace(log=[sys.argv[1]]))
logging.getLogger("gemstones.x").info("working")
warnings.warn("beware")
{end}
"""


@pytest.mark.parametrize(
    ("end", "stderr", "traceback"),
    [
        ("raise UserError('a.yaml: wrong')", "error: a.yaml: wrong\n", False),
        ("1 / 0", "error: ZeroDivisionError: division by zero (see {log})\n", True),
    ],
)
def test_what_a_script_dies_of(tmp_path: Path, end: str, stderr: str, traceback: bool) -> None:
    log = tmp_path / "logs" / "rule.log"
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(end=end), str(log)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stderr == stderr.format(log=log)
    content = log.read_text()
    assert "INFO working" in content
    assert "beware" in content
    assert ("Traceback" in content) is traceback
    assert ("a.yaml: wrong" in content) is not traceback
