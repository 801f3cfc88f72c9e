"""Runs the Autobahn|Testsuite, which nobody here wrote, against the WebSockets of a real server.

    autobahn.py            the cases on framing, UTF-8, fragments, pings and closing
    autobahn.py --limits   those on large messages and many small ones as well, which take minutes

The suite speaks Python 2 only. An interpreter comes from the packages of Debian 11, unpacked into a directory
of its own and not installed, the suite from the package index; both stay in `AUTOBAHN_HOME` for the next run.
Cases 12 and 13 are about compression, which the server doesn't offer. Exit code 77 says that it can't be set
up here.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.e2e.cluster import Cluster  # noqa: E402

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
HOME = Path(os.environ.get("AUTOBAHN_HOME", CACHE / "dataflow-serve-autobahn"))
DEBIAN = "bullseye"
LIBRARIES = "usr/lib/x86_64-linux-gnu"
DEBIAN_PACKAGES = (
    *("python2.7", "python2.7-minimal", "libpython2.7", "libpython2.7-minimal", "libpython2.7-stdlib"),
    *("libpython2.7-dev", "libssl1.1", "libffi7"),
)
INSTALLERS = ("pip==20.3.4", "setuptools==44.1.1", "wheel==0.37.1")
# The newest of each that still runs on Python 2 and that version 0.8.2 of the suite works with.
PYTHON_PACKAGES = (
    *(
        "autobahn==0.10.9",
        "Twisted==19.10.0",
        "zope.interface==4.6.0",
        "txaio==2.1.0",
        "incremental==16.10.1",
    ),
    *("pyOpenSSL==19.1.0", "cryptography==3.3.2", "service_identity==18.1.0", "klein==17.10.0"),
    *("Werkzeug==1.0.1", "jinja2==2.11.3", "markupsafe==1.1.1", "six==1.16.0", "unittest2==1.1.0"),
)
SUITE = "autobahntestsuite==0.8.2"
FINE = {"OK", "NON-STRICT", "INFORMATIONAL"}
FINE_CLOSE = {"OK", "INFORMATIONAL"}


class NotHere(Exception):
    """The suite can't be set up on this machine."""


def execute(*command: str | Path, **options: object) -> None:
    """A step of setting up; what it prints is shown only if it fails."""
    done = subprocess.run(  # type: ignore[call-overload]
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )
    if done.returncode:
        raise NotHere(f"`{command[0]} {command[1]}` failed: {done.stdout.strip()[-300:]}")


def environment(directory: Path) -> dict[str, str]:
    """What the old interpreter needs to find its libraries, headers and packages."""
    root = directory / "root"
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
    }
    return kept | {
        "LD_LIBRARY_PATH": str(root / LIBRARIES),
        "C_INCLUDE_PATH": f"{root / 'usr/include/python2.7'}:{root / 'usr/include'}",
        "PYTHONPATH": str(directory / "site"),
        "PYTHONWARNINGS": "ignore",
    }


def set_up(directory: Path) -> None:
    """Fill `directory` with an interpreter and the suite.

    Raises:
        NotHere: a program or the network that this needs isn't there.
    """
    for tool in ("apt-get", "dpkg", "cc"):
        if shutil.which(tool) is None:
            raise NotHere(f"{tool} not installed")
    shutil.rmtree(directory, ignore_errors=True)
    for name in ("lists/partial", "archives/partial", "packages", "root", "wheels", "site"):
        (directory / name).mkdir(parents=True)
    unpack_interpreter(directory)
    wheels = directory / "wheels"
    download = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", wheels)
    execute(*download, "--python-version", "27", "--only-binary=:all:", *INSTALLERS, SUITE)
    python, old = directory / "root/usr/bin/python2.7", environment(directory)
    (pip,) = wheels.glob("pip-*.whl")
    install = (python, "-m", "pip", "install", "--quiet", "--target", directory / "site")
    installers = [next(wheels.glob(f"{each.split('==')[0]}-*.whl")) for each in INSTALLERS]
    first = (python, pip / "pip", *install[3:])
    execute(*first, "--no-index", *installers, env=old)
    execute(*install, "--upgrade", *PYTHON_PACKAGES, env=old)
    execute(*install, "--no-deps", next(wheels.glob("autobahntestsuite-*.whl")), env=old)
    # `--target` knows nothing of namespace packages.
    (directory / "site/zope/__init__.py").touch()
    (directory / "ready").touch()


def unpack_interpreter(directory: Path) -> None:
    """Python 2.7 from a release of Debian that had it, from the mirror that this machine uses."""
    configured = [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]
    text = "\n".join(path.read_text() for path in configured if path.is_file())
    mirrors = re.findall(r"https?://\S+?/debian(?=/?\s)", text)
    keys = sorted(Path("/usr/share/keyrings").glob("debian-archive-keyring.*"))
    if not mirrors or not keys:
        raise NotHere("no Debian mirror or its keys are configured")
    sources = directory / "sources.list"
    sources.write_text(f"deb [signed-by={keys[0]}] {mirrors[0]} {DEBIAN} main\n")
    (directory / "status").touch()
    settings = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": directory / "lists",
        "Dir::State::status": directory / "status",
        "Dir::Cache": directory,
        "Dir::Cache::archives": directory / "archives",
        "APT::Sandbox::User": "root",
    }
    apt = ("apt-get", "-qq", *(f"-o{name}={value}" for name, value in settings.items()))
    execute(*apt, "update")
    execute(*apt, "download", *DEBIAN_PACKAGES, cwd=directory / "packages")
    for package in (directory / "packages").glob("*.deb"):
        execute("dpkg", "-x", package, directory / "root")


def play(url: str, directory: Path, excluded: list[str]) -> dict[str, dict[str, str]]:
    """The suite's findings, by case."""
    with tempfile.TemporaryDirectory(prefix="dataflow-serve-autobahn-") as work:
        specification = {
            "outdir": "reports",
            "servers": [{"agent": "dataflow-serve", "url": url}],
            "cases": ["*"],
            "exclude-cases": excluded,
            "exclude-agent-cases": {},
        }
        Path(work, "specification.json").write_text(json.dumps(specification))
        python, site = directory / "root/usr/bin/python2.7", directory / "site"
        # Directories on the search path by themselves don't bring their namespace packages.
        start = (
            f"import site; site.addsitedir({str(site)!r}); from autobahntestsuite.wstest import run; run()"
        )
        arguments = ("-m", "fuzzingclient", "-s", "specification.json")
        done = subprocess.run(
            [str(python), "-c", start, *arguments],
            cwd=work,
            env=environment(directory),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        report = Path(work, "reports/index.json")
        if not report.exists():
            raise AssertionError(
                f"no report; the suite's last words:\n{done.stdout[-500:]}{done.stderr[-1500:]}"
            )
        return json.loads(report.read_text()).get("dataflow-serve", {})  # type: ignore[no-any-return]


def main() -> int:
    """0 if every case is as RFC 6455 wants it, 77 if there is no suite."""
    parser = argparse.ArgumentParser(description="WebSocket conformance by the Autobahn|Testsuite")
    parser.add_argument("--limits", action="store_true", help="with the cases of group 9")
    options = parser.parse_args()
    try:
        if not (HOME / "ready").exists():
            print(f"setting up the Autobahn|Testsuite in {HOME}", flush=True)
            set_up(HOME)
    except NotHere as reason:
        print(reason)
        return 77
    cluster = Cluster(1, 2, "--enable-echo")
    try:
        host, port = cluster.addresses[0]
        excluded = ["12.*", "13.*"] if options.limits else ["9.*", "12.*", "13.*"]
        cases = play(f"ws://{host}:{port}/echo", HOME, excluded)
        assert cluster.alive(), cluster.report()
    finally:
        cluster.kill()
    return report(cases)


def report(cases: dict[str, dict[str, str]]) -> int:
    """Print what came of the cases."""
    groups: dict[int, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    bad, special = [], []
    for name, case in sorted(cases.items()):
        groups[int(name.split(".")[0])][case["behavior"]] += 1
        if case["behavior"] not in FINE or case["behaviorClose"] not in FINE_CLOSE:
            bad.append(f"{name} ({case['behavior']}, closing {case['behaviorClose']})")
        elif case["behavior"] != "OK":
            special.append(f"{name} {case['behavior']}")
    for group, counts in sorted(groups.items()):
        print(f"group {group}: " + ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())))
    print(", ".join(special))
    print(f"{len(cases)} cases, {len(bad)} failing" + "".join(f"\n  {each}" for each in bad))
    return int(bool(bad) or not cases)


if __name__ == "__main__":
    sys.exit(main())
