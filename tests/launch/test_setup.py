"""launch/setup.sh: a first try that failed is not taken for a finished one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SETUP = Path(__file__).resolve().parents[2] / "launch" / "setup.sh"


@pytest.fixture
def project(tmp_path):
    """A folder with setup.sh and a caller that, unlike the launch scripts, does not stop at errors by itself."""
    (tmp_path / "launch").mkdir()
    shutil.copy(SETUP, tmp_path / "launch" / "setup.sh")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "nothing"\nversion = "1"\n')
    (tmp_path / "call.sh").write_text('cd "$(dirname "$0")"\nsource launch/setup.sh test\necho "went on"\n')
    return tmp_path


def call(project: Path, **variables: str) -> subprocess.CompletedProcess:
    environment = {"PATH": os.environ["PATH"], "HOME": str(project), "PYTHON": sys.executable, "PIP_NO_INDEX": "1"}
    command = ["bash", str(project / "call.sh")]
    return subprocess.run(command, env=environment | variables, capture_output=True, text=True, timeout=120)


def test_failed_installation_is_tried_again(project):
    stand_in = project / "environment" / "bin" / "python"
    stand_in.parent.mkdir(parents=True)
    stand_in.write_text('#!/usr/bin/env bash\necho "$*" >>"$HOME/calls"\ncase "$*" in *install*) exit "$PIP";; esac\n')
    stand_in.chmod(0o755)
    venv = stand_in.parents[1]
    variables = {"VIRTUAL_ENV": str(venv), "PATH": f"{stand_in.parent}:{os.environ['PATH']}"}

    failed = call(project, PIP="1", **variables)
    assert failed.returncode == 1
    assert "went on" not in failed.stdout
    assert "the same command goes on" in failed.stderr
    assert not list(venv.glob("*.stamp*"))

    assert "went on" in call(project, PIP="0", **variables).stdout
    calls = (project / "calls").read_text()
    assert "went on" in call(project, PIP="1", **variables).stdout, "nothing is left to install"
    assert (project / "calls").read_text() == calls
    (project / "pyproject.toml").write_text('[project]\nname = "nothing"\nversion = "2"\n')
    assert call(project, PIP="1", **variables).returncode == 1, "other requirements are installed again"
    assert "went on" in call(project, PIP="0", **variables).stdout


@pytest.mark.parametrize("left", ["no pip", "dangling link"])
def test_half_made_environment_is_completed(project, left):
    venv = project / ".venv"
    if left == "no pip":
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    else:
        (venv / "bin").mkdir(parents=True)
        (venv / "bin" / "python").symlink_to(project / "removed")
    assert call(project).returncode == 1, "nothing can be installed here"
    subprocess.run([venv / "bin" / "python", "-m", "pip", "--version"], check=True, capture_output=True)


def test_environment_that_was_removed(project):
    gone = call(project, VIRTUAL_ENV=str(project / "gone"))
    assert gone.returncode == 2
    assert "deactivate" in gone.stderr
