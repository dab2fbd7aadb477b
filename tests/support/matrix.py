"""Runs the tests of the library with the oldest and with the newest versions that it admits.

    python tests/support/matrix.py  # further arguments are those of pytest

The oldest are the lower bounds of pyproject.toml and its oldest Python, the newest what pip finds for the
newest Python of this machine. Environments are made one by one, and each is removed, whatever happens. What
was installed and how the tests ended goes to docs/versions.md.

Tests of the library are those that import neither `datasets` nor `experiments`. They skip what needs an
optional package that is not among `TOOLS`.
"""

import ast
import json
import os
import signal
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from xml.etree import ElementTree

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest brings the same
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = SpecifierSet(PROJECT["requires-python"])
TABLE = ROOT / "docs" / "versions.md"
LIBRARIES = ("torch", "numba", "llvmlite", "numpy", "scipy", "torchmetrics")
TOOLS = ("hypothesis", "mpmath", "pytest", "pytest-xdist", "roma", "torchmetrics")
OUTCOMES = ("passed", "skipped", "failed")
INTRODUCTION = """# Versions

The tests of the library, which need neither the data sets nor the experiments, with the oldest versions that
`pyproject.toml` admits, and with the newest. `make matrix` made this table.

"""


def main(arguments: list[str]) -> None:
    interpreters = find_interpreters()
    oldest, newest = lower_bound(PYTHONS), max(interpreters, key=Version, default=None)
    if oldest not in interpreters or newest is None:
        known = ", ".join(interpreters) or "none"
        sys.exit(f"Python {oldest}, the oldest for pyproject.toml, is not on this machine; found: {known}.")
    plans = {
        "oldest": (interpreters[oldest], [at_lower_bound(each) for each in requirements()]),
        "newest": (interpreters[newest], [str(each) for each in requirements()]),
    }
    try:
        rows = [{"versions": name} | tested(*plan, arguments) for name, plan in plans.items()]
    except subprocess.CalledProcessError as error:
        sys.exit(f"Not made, with exit status {error.returncode}: {' '.join(error.cmd)}")
    write_table(rows)
    if any(row["failed"] or not row["passed"] for row in rows):
        sys.exit("Not all tests passed.")


def find_interpreters() -> dict[str, str]:
    """Paths of the Pythons that pyproject.toml admits, by version, as "3.10"; no previews."""
    folders = [Path(folder) for folder in os.get_exec_path()]
    folders += Path.home().glob(".pyenv/versions/*/bin")
    paths = [path for folder in folders for path in folder.glob("python3.*") if path.suffix[1:].isdigit()]
    report = "import sys; print('%d.%d' % sys.version_info[:2] * (sys.version_info[3] == 'final'))"
    found: dict[str, str] = {}
    for path in [Path(sys.executable), *paths]:
        answer = subprocess.run([path, "-c", report], capture_output=True, text=True, check=False)
        version = answer.stdout.strip()
        if version and version in PYTHONS:
            found.setdefault(version, str(path))
    return found


def requirements() -> list[Requirement]:
    """Those of the library, and of `TOOLS` as the optional dependencies have them."""
    optional = [Requirement(line) for extra in PROJECT["optional-dependencies"].values() for line in extra]
    tools = {each.name: each for each in optional if each.name in TOOLS}
    return [*map(Requirement, PROJECT["dependencies"]), *(tools[name] for name in TOOLS)]


def lower_bound(versions: SpecifierSet) -> str | None:
    return next((bound.version for bound in versions if bound.operator == ">="), None)


def at_lower_bound(requirement: Requirement) -> str:
    version = lower_bound(requirement.specifier)
    return f"{requirement.name}=={version}" if version else str(requirement)


def tested(interpreter: str, wanted: list[str], arguments: list[str]) -> dict[str, str | int]:
    """What was installed, how many tests ended how, when and where."""
    print("\nInstalling", *wanted, "for", interpreter, flush=True)
    with tempfile.TemporaryDirectory(prefix="versions-", ignore_cleanup_errors=True) as folder:
        subprocess.run([interpreter, "-m", "venv", folder], check=True)
        python = str(Path(folder) / ("Scripts" if os.name == "nt" else "bin") / "python")
        install = [python, "-m", "pip", "install", "--quiet", "--no-cache-dir", "--editable", str(ROOT)]
        unbounded = os.environ | {"PIP_CONSTRAINT": os.devnull}  # whatever this machine prefers
        subprocess.run([*install, *wanted], check=True, env=unbounded)
        versions = installed(python)
        print("Testing", *(f"{name} {version}" for name, version in versions.items()), flush=True)
        report = Path(folder) / "report.xml"
        pytest = "-m pytest -p no:cacheprovider --numprocesses auto --dist loadfile".split()
        options = [f"--junit-xml={report}", *arguments]
        subprocess.run([python, *pytest, *options, *library_tests()], cwd=ROOT, check=False)
        counts = outcomes(report)
    return versions | counts | {"date": date.today().isoformat(), "CPU": cpu()}


def installed(python: str) -> dict[str, str]:
    code = f"""
import json, platform
from importlib.metadata import version
print(json.dumps({{"Python": platform.python_version()}} | {{name: version(name) for name in {LIBRARIES}}}))
"""
    return json.loads(subprocess.run([python, "-c", code], capture_output=True, check=True).stdout)


def library_tests() -> list[str]:
    paths = sorted(ROOT.glob("tests/**/test_*.py"))
    return [str(path.relative_to(ROOT)) for path in paths if not imports(path) & {"datasets", "experiments"}]


def imports(path: Path) -> set[str]:
    """The top-level packages that a file imports."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {name.partition(".")[0] for name in names}


def outcomes(report: Path) -> dict[str, int]:
    """Counts in a report of pytest, errors among the failures; zeros if it wrote none."""
    suites = list(ElementTree.parse(report).iter("testsuite")) if report.exists() else []
    tests, skipped, failures, errors = (
        sum(int(suite.get(key, 0)) for suite in suites) for key in ("tests", "skipped", "failures", "errors")
    )
    failed = failures + errors
    return dict(zip(OUTCOMES, (tests - skipped - failed, skipped, failed), strict=True))


def cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else 'unknown'}, {os.cpu_count()} cores"


def write_table(rows: list[dict[str, str | int]]) -> None:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(row.values() for row in rows)]
    table = "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(INTRODUCTION + table)
    print(f"\n{table}\nin {TABLE.relative_to(ROOT)}")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Stopped."))  # an exception, so that environments go
    main(sys.argv[1:])
