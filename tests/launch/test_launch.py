"""Launch scripts: linted, and run against stand-ins for gcloud, Slurm and a GPU host that write down what was asked."""

import json
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

from aer_jax.config import load_config

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "launch"
SETTINGS = ("--config", "configs/combined.yaml", "seed=1")


def test_shellcheck():
    scripts = sorted(LAUNCH.glob("*.sh"))
    assert len(scripts) >= 7
    checked = subprocess.run(["shellcheck", "-x", *scripts], capture_output=True, text=True, cwd=ROOT)
    assert checked.returncode == 0, checked.stdout


class Machine:
    """A PATH of stand-ins, and the calls that they got."""

    def __init__(self, path: Path):
        self.path, self.log = path, path / "calls"
        (path / "bin").mkdir()

    def add(self, name: str, script: str = ":") -> None:
        """A command that writes down its arguments, then runs `script`."""
        file = self.path / "bin" / name
        file.write_text(f'#!/usr/bin/env bash\ncd {self.path}\necho "{name} $*" >>calls\n{script}\n')
        file.chmod(0o755)

    def run(self, script: str, *args: str, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess:
        path = f"{self.path / 'bin'}:/usr/bin:/bin"
        environment = {"PATH": path, "HOME": str(self.path), **variables}
        self.log.write_text("")
        command = ["bash", str(LAUNCH / script), *args]
        return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=10)

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


# ---- TPU pod ----

# States of the request, one a line, lie in `states`; what becomes of each start of the run, in `ends`. A request or its
# removal takes the next line of `states`.
GCLOUD = """
next() { sed -i 1d "$1"; }
case $* in
*"queued-resources list"*) head -n 1 states ;;
*"queued-resources create"* | *"queued-resources delete"*) next states ;;
*"systemctl show"*)
    head -n 1 ends | tr ' ' '\\n'
    echo 'train: 7/9'
    if [[ $(head -n 1 ends) == *running* ]]; then next ends; fi
    ;;
*"systemctl stop"*) next ends ;;
*"tpu-vm ssh"*"aer_jax/launch/tpu_worker.sh"*) [[ ! -e unreachable ]] || { rm unreachable; next states; exit 1; } ;;
esac
"""
GOING, OVER = "SubState=running ExecMainCode=0 ExecMainStatus=0", "SubState=exited ExecMainCode=1 ExecMainStatus=0"
STOPPED, REFUSED, KILLED = (
    "SubState=failed ExecMainCode=1 ExecMainStatus=75",
    "SubState=failed ExecMainCode=1 ExecMainStatus=2",
    "SubState=failed ExecMainCode=2 ExecMainStatus=9",
)


@pytest.fixture
def pod(machine):
    machine.add("gcloud", GCLOUD)

    def run(states, ends, **variables):
        (machine.path / "states").write_text("".join(f"{state}\n" for state in states))
        (machine.path / "ends").write_text("".join(f"{end}\n" for end in ends))
        given = {"ZONE": "z", "TPU": "aer", "SHARE": "10.0.0.2:/aer", "POLL": "0", **variables}
        return machine.run("tpu_pod.sh", *SETTINGS, "out=/mnt/aer_jax/runs/a b", **given)

    def verbs():
        """What was done, without the looking."""
        known = ("create", "delete", "tpu_worker.sh", "systemctl stop")
        return [verb for call in machine.calls for verb in known if verb in call]

    run.machine, run.verbs = machine, verbs
    return run


def test_pod_from_nothing_to_the_end(pod):
    done = pod(["", "ACTIVE", ""], [GOING, GOING, OVER])
    assert done.returncode == 0, done.stderr
    assert pod.verbs() == ["create", "tpu_worker.sh", "delete"]
    create = next(call for call in pod.machine.calls if "create" in call)
    for part in ("aer --node-id=aer", "v5litepod-16", "v2-alpha-tpuv5-lite", "--zone=z", "--spot"):
        assert part in create
    start = next(call for call in pod.machine.calls if "tpu_worker.sh" in call)
    assert "--worker=all" in start
    assert r"tpu_worker.sh 10.0.0.2:/aer --config configs/combined.yaml seed=1 out=/mnt/aer_jax/runs/a\ b" in start


def test_pod_uses_what_is_there(pod):
    done = pod(["ACTIVE"], [OVER], KEEP="1")
    assert done.returncode == 0 and pod.verbs() == ["tpu_worker.sh"]


def test_pod_goes_on_after_preemption(pod):
    (pod.machine.path / "unreachable").touch()
    done = pod(["ACTIVE", "SUSPENDED", "", "ACTIVE", ""], [OVER], SPOT="0", PROJECT="p")
    assert done.returncode == 0, done.stderr
    assert pod.verbs() == ["tpu_worker.sh", "delete", "create", "tpu_worker.sh", "delete"]
    create = next(call for call in pod.machine.calls if "create" in call)
    assert "--project=p" in create and "--spot" not in create


@pytest.mark.parametrize("end", [STOPPED, KILLED])
def test_pod_starts_a_stopped_run_again(pod, end):
    done = pod(["ACTIVE", ""], [GOING, end, OVER])
    assert done.returncode == 0, done.stderr
    assert pod.verbs() == ["tpu_worker.sh", "systemctl stop", "tpu_worker.sh", "delete"]


def test_pod_gives_up_on_wrong_use(pod):
    done = pod(["ACTIVE"], [REFUSED])
    assert done.returncode == 2 and "train: 7/9" in done.stderr and pod.verbs() == ["tpu_worker.sh"]


@pytest.mark.parametrize("missing", ["ZONE", "TPU", "SHARE"])
def test_pod_names_what_is_missing(pod, missing):
    done = pod([""], [], **{missing: ""})
    assert done.returncode and f"set {missing}" in done.stderr and not pod.machine.calls


def test_pod_refuses_a_run_that_would_be_lost(pod):
    done = pod.machine.run("tpu_pod.sh", *SETTINGS, "out=runs/one", ZONE="z", TPU="a", SHARE="s:/e")
    assert done.returncode == 2 and "out=/mnt/aer_jax" in done.stderr and not pod.machine.calls


@pytest.mark.parametrize("running", [True, False])
def test_worker(machine, running):
    """Mounted and installed once; a run that is going is left alone."""
    checkout = machine.path / "aer_jax"
    (checkout / "launch").mkdir(parents=True)
    shutil.copy(LAUNCH / "tpu_worker.sh", checkout / "launch")
    machine.add("systemctl", f"echo {'running' if running else 'dead'}")
    machine.add("mountpoint", "exit 1")
    for name in ("mount.nfs", "systemd-run", "mount"):
        machine.add(name)
    machine.add("sudo", '"$@"')
    machine.add("mkdir")
    (machine.path / ".local" / "bin").mkdir(parents=True)
    machine.add("uv")
    (machine.path / "bin" / "uv").rename(machine.path / ".local" / "bin" / "uv")
    environment = {"PATH": f"{machine.path / 'bin'}:/usr/bin:/bin", "HOME": str(machine.path)}
    script = checkout / "launch" / "tpu_worker.sh"
    command = ["bash", str(script), "s:/e", "out=/mnt/aer_jax/a b"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    calls = machine.calls
    if running:
        assert calls == ["systemctl show aer_jax --property=SubState --value"]
        return
    assert "mount -t nfs s:/e /mnt/aer_jax" in calls
    assert any(call.startswith("uv pip install") and ".[tpu]" in call for call in calls)
    assert "--setenv=AER_JAX_DISTRIBUTED=1" in calls[-1]
    assert calls[-1].endswith(f"{checkout}/.venv/bin/aer-jax train --resume out=/mnt/aer_jax/a b")


# ---- Slurm ----


@pytest.mark.parametrize(
    ("status", "restarts", "requeued"),
    [(0, 0, False), (2, 0, False), (1, 0, False), (75, 0, True), (137, 3, True), (75, 100, False)],
)
def test_slurm_queues_again_what_can_go_on(machine, status, restarts, requeued):
    machine.add("srun", f"exit {status}")
    machine.add("scontrol")
    venv = machine.path / "venv" / "bin"
    venv.mkdir(parents=True)
    (venv / "aer-jax").touch(mode=0o755)
    variables = {"SLURM_SUBMIT_DIR": str(ROOT), "SLURM_JOB_ID": "17", "SLURM_RESTART_COUNT": str(restarts)}
    done = machine.run("slurm.sh", *SETTINGS, VENV=str(venv.parent), **variables)
    assert done.returncode == status
    assert machine.calls[0].endswith(f"{venv}/aer-jax train --resume --config configs/combined.yaml seed=1")
    assert machine.calls[1:] == (["scontrol requeue 17"] if requeued else [])


def test_slurm_header():
    """Slurm reads options only before the first command; one process must go to each GPU."""
    lines = (LAUNCH / "slurm.sh").read_text().splitlines()
    first_command = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    options = dict(line[len("#SBATCH --") :].partition("=")[::2] for line in lines if line.startswith("#SBATCH"))
    assert sum(line.startswith("#SBATCH") for line in lines[:first_command]) == len(options) == 10
    assert options["ntasks-per-node"] == options["gpus-per-node"]
    assert options["signal"] == "TERM@300" and "requeue" in options


def test_slurm_without_an_environment(machine):
    done = machine.run("slurm.sh", *SETTINGS, VENV="/nowhere", SLURM_SUBMIT_DIR=str(ROOT))
    assert done.returncode == 2 and "/nowhere" in done.stderr and not machine.calls


# ---- one GPU host ----


def test_gpu_host(machine):
    machine.add("nvidia-smi")
    machine.add("aer-jax")
    machine.add("python")
    machine.add("python3")
    shutil.copy(ROOT / "pyproject.toml", machine.path / "aer_jax-cuda.stamp")  # installed already
    done = machine.run("gpu.sh", *SETTINGS, VIRTUAL_ENV=str(machine.path))
    assert done.returncode == 0, done.stderr
    assert machine.calls[-1] == "aer-jax train --resume --config configs/combined.yaml seed=1"


def test_gpu_host_without_a_gpu(machine):
    machine.add("nvidia-smi", "exit 9")
    done = machine.run("gpu.sh", *SETTINGS)
    assert done.returncode == 2 and "finds no GPU" in done.stderr


# ---- Kubernetes ----


def manifest():
    return {document["kind"]: document for document in yaml.safe_load_all((LAUNCH / "gke.yaml").read_text())}


def test_gke_manifest_fits_the_schema():
    """Every field is one that Kubernetes or JobSet knows: what is unknown there is refused here."""
    schema = json.loads((Path(__file__).parent / "kubernetes.schema.json").read_text())
    for document in manifest().values():
        jsonschema.validate(document, schema)
    for harm in (("spec", "failurePolcy"), ("metadata", "nam")):
        document = manifest()["JobSet"]
        document[harm[0]][harm[1]] = {}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(document, schema)


def test_gke_manifest_agrees_with_itself():
    documents = manifest()
    job = documents["JobSet"]["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    rows, columns = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    chips = job["parallelism"] * container["resources"]["limits"]["google.com/tpu"]
    assert job["parallelism"] == job["completions"] and rows * columns == chips
    claim = pod["volumes"][0]["persistentVolumeClaim"]["claimName"]
    assert claim == documents["PersistentVolumeClaim"]["metadata"]["name"]
    mounted = container["volumeMounts"][0]
    assert mounted["name"] == pod["volumes"][0]["name"]
    on_exit = job["podFailurePolicy"]["rules"][0]["onExitCodes"]
    assert on_exit["containerName"] == container["name"]
    config, *settings = container["args"]
    resolved = load_config(ROOT / config.removeprefix("--config="), settings)
    for place in (resolved.data.dataset, resolved.labels.journal, resolved.model.checkpoint, resolved.out):
        assert place.startswith(mounted["mountPath"] + "/")


def test_dockerfile_copies_what_is_there():
    lines = [line.split() for line in (LAUNCH / "Dockerfile").read_text().splitlines()]
    copied = [name for word, *names in filter(None, lines) if word == "COPY" for name in names[:-1]]
    assert "pyproject.toml" in copied and all((ROOT / name).exists() for name in copied)
