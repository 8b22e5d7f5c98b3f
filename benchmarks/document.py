"""docs/performance.md from the results in benchmarks/results: ``python -m benchmarks.document``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import end_to_end_tables
from benchmarks.meta_tables import meta_tables, ratio_table
from benchmarks.reasons import reasons
from benchmarks.record import RESULTS
from benchmarks.search_tables import SMALL, search_tables
from benchmarks.tables import facts, fit_table, group_table, groups, notes, target_table

DOCUMENT = Path(__file__).parents[1] / "docs" / "performance.md"
ALL = ("raster", "adapt", "raster_cuda", "adapt_cuda", "meta", "search", "end_to_end")  # results by file name

_HEAD = """# Performance

How long the two native operations take beside everything else that does the same, and beside what the machine allows at all.
Every competitor's answer is checked before it is timed; all take turns in the same run; each runs on one thread unless its
row says otherwise, and in the fastest form that its documented interface allows. Times are microseconds. Percentiles are
over single calls; ratios are between medians of rounds, with 95 % bootstrap intervals over the rounds. `At best` is the same
ratio when each call counts with its shortest round, as on a machine that does nothing else, and `at the limit` what it would
be if ours did nothing but what the limit or floor of its table counts. A target counts as reached when the ratio of medians
and the one at best both say so. Made by `python -m benchmarks.document` from `benchmarks/results/`, which `make bench`
measures anew.
"""

_RASTER = """
`prepared input`: every competitor is handed the points in the form it likes best, made before the clock starts; ours is
packed arrays. `lists of …`: everyone starts from the same Python objects, conversion and packing included. A call of ours
draws a block of 64 sketches; the others draw them one after the other. All draw into the same memory, which is reused.
`Pillow + OpenCV dilation` gives the papers' pixels; `memory shared` is the same with Pillow made to draw into a NumPy array,
which it does not document. `answer` says what the check found: the same pixels as the papers, or how far from the reference
of the same line width (IoU of the ink, mean difference on ink in levels of 255: others place and weigh pixels in their own
ways). `of the limit` is the rate of writing as a share of the fastest `writing alone` in the same table, with as many
threads.
"""

_ADAPT = """
Five sketch-photo pairs, alone (10 distinct rows) and with 64 further photos (74 rows); triplet loss with margin 0.3 and
softplus of sharpness 10, every sketch against every other photo; plain gradient descent on all of W and b. Times are per
step, with all set-up: outputs, inner products, optimiser, copies of W; eager PyTorch and ours write W' into memory that is
kept. `W' formed` ends with the adapted D x C weights as all peers do; `not formed` ends with the coefficients A, of which an
adapter consists. `answer` is the largest error of W' against float64, relative to the largest change of a weight. `× floor`
is the time over that of the least arithmetic known to give the answer, in the shorter of two exact forms (in the span of the
rows, or on inner products alone), if all of it ran at this machine's peak: m C D multiply-adds for the outputs, C m (m + 1)
/ 2 for inner products, for each step the smaller of 3 k p D + m² D (k sketches, p photos) and 3 m³, and m C D where W' is
formed.
"""

_META = """
The inner loop of meta-training, to second order: eight tasks a step, each with k sketch-photo pairs to adapt on (one further
photo where k = 1) and 16 query pairs that judge. Peers step W itself: a task at a time, as learn2learn and higher do, or all
tasks at once. Heads, outer loss and its gradients for head, features, rates and margins are the same for all but for rounding.
`ours, span form` is training/inner_loop.py, `ours, inner products` training/episodic/fast_inner.py. What adapting adds to an
outer step is the time of the step less that of the same step without adaptation. Times are per episode.
"""

_SEARCH = """
A query of ours begins at a sketch's features and ends at ten photos by name, with the certificate that none was missed; faiss
and NumPy alone begin at an embedding and end at numbers. Random galleries whose spectrum falls as that of trained heads; 512
features. `ours, float32` and `float16` are the compiled core, `int8` is faiss with candidates scored anew. An adapter of both
sides re-ranks the 1,000 photos that the base head finds nearest, from their stored features; `faiss alone` does not do that.
All on one thread, in one run, and times are those of the processor.
"""

_END_TO_END = """
From a drawing in strokes to ten photos of 2,000, and from five pairs to an adapter in force, beside the same as research
code does it: the papers' rasteriser, which walks every pixel in Python, SciPy's dilation, PyTorch eager with the same
weights on the same input, distances to all photos, autograd over the papers' inner loop. torch.compile does the network and
the inner loop. One thread. Stages are milliseconds of the processor, so that other work on the machine counts for little;
`by the clock` is what one waits. `head and search` begins at features. `adapt as the papers do` is the same loss, pairs and
five steps for all, on sketches and photos, without a guard; ours as released is one step on sketches alone, what sketches
have in common taken away, and the guard, which ranks left-out pairs among all photos; what the head makes of these is kept
from one adaptation to the next, and the first one after a photo has come or gone takes some 3 ms more.
After it photos stay where they are; where an adapter moves them too, as the papers' does, the first search embeds all of
them anew. Times do not depend on what random photos look like.

Processes are timed from their start to their first word, which comes when the work is done, and, of the processor, to their
end: memory is the highest. Files are in the system's cache, and bytecode is written already. Ours is `fgsbir-edge query
DRAWING.png` and `python -m fgsbir_edge.adapt` over a gallery file, five PNG drawings, one thread, or as many as a command
takes that is told none; where photos come from files, the gallery does not hold them, and each is encoded five times over,
shifted. What a start does not need is not loaded; storing the network as ONNX Runtime optimises it would save 5 ms, twice the
size of the model, and tie the file to a kind of processor. Photos that push nobody away are no longer handed to the inner
loop: adapters differ by rounding, a millionth of the largest coefficient, from those made before.
"""

_FIT = """
Least squares over the sketches, each drawn 16 times in a call and taken at its shortest of all rounds.
"""

_NO_CUDA = """
No figures were taken on a GPU yet. The CUDA kernels are compiled for sm_87, sm_90 and sm_110 and never ran on a device;
nothing on this page says anything about their speed.
"""

_CUDA = """
Taken on the device named. Times are of the device, by events on its stream, unless a row says otherwise.
"""


def document(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The whole page, from the results there are (by file name without ``.json``)."""
    parts = [_HEAD]
    for name, title, meaning in (("raster", "Sketches to pixels", _RASTER), ("adapt", "Adaptation", _ADAPT)):
        parts.append(f"\n## {title}\n")
        parts.append(
            _section(results[name], meaning) if name in results else f"\nNot measured: run `python -m benchmarks.{name}`.\n"
        )
    if "meta" in results:
        parts.append(f"\n## Meta-training\n{_meta(results['meta'])}")
    if "search" in results:
        figures = results["search"]
        parts.append(f"\n## Search\n\n{_machine(figures)}{_SEARCH}\n### Within reach of faiss alone\n\n{target_table(figures)}")
        parts.append(f"{_slow(figures)}{search_tables(figures)}")
    if "end_to_end" in results:
        parts.append(_end_to_end(results["end_to_end"]))
    parts.append("\n## CUDA\n")
    device = [results[name] for name in ALL[2:4] if name in results]
    parts += [_section(figures, _CUDA) for figures in device] or [_NO_CUDA]
    return "".join(parts)


def _end_to_end(figures: Mapping[str, Any]) -> str:
    """Stages, processes, and the picture of the stages."""
    tables = end_to_end_tables
    body = f"\n## End to end\n\n{_machine(figures)}{tables.facts(figures)}{_END_TO_END}"
    body += "\n![The stages of a query as bars](images/end_to_end.svg)\n"
    body += f"\n### Stages\n\n{tables.stage_table(figures)}\n### From the start of a process\n\n{tables.start_table(figures)}"
    left = notes(figures)
    return body + (f"\n### Not measured here\n\n{left}" if left else "")


def _slow(figures: Mapping[str, Any]) -> str:
    """Why small galleries stay behind faiss alone."""
    if all(entry["reached"] for entry in figures["targets"]):
        return ""
    return f"\nNot reached, and why: {SMALL}\n"


def _meta(figures: Mapping[str, Any]) -> str:
    body = f"{_machine(figures)}{facts(figures)}{_META}\n### Targets\n\n{ratio_table(figures)}{meta_tables(figures)}"
    left = notes(figures)
    return "\n" + body + (f"\n### Left out\n\n{left}" if left else "")


def _machine(figures: Mapping[str, Any]) -> str:
    machine = figures["machine"]
    where = [machine.get("device"), machine["processor"], f"{machine['cores']} cores", f"Python {machine['python']}"]
    versions = [f"{name} {version}" for name, version in figures.get("libraries", {}).items()]
    lines = [", ".join(filter(None, [*where, *versions])) + f". Commit {machine['commit']}."]
    lines.append(f"Load of the machine at the end, this benchmark included: {machine['load']:g} busy cores.")
    return "\n".join(lines) + "\n"


def _section(figures: Mapping[str, Any], meaning: str) -> str:
    body = _machine(figures) + facts(figures) + meaning
    body += f"\n### Targets\n\n{target_table(figures)}{_reasons(figures)}"
    body += "".join(f"\n### {group[0].upper()}{group[1:]}\n\n{group_table(figures, group)}" for group in groups(figures))
    if "fit" in figures:
        body += f"\n### What the time of a sketch goes with\n{_FIT}\n{fit_table(figures)}"
    left = notes(figures)
    return "\n" + body + (f"\n### Left out\n\n{left}" if left else "")


def _reasons(figures: Mapping[str, Any]) -> str:
    """Why targets were not reached."""
    lines = [f"- {reason} Applies to: {'; '.join(targets)}.\n" for reason, targets in reasons(figures["targets"]).items()]
    return "\nNot reached, and why:\n\n" + "".join(lines) if lines else ""


def read_results(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """All results that lie in a folder, by name."""
    files = {name: folder / f"{name}.json" for name in ALL}
    return {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.is_file()}


def main() -> None:
    """The command."""
    DOCUMENT.write_text(document(read_results()), encoding="utf-8")


if __name__ == "__main__":
    main()
