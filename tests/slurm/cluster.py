"""A private Slurm on this machine that looks like OLCF Frontier, from Debian's packages: for tests, as root.

    python -m tests.slurm.cluster start      # 15-60 s the first time, 5 s afterwards
    python -m tests.slurm.cluster stop

It has a database of accounts and jobs, the partitions `batch` (2 h, whole nodes) and `extended` (24 h, one running job a user), the
QOS `debug` (one job), at most 100 jobs a user of whom 4 gain priority, the account `abc123`, and four nodes of 8 GPUs, which
are null devices, with the feature `nvme`. Everything listens on 127.0.0.1 only. The configuration has to be /etc/slurm/slurm.conf, since the
executor of jobs within jobs drops SLURM_CONF; where another cluster's stands there, nothing is started.
"""

import argparse
import fcntl
import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from string import Template

from tests.debian import Unavailable, install

ROOT = Path("/var/tmp/fakefrontier")
ETC = Path("/etc/slurm")
ACCOUNT = "abc123"
NODES = [f"frontier{number:05d}" for number in range(1, 5)]
PACKAGES = ["slurmctld", "slurmd", "slurm-client", "munge", "slurmdbd", "mariadb-server"]
TEMPLATES = Path(__file__).parent
OURS = "tests/slurm/cluster.py"
CONFIGURATION = ("slurm.conf", "slurmdbd.conf", "gres.conf")
# Notes of what is to be stopped again.
MUNGE = ROOT / "started-munge"
NOTE = ROOT / "started-by-tests"


def start(until_tests_end: bool = False) -> None:
    """Start what is not running, and wait until all nodes are idle.

    Parameters
    ----------
    until_tests_end : leave a note for :func:`stop_after_tests`, unless it is running already.

    Raises
    ------
    Unavailable
        If there can be no such cluster here.
    """
    if os.geteuid():
        raise Unavailable("a private Slurm needs root")
    for name in CONFIGURATION:
        if (ETC / name).exists() and OURS not in (ETC / name).read_text():
            raise Unavailable(f"{ETC / name} belongs to another cluster")
    for folder in ("state", "spool", "pid", "log", "dev", "mariadb"):
        (ROOT / folder).mkdir(parents=True, exist_ok=True)
    with _alone():
        try:
            if until_tests_end and _alive(ROOT / "pid/slurmctld.pid") is None:
                NOTE.touch()
            install(PACKAGES, ["slurmctld", "slurmdbd", "mariadbd", "munged"])
            _start_munge()
            _start_database()
            _configure()
            _start_daemons()
        except subprocess.CalledProcessError as error:
            said = (error.stderr or error.stdout or "").strip().splitlines()
            raise Unavailable(f"{' '.join(map(str, error.cmd))}: {said[-1] if said else error}") from None
        except OSError as error:
            raise Unavailable(f"{error.filename or 'the system'}: {error.strerror}") from None
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"{' '.join(error.cmd)}: took more than {error.timeout:.0f} seconds") from None


def stop() -> None:
    """Stop all of it, jobs first; what the database and the logs hold stays."""
    if not ROOT.exists():
        return
    with suppress(OSError, subprocess.SubprocessError):
        subprocess.run(["scancel", "--user", "root"], capture_output=True, timeout=10)
        time.sleep(0.5)
    daemons = [ROOT / f"pid/slurmd.{node}.pid" for node in NODES]
    daemons += [ROOT / "pid/slurmctld.pid", ROOT / "pid/slurmdbd.pid", ROOT / "mariadb/mariadb.pid"]
    for path in daemons:
        if (pid := _alive(path)) is not None:
            os.kill(pid, signal.SIGTERM)
            if not _wait(10, partial(_gone, path)):
                os.kill(pid, signal.SIGKILL)
    # Processes whose parents have ended are out of Slurm's sight here; the cluster's name in their environment tells them.
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if b"SLURM_CLUSTER_NAME=fakefrontier" in environment.read_bytes().split(b"\0"):
                os.kill(int(environment.parent.name), signal.SIGKILL)
    for name in CONFIGURATION:
        (ETC / name).unlink(missing_ok=True)
    if MUNGE.exists() and (pid := _alive(Path("/run/munge/munged.pid"))) is not None:
        MUNGE.unlink()
        os.kill(pid, signal.SIGTERM)


def stop_after_tests() -> None:
    if NOTE.exists():
        NOTE.unlink()
        stop()


def _start_munge() -> None:
    if not Path("/etc/munge/munge.key").exists():
        _run("runuser", "-u", "munge", "--", "mungekey", "--create", "--keyfile", "/etc/munge/munge.key")
    Path("/run/munge").mkdir(exist_ok=True)
    Path("/run/munge").chmod(0o755)
    shutil.chown("/run/munge", "munge", "munge")
    if not _works("munge", "-n"):
        _run("runuser", "-u", "munge", "--", "/usr/sbin/munged")
        MUNGE.touch()
    _await(10, "munge", "-n")


def _start_database() -> None:
    if not (ROOT / "db/mysql").exists():
        (ROOT / "db").mkdir(exist_ok=True)
        shutil.chown(ROOT / "db", "mysql", "mysql")
        options = ["--skip-test-db", "--auth-root-authentication-method=normal"]
        _run("mariadb-install-db", "--no-defaults", "--user=mysql", f"--datadir={ROOT / 'db'}", *options)
    shutil.chown(ROOT / "mariadb", "mysql", "mysql")
    _write("mariadb.cnf", ROOT / "mariadb.cnf")
    client = ["mariadb", "--no-defaults", "--socket", str(ROOT / "mariadb/mariadb.sock"), "--user", "root", "--execute"]
    if not _works(*client, "select 1"):
        _daemon("mariadbd", f"--defaults-file={ROOT / 'mariadb.cnf'}")
    _await(30, *client, "select 1")
    users = [f"slurm@'{host}'" for host in ("127.0.0.1", "localhost")]
    statements = ["create database if not exists slurm_acct_db"]
    statements += [f"create user if not exists {user} identified by 'slurm'" for user in users]
    statements += [f"grant all on slurm_acct_db.* to {user}" for user in users]
    _run(*client, ";".join(statements))


def _configure() -> None:
    host = socket.gethostname().split(".")[0]
    hosts = Path("/etc/hosts")
    known = hosts.read_text().split()
    missing = [name for name in (host, *NODES) if name not in known]
    if missing:
        with hosts.open("a") as file:
            file.write(f"127.0.0.1 {' '.join(missing)}\n")
    for number in range(8):
        device = ROOT / f"dev/gpu{number}"
        if not device.exists():
            os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    ETC.mkdir(exist_ok=True)
    first, last = (name.removeprefix("frontier") for name in (NODES[0], NODES[-1]))
    names, ports = f"frontier[{first}-{last}]", f"[17001-{17000 + len(NODES)}]"
    _write("slurm.conf", ETC / "slurm.conf", host=host, nodes=names, ports=ports)
    _write("slurmdbd.conf", ETC / "slurmdbd.conf")
    (ETC / "slurmdbd.conf").chmod(0o600)
    (ETC / "gres.conf").write_text(f"# {OURS}\nNodeName={names} Name=gpu File={ROOT}/dev/gpu[0-7]\n")


def _start_daemons() -> None:
    if _alive(ROOT / "pid/slurmdbd.pid") is None:
        _daemon("slurmdbd")
    _await(30, "sacctmgr", "--noheader", "list", "cluster")
    if ACCOUNT not in _run("sacctmgr", "--noheader", "list", "account", "format=account"):
        for words in (
            "add cluster fakefrontier",
            f"add account {ACCOUNT} cluster=fakefrontier description=fake organization=fake",
            f"add user root account={ACCOUNT} cluster=fakefrontier defaultaccount={ACCOUNT}",
            "add qos debug",
            "add qos extended",
            "modify qos normal set maxjobsaccrueperuser=4 maxsubmitjobsperuser=100",
            "modify qos debug set maxsubmitjobsperuser=1 maxwall=02:00:00",
            "modify qos extended set maxjobsperuser=1 maxjobsaccrueperuser=1",
            f"modify account {ACCOUNT} set qos+=debug",
        ):
            subprocess.run(["sacctmgr", "--immediate", "--quiet", *words.split()], capture_output=True, timeout=60)
    if _alive(ROOT / "pid/slurmctld.pid") is None:
        _daemon("slurmctld")
    _await(30, "scontrol", "ping")
    for node in NODES:
        (ROOT / "spool" / node).mkdir(exist_ok=True)
        if _alive(ROOT / f"pid/slurmd.{node}.pid") is None:
            _daemon("slurmd", "-N", node)

    def idle() -> bool:
        states = _run("sinfo", "--noheader", "--Node", "--partition", "batch", "--format", "%T").split()
        return len(states) == len(NODES) and not any("*" in state or state in ("unknown", "down") for state in states)

    if not _wait(60, idle):
        raise Unavailable(f"nodes are not idle: {_run('sinfo', '--Node', '--long')}")
    # Also that a job gets through.
    _run("srun", "--account", ACCOUNT, "--nodes", "1", "--time", "1", "true", timeout=60)


@contextmanager
def _alone() -> Iterator[None]:
    with (ROOT / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write(template: str, path: Path, **values: str) -> None:
    # Slurm's own %n and the like stay; what is not known is a mistake here.
    path.write_text(Template((TEMPLATES / template).read_text()).substitute(values, root=ROOT))


def _run(*command: str, timeout: float = 60, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=timeout, env=env)
    return done.stdout


def _works(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=10).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _await(seconds: float, *command: str) -> None:
    if not _wait(seconds, lambda: _works(*command)):
        raise Unavailable(f"no answer within {seconds} seconds: {' '.join(command)}")


def _wait(seconds: float, done: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def _daemon(*command: str) -> None:
    with (ROOT / "log" / f"{'-'.join(command[:1] + command[2:])}.out".replace("/", "_")).open("w") as output:
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
    time.sleep(0.2)


def _gone(path: Path) -> bool:
    return _alive(path) is None


def _alive(path: Path) -> int | None:
    """The process of a pid file; files outlive their processes, whose numbers others get."""
    try:
        pid = int(path.read_text())
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except (OSError, ValueError):
        return None
    return pid if name.startswith(("slurm", "mariadb", "munged")) else None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["start", "stop"])
    action = parser.parse_args(arguments).action
    try:
        start() if action == "start" else stop()
    except Unavailable as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
