"""protobuf has no wheel with its C backend for armv7 and riscv64: the same tests on its other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.internal import api_implementation

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
VARIABLE = "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"


@pytest.mark.system
@pytest.mark.skipif(
    api_implementation.Type() == "python", reason="this is protobuf's pure-Python backend already"
)
def test_wire_and_session_tests_pass_with_protobufs_pure_python_backend() -> None:
    environment = os.environ | {VARIABLE: "python"}
    command = [sys.executable, "-c"]
    asked = "from google.protobuf.internal import api_implementation as a; print(a.Type())"
    backend = subprocess.run(
        [*command, asked], env=environment, capture_output=True, text=True, check=True
    )
    assert backend.stdout.strip() == "python"
    options = ("-q", "-p", "no:cacheprovider", "--hypothesis-profile=again")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "tests/wire", "tests/nri"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
