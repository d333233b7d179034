"""Files are written whole, and nothing stays of a process that is killed; CSV reads back and computes nothing."""

import csv
import io
import os
import signal
import subprocess
import sys

import pytest

from aer_jax.files import atomic as files
from aer_jax.files.atomic import csv_line, replace_bytes, replace_text


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path):
    for text in ("one", "zwei\n"):
        replace_text(tmp_path / "a.json", text)
        assert (tmp_path / "a.json").read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("named", [False, True])
def test_what_fails_leaves_the_old_content_alone(tmp_path, monkeypatch, named):
    """A disk that is full, with and without files that have no name."""
    replace_bytes(tmp_path / "a", b"old")
    if named:
        monkeypatch.setattr(files, "_unnamed", lambda folder: None)
    monkeypatch.setattr(os, "replace", lambda *names: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        replace_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="this system has no files without a name")
def test_a_killed_process_leaves_nothing(tmp_path):
    program = (
        "import os, pathlib, sys\n"
        "from aer_jax.files import atomic as files\n"
        "class Killed(bytes): pass\n"
        "unnamed = files._unnamed\n"
        "def opened(folder):\n"
        "    file = unnamed(folder)\n"
        "    file.write(b'half of it'); file.flush()\n"
        "    os.kill(os.getpid(), 9)\n"
        "files._unnamed = opened\n"
        "files.replace_bytes(pathlib.Path(sys.argv[1]), b'all of it')\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "report.html")])
    assert done.returncode == -signal.SIGKILL and list(tmp_path.iterdir()) == []


HOSTILE = ["=1+1", "+x", "-x", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "-", '=HYPERLINK("http://x","y")']
PLAIN = ["", "a b", 'say "no"', "a,b", "two\nlines", "cr\rcr", "crlf\r\nx", "-1.5", "+3", "-1e-05", "0", "a=b", "-.5"]


@pytest.mark.parametrize("cell", HOSTILE + PLAIN)
def test_csv_reads_back_and_is_no_formula(cell):
    text = "\n".join([csv_line(["file", cell]), csv_line([cell, -0.25])]) + "\n"
    (first, (back, number)) = csv.reader(io.StringIO(text, newline=""))
    expected = f"'{cell}" if cell in HOSTILE else cell
    assert first == ["file", expected] and back == expected and number == "-0.25"
