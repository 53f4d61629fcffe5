"""What a benchmark is asked and what it finds, as frozen records."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, get_args

import numpy as np

from converters.spec import Target
from xdet.errors import UsageError
from xdet.runtimes.base import RuntimeChoices

if TYPE_CHECKING:
    from collections.abc import Sequence

    from converters.spec import Thresholds
    from xdet.inspection.coverage import Coverage
    from xdet.model.file import ModelFile

SOURCE = "source"
MOST_BLOCKS = 1000
NOISY = 0.05  # of all processors


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """How a benchmark is run.

    Attributes:
        threads: inside an operator; each model runs once on each number.
        blocks: how often every case has its turn.
        block_s: seconds of measured calls per turn and kind of call, at least ``blocks.LEAST_CALLS`` of them.
        pictures_per_block: photographs per turn that go the whole way from file to boxes.
        score_threshold: a box needs a score above it; None is each model's own.
        memory: also start a process per case that tells its peak memory.
        targets: what to convert each model for, which must be a source; measured beside it.
        profile: also measure the operators of what runs on ONNX Runtime's CPU provider.
    """

    threads: tuple[int, ...] = (1,)
    blocks: int = 5
    block_s: float = 0.25
    pictures_per_block: int = 32
    score_threshold: float | None = None
    memory: bool = True
    targets: tuple[Target, ...] = ()
    profile: bool = False

    def __post_init__(self) -> None:
        if not self.threads or len(set(self.threads)) < len(self.threads):
            raise UsageError(f"threads must be different numbers, got {list(self.threads)}; name each once")
        for count in self.threads:
            RuntimeChoices(threads=count)  # refuses what no machine has
        choices = get_args(Target)
        if len(set(self.targets)) < len(self.targets) or not set(self.targets) <= set(choices):
            raise UsageError(f"targets must be among {', '.join(choices)}, each once, got {', '.join(self.targets)}")
        if not 1 <= self.blocks <= MOST_BLOCKS:
            raise UsageError(f"blocks must lie in 1..{MOST_BLOCKS}, got {self.blocks}")
        if not self.block_s >= 0 or self.pictures_per_block < 1:
            raise UsageError("a block needs a duration of at least 0 s and at least one picture")
        if self.score_threshold is not None and not 0 <= self.score_threshold <= 1:
            raise UsageError(f"`score_threshold` must lie in 0..1, got {self.score_threshold!r}")


@dataclass(frozen=True, eq=False, slots=True)
class BenchCase:
    """One model on one runtime with one number of threads."""

    named: str  # the file as the caller named it
    graph: str  # SOURCE, or the target it was converted for; empty where nothing was converted
    model: ModelFile  # the file that runs, read once
    network: ModelFile  # the same without its head: what is timed as the network
    choices: RuntimeChoices  # runtime, provider and threads, each of them named


@dataclass(frozen=True, slots=True)
class Spread:
    """Many durations of one thing, in seconds: their median, their quartiles, and how many there were."""

    median_s: float
    low_s: float
    high_s: float
    count: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        """Summarise at least one duration."""
        low, median, high = np.percentile(np.asarray(seconds, np.float64), [25, 50, 75]).tolist()
        return cls(median, low, high, len(seconds))


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as fast as something else: of all turns' medians, and the quartiles of the turns' own ratios."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, others: Sequence[Sequence[float]], own: Sequence[Sequence[float]]) -> Ratio:
        """Compare seconds, one list per turn; both sides took their turns one after the other."""
        turns = [np.median(other) / np.median(mine) for other, mine in zip(others, own, strict=True)]
        low, high = np.percentile(turns, [25, 75]).tolist()
        value = Spread.of([*chain(*others)]).median_s / Spread.of([*chain(*own)]).median_s
        return cls(value, low, high)


@dataclass(frozen=True, slots=True)
class Operator:
    """What one node of the optimised graph takes, median of many runs; measuring adds 1 to 3 us to each."""

    kind: str
    name: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of a process that opens a model and runs it, in bytes of RAM (resident set)."""

    before_bytes: int  # Python with numpy and xdet, before the runtime is loaded
    peak_bytes: int  # the highest point of its life


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One model on one runtime with one number of threads.

    ``network_ratio`` is the ``network`` time of the first model with as many threads, divided by this one's: above 1
    this one is faster. Where files were converted, the first is their source, or the first target where that was not
    measured.
    """

    model: str  # the file as the caller named it
    graph: str  # "source", or the target it was converted for; empty where nothing was converted
    sha256: str  # of the bytes that ran
    runtime: str  # what ran it, such as "onnxruntime:cpu"
    threads: int  # inside an operator
    thresholds: Thresholds  # what counted as a box
    read: Spread  # reading and decoding one photograph
    resize: Spread  # stretching it to the network's size
    network: Spread  # pixels at network size -> raw head
    boxes: Spread | None  # pixels at network size -> final boxes; None where no head is known
    images_per_s: float  # from file to boxes, without a head to raw values, as many at a time as xdet detect works on
    coverage: Coverage | None  # MACs in integer kernels; None where the runtime does not tell
    memory: Memory | None  # None where it was not measured
    network_ratio: Ratio
    ratio: Ratio | None  # the same of boxes; None where one has none
    operators: tuple[Operator, ...] = ()  # in order of execution, if requested and the runtime tells them

    @property
    def head_s(self) -> float | None:
        """Decoding and suppression: what boxes take beyond the network, of the medians."""
        return None if self.boxes is None else self.boxes.median_s - self.network.median_s


@dataclass(frozen=True, slots=True)
class Machine:
    """The computer, without its name."""

    cpu: str  # the processor's name; empty where the system does not tell
    flags: tuple[str, ...] | None  # instruction sets that matter to integer networks, sorted; None where not told
    logical_cpus: int  # that the system has
    usable_cpus: int  # that this process may use
    system: str  # operating system and architecture
    saturates: bool  # whether ONNX Runtime's fast int8 kernels saturate here, so that xdet chooses exact, slower ones
    versions: dict[str, str]  # package -> version, of what took part


@dataclass(frozen=True, slots=True)
class Benchmark:
    """All that ``run_benchmark`` measured.

    Attributes:
        options: what decides the figures.
        machine: where they were measured.
        images: how many photographs took part.
        embedded_images: whether they were xdet's own samples.
        results: in the order of models, targets, runtimes, threads.
        others_share: of all processors, what other programs took meanwhile, 0..1; None where it is not known.
        notes: what could not be measured, and why.
        int8_peak: multiply-accumulates per second of a large product of 8-bit matrices on one thread, where operators
            were measured.
    """

    options: BenchOptions
    machine: Machine
    images: int
    embedded_images: bool
    results: tuple[CaseResult, ...]
    others_share: float | None
    notes: tuple[str, ...]
    int8_peak: float | None = None

    @property
    def is_noisy(self) -> bool:
        """Whether other programs took so much that the figures are not to be trusted."""
        return self.others_share is not None and self.others_share > NOISY
