"""Cut the shipped demo set from drawings32: all photos, and the drawings of the people kept for the demo.

``python -m training.make_demo --data drawings32 --out fgsbir_edge/demo``. The licence travels with it.
"""

from __future__ import annotations

import argparse
import csv
import shutil
from pathlib import Path

from training.data.folder import PairsFolder
from training.data.splits import select, split_drawings

ABOUT = """# Demo set

{objects} photos and the drawings that {people} people made of them, cut from drawings32
(judithfan/visual_communication_in_context, MIT licence, see LICENSE). None of these people's drawings trained the shipped
model. Layout: photos/, sketches/, pairs.csv.

Objects that the shipped model never saw either, in any drawing or photo: {unseen}.
"""


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m training.make_demo", description=__doc__)
    options.add_argument("--data", type=Path, required=True, help="the drawings32 folder")
    options.add_argument("--out", type=Path, required=True)
    arguments = options.parse_args()
    folder, out = PairsFolder.read(arguments.data), arguments.out
    split = split_drawings(folder)
    pairs = select(folder.pairs, users=split.demo)
    for kind, names in (("photos", sorted(folder.photo_category)), ("sketches", [pair.sketch for pair in pairs])):
        for name in names:
            (out / kind / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder.root / kind / name, out / kind / name)
    shutil.copyfile(folder.root / "LICENSE", out / "LICENSE")
    with (out / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("sketch", "photo", "category", "user", "seen_in_training"))
        writer.writerows((p.sketch, p.photo, p.category, p.user, int(p.photo in split.seen)) for p in pairs)
    unseen = ", ".join(sorted(Path(name).stem for name in split.unseen))
    (out / "README.md").write_text(
        ABOUT.format(objects=len(folder.photo_category), people=len(split.demo), unseen=unseen), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
