"""Writes the functions of the running Python's standard library as a corpus of JSON lines.

    python benchmarks/stdlib_corpus.py [FOLDER]

FOLDER (default: corpus) gets stdlib-01.jsonl to stdlib-08.jsonl, one line a function:
{"name": "module:qualname:line", "source": ..., "docstring": ... or null}. Modules are in alphabetical order and are not
cut in two. Test packages and installed packages are left out, files that do not parse are passed over. A second
run with the same Python writes nothing. Needs the standard library alone.
"""

import ast
import hashlib
import json
import os
import sys
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path

FILES = 8
LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
MARK = ".complete"

Definition = ast.FunctionDef | ast.AsyncFunctionDef


def modules(stdlib: Path) -> Iterator[tuple[str, Path]]:
    """The dotted name and the file of each module, in the order of the names."""
    found = []
    for folder, folders, files in os.walk(stdlib):
        folders[:] = [name for name in folders if name not in LEFT_OUT]
        for name in files:
            if name.endswith(".py"):
                path = Path(folder, name)
                parts = path.relative_to(stdlib).with_suffix("").parts
                found.append((".".join(parts[:-1] if parts[-1] == "__init__" and parts[1:] else parts), path))
    return iter(sorted(found))


def definitions(node: ast.AST, scope: str = "") -> Iterator[tuple[str, Definition]]:
    """The qualified name and the node of each function below `node`, in the order of the text."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition):
            yield scope + child.name, child
            yield from definitions(child, f"{scope}{child.name}.<locals>.")
        elif isinstance(child, ast.ClassDef):
            yield from definitions(child, f"{scope}{child.name}.")
        else:
            yield from definitions(child, scope)


def functions(module: str, path: Path) -> list[dict[str, str | None]]:
    """One record for each function of a file; none where the file cannot be read or parsed."""
    try:
        with tokenize.open(path) as file:  # honours a declared encoding
            text = file.read()
        tree = ast.parse(text)
    except (SyntaxError, ValueError, OSError, RecursionError):
        return []
    lines = text.split("\n")  # as `ast` counts them; splitlines() also cuts at form feeds
    records: list[dict[str, str | None]] = []
    for name, node in definitions(tree):
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        docstring = ast.get_docstring(node)
        records.append(
            {
                "name": f"{module}:{name}:{node.lineno}",
                "source": "\n".join(lines[first - 1 : node.end_lineno]),
                # an escape such as "\ud800" names half a character, which UTF-8 cannot hold
                "docstring": None if docstring is None else docstring.encode("utf-8", "replace").decode("utf-8"),
            }
        )
    return records


def write_corpus(folder: Path, stdlib: Path) -> int:
    """Writes the corpus unless it is complete already; returns the number of functions.

    The mark of completeness goes before the first file is replaced and comes back after the last, so a killed run is
    done again.
    """
    mark = folder / MARK
    version = f"{sys.version} {stdlib} {hashlib.sha256(Path(__file__).read_bytes()).hexdigest()}"
    paths = [folder / f"stdlib-{i:02d}.jsonl" for i in range(1, FILES + 1)]
    if mark.exists():
        complete = json.loads(mark.read_text())
        sizes = [path.stat().st_size if path.exists() else None for path in paths]
        if complete["version"] == version and complete["sizes"] == sizes:
            return int(complete["functions"])

    texts: list[bytes] = []  # one a module
    count = 0
    for module, path in modules(stdlib):
        records = functions(module, path)
        count += len(records)
        texts.append(b"".join(json.dumps(r, ensure_ascii=False).encode() + b"\n" for r in records))

    folder.mkdir(parents=True, exist_ok=True)
    mark.unlink(missing_ok=True)
    total, done = sum(map(len, texts)), 0
    shares: list[list[bytes]] = [[] for _ in paths]
    for text in texts:
        shares[min(FILES * done // max(total, 1), FILES - 1)].append(text)
        done += len(text)
    for path, share in zip(paths, shares, strict=True):
        replace(path, b"".join(share))
    sizes = [path.stat().st_size for path in paths]
    replace(mark, json.dumps({"version": version, "functions": count, "sizes": sizes}).encode())
    return count


def replace(path: Path, content: bytes) -> None:
    """Writes a file in one step: it has its name only when it is whole."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_bytes(content)
    os.replace(unfinished, path)


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "corpus")
    warnings.simplefilter("ignore")  # of escapes in the library's own strings
    count = write_corpus(folder, Path(sysconfig.get_path("stdlib")))
    version = sys.version.split()[0]
    print(f"{folder}: {count:,} functions of the standard library of Python {version}, in {FILES} files")


if __name__ == "__main__":
    main()
