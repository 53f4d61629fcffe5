"""Random models of one operator over its options, scales and zero-points, against LiteRT, by what its row says.

    python -m tests.converters.sources.tflite.generated --cases 10000 --seed 1

prints what differs by more than its row's bound, which kernels ran, and a count by operator.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass

import numpy as np

from converters.errors import ConversionError
from converters.sources.tflite.operators import case_of
from converters.sources.tflite.reader import read_tflite
from tests.converters.sources.tflite.drawings import BUILDERS
from tests.converters.sources.tflite.drawn import Draw
from tests.converters.sources.tflite.single_operator import run_litert, run_onnx


@dataclass(frozen=True)
class Outcome:
    """What a generated model gave.

    Attributes:
        name: which builder made it.
        case: the dtype and the case of its row.
        worst: the largest distance from LiteRT, in codes; None where LiteRT does not run the model.
        bound: what the rows allow.
        kernel: which of LiteRT's kernels ran.
        claimed: which one the row names.
        refusal: why one of both refuses the model; empty where both run it.
    """

    name: str
    case: str
    worst: float | None
    bound: int
    kernel: str = ""
    claimed: str = ""
    refusal: str = ""

    @property
    def is_as_said(self) -> bool:
        """Whether the graph is as near to LiteRT as the row says; true where LiteRT refuses the model."""
        return self.worst is None or (self.worst <= self.bound and not self.refusal)


def draw_of(seed: int, only: str = "") -> tuple[str, Draw, bytes]:
    """The model of a seed: its builder's name, what was drawn, and the file."""
    rng = np.random.default_rng(seed)
    name = only or list(BUILDERS)[int(rng.integers(len(BUILDERS)))]
    shape = (1, *(int(side) for side in rng.integers(4, 9, 2)), int(rng.integers(1, 8)))
    draw = Draw(rng, "uint8" if rng.random() < 0.3 else "int8", shape)
    return name, draw, BUILDERS[name](draw)


def run_case(seed: int, only: str = "") -> Outcome:
    """Make and compare the model of a seed."""
    name, draw, data = draw_of(seed, only)
    try:
        wanted, delegated = run_litert(data, draw.feeds)
    except (RuntimeError, ValueError) as error:
        return Outcome(name, draw.dtype, None, 0, refusal=str(error).strip())
    model = read_tflite(data, "generated.tflite")
    try:
        found = run_onnx(data, draw.feeds, "uint8")
    except ConversionError as error:
        return Outcome(name, draw.dtype, np.inf, 0, refusal=str(error))
    cases = [case for case in (case_of(model, op) for op in model.operators) if case is not None]
    worst = max(float(np.abs(a - b).max(initial=0)) for a, b in zip(found, wanted, strict=True))
    kernel = "XNNPACK" if delegated else "built-in"
    return Outcome(
        name,
        f"{draw.dtype} {cases[-1].when}".strip(),
        worst,
        sum(case.bound_lsb for case in cases),
        kernel,
        cases[-1].kernel if len(cases) == 1 else kernel,
    )


def main() -> None:
    """Run the cases of a range of seeds, and print what they gave."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the first case")
    parser.add_argument("--only", default="", choices=["", *BUILDERS], help="one kind of model")
    given = parser.parse_args()
    ran, refused, kernels, wrong = Counter[str](), Counter[str](), Counter[tuple[str, ...]](), 0
    for seed in range(given.seed, given.seed + given.cases):
        outcome = run_case(seed, given.only)
        (refused if outcome.worst is None else ran)[outcome.name] += 1
        if outcome.worst is not None:
            exact = "equal" if outcome.worst == 0 else "not equal"
            kernels[outcome.name, outcome.case, outcome.claimed, outcome.kernel, f"<= {outcome.bound}", exact] += 1
        if not outcome.is_as_said:
            wrong += 1
            print(f"seed {seed}: {outcome.name} ({outcome.case}) differs by {outcome.worst}, its row allows "  # noqa: T201
                  f"{outcome.bound} {outcome.refusal}", flush=True)  # fmt: skip
    for key, count in sorted(kernels.items()):
        print(count, *key, sep=" | ")  # noqa: T201
    print(f"{ran.total()} ran, {refused.total()} refused by LiteRT, {wrong} beyond their row: {dict(ran)}")  # noqa: T201
    print(f"refused: {dict(refused)}")  # noqa: T201


if __name__ == "__main__":
    main()
