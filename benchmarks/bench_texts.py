"""Writes a corpus of JSON lines over and over, with other ids, until it has so many records.

python benchmarks/bench_texts.py CORPUS TARGET RECORDS
"""

import json
import sys
from pathlib import Path

FILES = 8


def main() -> None:
    """Reads the command line and writes TARGET unless it stands; a record's `name` gets the number of the copy."""
    corpus, target, records = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    if target.exists():
        return
    found = [json.loads(line) for path in sorted(corpus.glob("*.jsonl")) for line in path.open(encoding="utf-8")]
    part = target.with_suffix(".part")
    part.mkdir(parents=True, exist_ok=True)
    for number in range(FILES):
        with (part / f"{number}.jsonl").open("w", encoding="utf-8") as out:
            for i in range(number * records // FILES, (number + 1) * records // FILES):
                record = found[i % len(found)]
                out.write(json.dumps({**record, "name": f"{record['name']}#{i // len(found)}"}, ensure_ascii=False))
                out.write("\n")
    part.replace(target)


if __name__ == "__main__":
    main()
