"""Builds the CPU image without Docker, each step of the Dockerfile as it is written, and has it answer a question.

    make image-check            # as root, on a Debian with mmdebstrap; takes minutes and 8 GB

Stages are directories, and steps run in them with their own root. The base image is a Debian of the same release with
its own Python. The server then runs as Kubernetes runs it: as the image's user, without capabilities or the system
calls that container runtimes refuse, and with nothing to write to but its data and /tmp.

    --lend PATH               something of this machine that steps need to reach package indexes, such as pip's
                              configuration
    --before STAGE=COMMAND    a command to run in a stage before its steps, such as one that installs what no index
                              here has
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path

HERE = Path(__file__).parents[1]
DEBIAN = ("ca-certificates", "python3", "python3-dev", "python3-pip", "python3-venv", "python-is-python3")
PASSED_ON = re.compile(r"(PIP|UV|SSL_CERT)_\w+|\w+_CA_BUNDLE|https?_proxy|no_proxy", re.IGNORECASE)
READY_SECONDS, STOP_SECONDS, PORT = 300, 30, 18_080


@dataclass(frozen=True)
class Step:
    """One instruction: its name, and what follows it."""

    name: str
    rest: str

    def words(self) -> list[str]:
        """What follows, as a list: the exec form, or words."""
        return json.loads(self.rest) if self.rest.startswith("[") else shlex.split(self.rest)


@dataclass(frozen=True)
class Stage:
    """What a stage has become.

    Attributes:
        root: its file system.
        env, user, workdir, entrypoint: how commands run in it.
    """

    root: Path
    env: dict[str, str] = field(default_factory=lambda: {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"})
    user: str = "0"
    workdir: str = "/"
    entrypoint: tuple[str, ...] = ()


def parse(text: str) -> dict[str, list[Step]]:
    """The stages of a Dockerfile by name, each with its steps; the first of them is FROM."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    stages: dict[str, list[Step]] = {}
    steps: list[Step] = []
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        name, _, rest = line.partition(" ")
        step = Step(name.upper(), rest.strip())
        if step.name == "FROM":
            steps = stages[step.words()[2]] = []
        steps.append(step)
    return stages


def context() -> list[str]:
    """The files that .dockerignore lets into a build, of those that git knows."""
    names = subprocess.run(["git", "ls-files"], cwd=HERE, capture_output=True, text=True, check=True).stdout.split()
    rules = [line for line in (HERE / ".dockerignore").read_text().split() if not line.startswith("#")]

    def let_in(name: str) -> bool:
        kept = True
        for rule in rules:
            pattern = rule.removeprefix("!").removeprefix("**/")
            parts = Path(name).parts
            found = any(fnmatch(part, pattern) for part in (parts if "**/" in rule else parts[:1]))
            kept = rule.startswith("!") if found else kept
        return kept

    return [name for name in names if let_in(name)]


class Builder:
    """Makes stages from a Dockerfile.

    Args:
        stages: the Dockerfile's.
        work: where they come to be.
        lent: paths of this machine that steps see.
        before: commands of a stage by name, run before its own steps.
    """

    def __init__(self, stages: dict[str, list[Step]], work: Path, lent: list[str], before: dict[str, str]) -> None:
        self._stages, self._work, self._lent, self._before = stages, work, lent, before
        self._built: dict[str, Stage] = {}

    def build(self, name: str) -> Stage:
        """A stage, and those that it needs."""
        if name not in self._built:
            first, *steps = self._stages[name]
            base = first.words()[0]
            print(f"== stage {name}, from {base}", flush=True)
            stage = self._copy(self.build(base), name) if base in self._stages else self._debian(base, name)
            if name in self._before:
                self._run(stage, self._before[name])
            for step in steps:
                print(f"{step.name} {step.rest}", flush=True)
                stage = self._apply(stage, step)
            self._built[name] = stage
        return self._built[name]

    def _debian(self, image: str, name: str) -> Stage:
        root = self._work / name
        release = image.rpartition("-")[2]
        found = self._work / f"debian-{release}"
        if not found.exists():
            include = ",".join(DEBIAN)
            check("mmdebstrap", "--quiet", "--variant=minbase", f"--include={include}", release, str(found))
            # The image's own Python is nobody's, this one is Debian's.
            for marker in found.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
                marker.unlink()
        check("cp", "-a", str(found), str(root))
        return Stage(root)

    def _copy(self, base: Stage, name: str) -> Stage:
        root = self._work / name
        check("cp", "-a", "--reflink=auto", str(base.root), str(root))
        return replace(base, root=root)

    def _apply(self, stage: Stage, step: Step) -> Stage:
        match step.name:
            case "RUN":
                self._run(stage, step.rest)
            case "ENV":
                given = (word.partition("=") for word in step.words())
                known = {name: re.sub(r"\$(\w+)", lambda at: stage.env[at[1]], value) for name, _, value in given}
                return replace(stage, env=stage.env | known)
            case "WORKDIR":
                inside(stage.root, step.rest).mkdir(parents=True, exist_ok=True)
                return replace(stage, workdir=step.rest)
            case "USER":
                return replace(stage, user=step.rest)
            case "ENTRYPOINT":
                return replace(stage, entrypoint=tuple(step.words()))
            case "COPY":
                self._bring(stage, step.words())
            case "VOLUME" | "EXPOSE" | "HEALTHCHECK" | "STOPSIGNAL":
                pass
            case other:
                raise SystemExit(f"image-check: the step {other} is not known here; teach it")
        return stage

    def _run(self, stage: Stage, command: str) -> None:
        passed = {name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name)}
        shell = ["/bin/sh", "-c", command]
        check(*enter(stage, shell, stage.env | passed, lent=["/etc/resolv.conf", *self._lent]))

    def _bring(self, stage: Stage, words: list[str]) -> None:
        *sources, target = words
        if sources[0].startswith("--from="):
            (source,) = sources[1:]
            origin = inside(self.build(sources[0].removeprefix("--from=")).root, source)
            check("cp", "-a", str(origin), str(inside(stage.root, target)))
            return
        place = inside(stage.root, str(Path(stage.workdir) / target))
        for source in sources:
            names = [name for name in context() if name == source or name.startswith(f"{source}/")]
            if not names:
                raise SystemExit(f"image-check: COPY {source}: nothing of that name is in the build's context")
            for name in names:
                # The contents of a folder are copied, and a file by its name.
                to = place / (Path(name).name if name == source else Path(name).relative_to(source))
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(HERE / name, to)


def enter(
    stage: Stage, command: list[str], env: dict[str, str], *, lent: list[str], data: Path | None = None
) -> list[str]:
    """The command that runs another in a stage's root, in process and mount namespaces of its own.

    Args:
        stage: where.
        command: what.
        env: its whole environment.
        lent: paths of this machine that it sees as they are here.
        data: lies at /data, and all else but /tmp cannot be written to; None: everything can be.
    """
    root = shlex.quote(str(stage.root))
    lines = ["set -e", f"mount --bind {root} {root}", f"mount -t proc proc {root}/proc"]
    lines += [f"mount --rbind /dev {root}/dev", f"mount --rbind -o ro /sys {root}/sys"]
    for path in lent:
        at = inside(stage.root, path)
        at.parent.mkdir(parents=True, exist_ok=True)
        at.mkdir(exist_ok=True) if Path(path).is_dir() else at.touch()
        lines.append(f"mount --bind {shlex.quote(path)} {shlex.quote(str(at))}")
    limits: list[str] = []
    if data is not None:
        lines += [f"mount --bind {shlex.quote(str(data))} {root}/data", f"mount -t tmpfs tmpfs {root}/tmp"]
        lines += [f"mount -o remount,bind,ro {root}"]
        limits = ["--no-new-privs", "--bounding-set=-all"]
    user = stage.user if stage.user.isdigit() else f"$(chroot {root} id -u {shlex.quote(stage.user)})"
    variables = [f"{name}={value}" for name, value in env.items()]
    inner = shlex.join(["env", "-i", "-C", stage.workdir, *variables, *command])
    rights = " ".join(["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *limits, "--inh-caps=-all"])
    if stage.user == "0":
        rights = ""
    lines.append(f"exec chroot {root} {rights} {inner}")
    return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "/bin/sh", "-c", "\n".join(lines)]


def inside(root: Path, path: str) -> Path:
    """Where a path of a stage is on this machine."""
    return root / path.lstrip("/")


def check(*command: str) -> None:
    """Run a command. Ends the check if it fails."""
    if (status := subprocess.run(command, check=False).returncode) != 0:
        raise SystemExit(f"image-check: this ended with status {status}: {shlex.join(command)}")


def serve(stage: Stage, flags: list[str]) -> None:
    """Run the entry point as an orchestrator would, until it has answered a question and been stopped."""
    with tempfile.TemporaryDirectory(dir=stage.root.parent) as name:
        data = Path(name)
        os.chown(data, int(stage.user), int(stage.user))
        env = stage.env | {"ASKAHEAD_PORT": str(PORT), "ASKAHEAD_HOST": "127.0.0.1"}
        refusing = ["python", "-c", Path(__file__).with_name("refusing.py").read_text()]
        command = enter(stage, [*refusing, *stage.entrypoint, *flags], env, lent=["/etc/resolv.conf"], data=data)
        process = subprocess.Popen(command)
        try:
            asked(process)
            child = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
            began = time.monotonic()
            os.kill(child, 15)
            status = process.wait(STOP_SECONDS)
            print(f"stopped with status {status} after {time.monotonic() - began:.1f} s")
            if status != 0:
                raise SystemExit("image-check: the server did not end as it should after SIGTERM")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        print("it wrote:", *sorted(str(path.relative_to(data)) for path in data.glob("*")))


def asked(process: subprocess.Popen[bytes]) -> None:
    """Wait until the server is ready, and have it answer about what it was told."""
    began = time.monotonic()
    while True:
        try:
            call("/health")
            break
        except (urllib.error.URLError, ConnectionError):
            if process.poll() is not None or time.monotonic() - began > READY_SECONDS:
                raise SystemExit("image-check: the server did not become ready; its log is above") from None
            time.sleep(0.5)
    print(f"healthy after {time.monotonic() - began:.1f} s")
    flash = [{"query": "Is any reading above 80?", "choices": ["yes", "no"]}]
    call("/v1/sessions", {"id": "plant", "flash": flash})
    call("/v1/sessions/plant/push", {"data": ["12:00 boiler 71.5", "12:01 boiler 83.2"]})
    print("answers:", call("/v1/sessions/plant/flash?wait=30"))
    print("text:", call("/v1/sessions/plant/generate", {"prompt": "What was read last?", "max_tokens": 12}))


def call(path: str, body: object = None) -> str:
    """What the server answers. Raises URLError."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}{path}", data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return reply.read().decode()[:300]


def main() -> None:
    """Build, then serve."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lend", action="append", default=[], metavar="PATH", help="something that steps need")
    parser.add_argument("--before", metavar="STAGE=COMMAND", action="append", default=[], help="run in a stage first")
    parser.add_argument("--work", type=Path, help="directory to build in and keep (default: a temporary one)")
    parser.add_argument("flags", nargs="*", help="of the server")
    given = parser.parse_args()
    if os.geteuid() != 0 or shutil.which("mmdebstrap") is None:
        raise SystemExit("image-check: run this as root, on a Debian with mmdebstrap (apt-get install mmdebstrap)")
    with tempfile.TemporaryDirectory() as temporary:
        work = (given.work or Path(temporary)).absolute()
        work.mkdir(exist_ok=True)
        before = dict(item.split("=", 1) for item in given.before)
        builder = Builder(parse((HERE / "Dockerfile").read_text()), work, given.lend, before)
        stage = builder.build("cpu")
        serve(stage, given.flags)


if __name__ == "__main__":
    sys.exit(main())
