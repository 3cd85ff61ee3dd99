"""The image, as far as it can be checked without building it: no registry of images is asked."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from places import BEAM, DEPLOY, ROOT, TOOLS, run_tool

DOCKERFILE = DEPLOY / "Dockerfile"
EXTRAS = ("gcp", "aws", "tfhub")


def pins() -> dict[str, str]:
    lines = [line.partition("#")[0].strip() for line in (DEPLOY / "constraints.txt").read_text().splitlines()]
    found = dict(line.split("==") for line in lines if line)
    return {canonicalize_name(name): version for name, version in found.items()}


def copied() -> list[str]:
    """What the Dockerfile copies from the checkout."""
    lines = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE.read_text(), re.MULTILINE)
    return [name for line in lines for name in line.split()]


def test_the_dockerfile_follows_the_rules() -> None:
    assert run_tool(TOOLS / "hadolint", "--no-color", "--failure-threshold", "style", DOCKERFILE) == ""


def test_a_rule_that_is_broken_is_found(tmp_path: Path) -> None:
    wrong = tmp_path / "Dockerfile"
    wrong.write_text(DOCKERFILE.read_text() + "COPY --from=nowhere /a /b\nRUN pip install numpy\n")
    with pytest.raises(AssertionError, match=r"DL3013(.|\n)*DL3042|DL3042(.|\n)*DL3013"):
        run_tool(TOOLS / "hadolint", "--no-color", "--failure-threshold", "style", wrong)


def test_beam_is_the_same_in_image_pins_and_environment() -> None:
    images = re.findall(r"^FROM apache/beam_python3\.11_sdk:(\S+)", DOCKERFILE.read_text(), re.MULTILINE)
    assert {*images, pins()["apache-beam"], importlib.metadata.version("apache-beam")} == {BEAM}


def test_every_dependency_has_a_pin_that_it_allows() -> None:
    for requirement in map(Requirement, importlib.metadata.requires("tithe") or []):
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": extra}) for extra in EXTRAS):
            continue
        assert pins()[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_what_the_image_copies_is_sent_and_is_enough_to_install(tmp_path: Path) -> None:
    sent = {line[1:] for line in Path(f"{DOCKERFILE}.dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(copied()) == sent
    for name in copied():
        target = tmp_path / "context" / (Path(name).name if name.startswith("deploy/") else name)
        ignored = shutil.ignore_patterns("__pycache__", ".*")
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, ignore=ignored)
        else:
            target.parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, target)
    run_tool(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, tmp_path / "context")
    assert [path.name.partition("-")[0] for path in tmp_path.glob("*.whl")] == ["tithe"]


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="pip resolves for its own Python; the image has 3.11")
def test_the_pins_fit_together(tmp_path: Path) -> None:
    """pip resolves all that an empty environment would be given, and downloads what says so."""
    report = tmp_path / "report.json"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--dry-run", "--ignore-installed", "--report", str(report)]
    pinned = pins()
    run_tool(*pip, "-c", str(DEPLOY / "constraints.txt"), f".[{','.join(EXTRAS)}]")
    found = {
        canonicalize_name(item["metadata"]["name"]): item["metadata"]["version"]
        for item in json.loads(report.read_text())["install"]
    }
    assert pinned.items() <= found.items()
