"""Where the time of a network goes on ONNX Runtime: every node of the graph that it runs, from its own profile.

The int8 peak says what a core can do at best: a large product of 8-bit matrices on one thread.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xdet.bench.records import Operator
from xdet.runtimes.onnxruntime import open_onnxruntime
from xdet.runtimes.ort_session import OrtSession, SessionChoices

if TYPE_CHECKING:
    from xdet.bench.cases import BenchCase

RUNS = 60
SUFFIX = "_kernel_time"
PEAK_SIZE = 1024


def measure_operators(case: BenchCase) -> tuple[Operator, ...]:
    """The nodes of a case's network in order of execution; none but on ONNX Runtime's CPU provider."""
    if (case.choices.runtime, case.choices.provider) != ("onnxruntime", "cpu"):
        return ()
    with tempfile.TemporaryDirectory() as folder:
        prefix = str(Path(folder) / "profile")
        network = case.network
        with open_onnxruntime(network.data, file=network.file, choices=case.choices, profile_prefix=prefix) as runtime:
            noise = np.random.default_rng(0).integers(0, 256, (runtime.batch or 1, *runtime.spec.image.shape), np.uint8)
            for _ in range(RUNS):
                runtime.network(noise)
            events = json.loads(Path(runtime.end_profiling()).read_text(encoding="utf-8"))
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(SUFFIX):
            seconds[event["args"]["op_name"], event["name"].removesuffix(SUFFIX)].append(event["dur"] / 1e6)
    return tuple(Operator(kind, name, statistics.median(each)) for (kind, name), each in seconds.items())


def int8_peak() -> float:
    """Multiply-accumulates per second that one thread reaches in a MatMulInteger of 1024 x 1024 matrices."""
    from onnx import TensorProto, helper, numpy_helper

    shape, rng = [PEAK_SIZE, PEAK_SIZE], np.random.default_rng(0)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["left", "right"], ["product"])],
        "peak",
        [helper.make_tensor_value_info("left", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("product", TensorProto.INT32, shape)],
        [numpy_helper.from_array(rng.integers(-127, 128, shape).astype(np.int8), "right")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    session = OrtSession(model.SerializeToString(), file="peak", choices=SessionChoices(threads=1))
    feeds, seconds = {"left": rng.integers(0, 256, shape).astype(np.uint8)}, []
    for _ in range(RUNS):
        started = time.perf_counter()
        session.run(["product"], feeds)
        seconds.append(time.perf_counter() - started)
    session.close()
    return PEAK_SIZE**3 / statistics.median(seconds)
