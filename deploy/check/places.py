"""Where the files under check are, and the tools that `make check-deploy` has made ready."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CACHE = ROOT / ".cache" / "check-deploy"
TOOLS = CACHE / "tools" / "bin"
CRD = CACHE / "META-INF" / "fabric8" / "flinkdeployments.flink.apache.org-v1.yml"
BEAM = "2.77.0"


def run_tool(*command: str | Path, **environment: str) -> str:
    """Runs a command; returns what it printed, and an AssertionError with all of it where it failed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def documents(path: Path) -> list[dict[str, Any]]:
    """The documents of a YAML file."""
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def blocks(path: Path) -> Iterator[list[str]]:
    """The commands of each shell block of a page, lines that go on joined."""
    inside = False
    lines: list[str] = []
    for line in path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        if line.startswith("```"):
            if inside:
                yield lines
            inside, lines = line == "```sh", []
        elif inside and line and not line.startswith("#"):
            lines.append(line)


def commands(path: Path, start: str) -> list[str]:
    """The commands of a page that begin so; an AssertionError where there are none."""
    found = [line for block in blocks(path) for line in block if line.startswith(start)]
    assert found, f"{path} has no command `{start}`"
    return found


def load_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object."""
    return dict(json.loads(path.read_text(encoding="utf-8")))
