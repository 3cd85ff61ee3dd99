"""The manifest: what a sample is and how it was made, written last; and the parts that it replaces, removed
after that.
"""

import platform
import sys
import time
from importlib.metadata import version
from typing import Any

from tithe import __version__
from tithe.config import Config
from tithe.transforms.files import InputFile, exists
from tithe.transforms.vectors import read_json, write_json
from tithe.workspace import Stage, Workspace, list_files, remove

LOSS_FACTS = ("model_calls", "model_calls_bound", "anchors", "representatives", "pilot", "failed", "mean", "largest")
LIBRARIES = ("apache-beam", "numpy", "scipy", "scikit-learn", "pyarrow")


def nothing_to_do(space: Workspace, whole: str) -> dict[str, Any] | None:
    """Returns the manifest where it is of this very selection and its parts stand; None otherwise."""
    if not exists(space.manifest):
        return None
    manifest: dict[str, Any] = read_json(space.manifest)
    if manifest.get("fingerprint") != whole:
        return None
    sizes = list_files(f"{space.output}/sample/*")
    parts = {f"{space.output}/{part['name']}": part["bytes"] for part in manifest["sample"]["parts"]}
    stands = all(sizes.get(path) == size for path, size in parts.items())
    return {**manifest, "stood": True} if stands else None


def write_manifest(
    space: Workspace,
    config: Config,
    whole: str,
    files: list[InputFile],
    stages: list[Stage],
    warnings: list[str],
    runner: str,
    bad_files: list[list[str]],
) -> dict[str, Any]:
    """Writes manifest.json, removes the parts of earlier results, and returns the manifest."""
    facts = {stage.name: stage.facts for stage in stages}
    embed, cluster, losses, score, sample = (facts[n] for n in ("embed", "cluster", "losses", "score", "sample"))
    reasons = dict(embed["bad"])
    if bad_files:
        reasons["unreadable file"] = reasons.get("unreadable file", 0) + len(bad_files)
    if losses["failed"]:
        reasons["the model failed"] = losses["failed"]
    parts = [{**part, "name": f"sample/{part['name']}"} for part in sample["parts"]]
    manifest = {
        "fingerprint": whole,
        "sample_digest": sample["sample_digest"],
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {
            "tithe": __version__,
            "python": platform.python_version(),
            "platform": f"{sys.platform} {platform.machine()}",
            **{name: version(name) for name in LIBRARIES},
        },
        "runner": runner,
        "configuration": config.model_dump(mode="json"),
        "input": {
            "files": [{"name": f.name, "bytes": f.size, "modified": f.modified} for f in files],
            "records": embed["rows"],
            "dimension": embed["dimension"],
        },
        "dead_letters": dict(sorted(reasons.items())),
        "cluster": {
            "clusters": cluster["clusters"],
            "cost_of_means": {"cost": cluster["cost_of_means"], "records": cluster["rows"]},
            "cost_of_anchors": {"cost": score["cost"], "records": score["rows"]},
            "rounds": cluster["rounds"],
        },
        "losses": {name: losses[name] for name in LOSS_FACTS},
        "proxy": {**sample["rule"], "total": sample["total"], "positive": sample["positive"]},
        "choice": sample["choice"],
        "guarantee": sample["guarantee"],
        "sample": {
            "method": sample["method"],
            "records": sample["records"],
            "draws": sample["draws"],
            "certain": sample["certain"],
            "sum_of_weights": sample["sum_of_weights"],
            "sum_of_weights_standard_error": sample["sum_of_weights_standard_error"],
            "corpus_records": embed["rows"],
            "parts": parts,
        },
        "stages": [
            {
                "name": s.name,
                "folder": s.folder.rsplit("/", 1)[1],
                "seconds": s.facts["seconds"],
                "bytes": s.facts["bytes"] + s.facts.get("vectors_bytes", 0),
                "stood": s.stood,
                "counters": s.facts.get("counters", {}),
            }
            for s in stages
        ],
        "vectors": embed["vectors"],
        "warnings": warnings,
    }
    write_json(space.manifest, manifest)
    current = {f"{space.output}/{part['name']}" for part in parts}
    for path in list_files(f"{space.output}/sample/*"):
        if path not in current:
            remove(path)
    return manifest
