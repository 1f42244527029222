"""A small repository of a package: each commit is a version, and needs nothing to build."""

import subprocess
from pathlib import Path

BACKEND = """
import zipfile

VERSION = "{version}"

def build_wheel(folder, settings=None, metadata=None):
    name = f"{package}-{{VERSION}}"
    about = f"{package}-{{VERSION}}.dist-info"
    with zipfile.ZipFile(f"{{folder}}/{{name}}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("{package}.py", open("{package}.py").read())
        metadata = f"Metadata-Version: 2.1\\nName: {package}\\nVersion: {{VERSION}}\\n"
        wheel.writestr(f"{{about}}/METADATA", metadata)
        kind = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
        wheel.writestr(f"{{about}}/WHEEL", kind)
        wheel.writestr(f"{{about}}/RECORD", "")
    return f"{{name}}-py3-none-any.whl"
"""
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def repository(folder: Path, package: str, versions: list[str]) -> list[str]:
    """Make a repository with a commit for each version, and return the commits.

    A version that is no number does not build.
    """
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "pyproject.toml").write_text(PROJECT)
    commits = []
    for version in versions:
        text = BACKEND.format(version=version, package=package)
        works = version.isdigit()
        (folder / "backend.py").write_text(text if works else "raise ImportError('no compiler')")
        (folder / f"{package}.py").write_text(f"VERSION = {version!r}\n")
        git(folder, "add", "-A")
        git(folder, "commit", "-qm", version)
        commits.append(git(folder, "rev-parse", "HEAD"))
    return commits
