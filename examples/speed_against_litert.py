"""How fast is the finished ONNX file, next to its TFLite source on LiteRT? One run, one table.

    python speed_against_litert.py [MODEL.tflite ...] [--images DIR] [--blocks 6] [--profile]

Without arguments it measures the detector that comes with xdet. Every number is the median of blocks that alternate
between the two runtimes; only one session is alive at a time, because idle sessions keep spinning threads. A ratio is
LiteRT's time divided by ONNX Runtime's: above 1, ONNX Runtime is the faster one. LiteRT runs its XNNPACK kernels, and
xdet's vectorised numpy head where boxes are wanted. The folder's ratio is to the better of LiteRT's one and two threads in
a plain loop; xdet works on one photograph per processor. Needs: pip install "xdet[litert]"
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from ai_edge_litert.interpreter import Interpreter  # noqa: TID253 - a program, not the library
from PIL import Image

import xdet
from converters.heads.nms import detect_from_head
from converters.spec import DetectorSpec, Thresholds
from xdet.detection.batch import detect_files
from xdet.detection.report import report_to_json
from xdet.pictures.images import find_images, network_pixels, read_image
from xdet.runtimes.processors import choose_workers

EMBEDDED = Path(xdet.__file__).parent / "data" / "tiny_yolo_v2_person_224_int8.tflite"
Run = Callable[[], object]


class Model:
    """One TFLite file with its two finished graphs and a picture at network size."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.source = source
        self.boxes, self.head = folder / f"{source.stem}.onnx", folder / f"{source.stem}_head.onnx"
        self.spec: DetectorSpec = xdet.convert(source, self.boxes, target="cpu").document.spec
        xdet.convert(source, self.head, target="cpu", head="none")
        self.baseline: Path | None = None
        if find_spec("tensorflow") is not None:
            self.baseline = folder / f"{source.stem}_tf2onnx.onnx"
            xdet.convert(source, self.baseline, importer="tf2onnx", head="none")
        picture = read_image(EMBEDDED.parent / "astronaut.jpg", honour_exif=True)
        self.image = network_pixels(picture, self.spec.image)[None]


def onnx_session(path: Path, threads: int, *, profile: str | None = None) -> ort.InferenceSession:
    """A session on the CPU, quiet about the optional thresholds."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, profile
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def litert_head(model: Model, threads: int) -> Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    """The TFLite file on XNNPACK: picture in, raw head out."""
    interpreter = Interpreter(model_path=str(model.source), num_threads=threads)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        interpreter.set_tensor(source, image)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(target))

    return run


def network_runs(model: Model, threads: int) -> list[Callable[[], Run]]:
    """Openers of the bare network: LiteRT, ONNX Runtime, and tf2onnx's graph of it where TensorFlow is installed."""

    def open_litert() -> Run:
        run = litert_head(model, threads)
        return lambda: run(model.image)

    def open_onnx(path: Path) -> Run:
        session = onnx_session(path, threads)
        return lambda: session.run(None, {"image": model.image})

    graphs = [model.head] if model.baseline is None else [model.head, model.baseline]
    return [open_litert, *(partial(open_onnx, path) for path in graphs)]


def box_runs(model: Model, score: float) -> list[Callable[[], Run]]:
    """Openers of picture -> boxes on one thread: LiteRT with the numpy head, ONNX Runtime; and of the bare network on it."""
    thresholds = Thresholds(score=score)

    def open_litert() -> Run:
        run = litert_head(model, 1)
        return lambda: detect_from_head(run(model.image), model.spec, thresholds)

    def open_onnx() -> Run:
        session = onnx_session(model.boxes, 1)
        feeds = {"image": model.image, "score_threshold": np.array(score, np.float32)}
        return lambda: session.run(None, feeds)

    return [open_litert, open_onnx, network_runs(model, 1)[1]]


def median_ms(openers: Sequence[Callable[[], Run]], blocks: int) -> list[float]:
    """Median milliseconds per call of each opener, in alternating blocks with one live session."""
    times: list[list[float]] = [[] for _ in openers]
    for _ in range(blocks):
        for opener, collected in zip(openers, times, strict=True):
            run = opener()
            for _ in range(3):
                run()
            until = time.perf_counter() + 0.25
            block = []
            while time.perf_counter() < until:
                started = time.perf_counter()
                run()
                block.append(time.perf_counter() - started)
            collected.append(statistics.median(block))
            del run
            gc.collect()
    return [1e3 * statistics.median(collected) for collected in times]


def plain_loop(model: Model, images: Sequence[Path], threads: int) -> None:
    """JPEG files to JSON text, as one writes it with Pillow and LiteRT."""
    run, size, found = litert_head(model, threads), model.spec.image, []
    for path in images:
        with Image.open(path) as picture:
            small = picture.convert("RGB").resize((size.width, size.height), Image.Resampling.BILINEAR)
        boxes = detect_from_head(run(np.asarray(small)[None]), model.spec, Thresholds())
        count = int(boxes.num_detections[0])
        found.append({"image": path.name, "boxes": boxes.boxes_xyxy[0, :count].tolist()})
    json.dumps(found)


def xdet_folder(model: Model, images: Sequence[Path]) -> None:
    """JPEG files to JSON text, as ``xdet detect`` does it."""
    with xdet.Detector(model.boxes, workers=choose_workers()) as detector:
        report_to_json(detect_files(detector, images))


def folder_rates(model: Model, images: Sequence[Path], blocks: int) -> list[float]:
    """Images per second from files to JSON, sessions opened on the way: LiteRT with one and two threads, ``xdet detect``."""
    sides: list[Run] = [
        partial(plain_loop, model, images, 1),
        partial(plain_loop, model, images, 2),
        partial(xdet_folder, model, images),
    ]
    rates: list[list[float]] = [[] for _ in sides]
    for _ in range(blocks + 1):  # the first round only warms the files and the processors
        for side, collected in zip(sides, rates, strict=True):
            started = time.perf_counter()
            side()
            collected.append(len(images) / (time.perf_counter() - started))
            gc.collect()
    return [statistics.median(collected[1:]) for collected in rates]


def int8_peak_gmacs(size: int = 1024) -> float:
    """What one thread reaches on a large MatMulInteger, in 10^9 multiply-accumulates per second."""
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(0).integers(-127, 128, (size, size)).astype(np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b"], ["y"])],
        "peak",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, [size, size])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [size, size])],
        [numpy_helper.from_array(weights, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    left = np.random.default_rng(1).integers(0, 256, (size, size)).astype(np.uint8)
    return size**3 / 1e6 / median_ms([lambda: lambda: session.run(None, {"a": left})], 3)[0]


def network_gmacs(model: Model) -> float:
    """Multiply-accumulates of the source network's convolutions, in 10^9."""
    import onnx

    plain = model.head.with_name("plain.onnx")
    xdet.convert(model.source, plain, head="none", force=True)
    graph = onnx.load(plain).graph
    weights = {t.name: list(t.dims) for t in graph.initializer}
    producers = {node.output[0]: node for node in graph.node}
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.value_info}
    total = 0
    for node in graph.node:
        if node.op_type == "Conv":
            total += int(
                np.prod(weights[producers[node.input[1]].input[0]]) * np.prod(shapes[node.output[0]][2:])
            )
    return total / 1e9


def operator_us(path: Path, image: np.ndarray[Any, Any], threads: int) -> dict[tuple[str, str], float]:
    """Median microseconds of every node of the optimised graph, by type and name, in order of execution."""
    with tempfile.TemporaryDirectory() as folder:
        session = onnx_session(path, threads, profile=str(Path(folder) / "profile"))
        for _ in range(60):
            session.run(None, {"image": image})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    durations: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = event["name"].removesuffix("_kernel_time")
            durations[event["args"]["op_name"], name].append(event["dur"])
    return {key: statistics.median(values) for key, values in durations.items()}


def print_profile(model: Model) -> None:
    """The network's operators on one thread and on two: the costly ones, then all of them by type."""
    one, two = (operator_us(model.head, model.image, threads) for threads in (1, 2))
    total = sum(one.values())
    print("    us on one thread, share, us on two threads (profiling adds 1 to 3 us to each node)")
    for (kind, name), value in sorted(one.items(), key=lambda item: -item[1])[:12]:
        print(f"    {value:7.0f}  {value / total:6.1%}  {two[kind, name]:7.0f}  {kind:18s} {name[-50:]}")
    for kind in dict.fromkeys(kind for kind, _ in one):
        sums = [sum(us for (k, _), us in times.items() if k == kind) for times in (one, two)]
        count = sum(k == kind for k, _ in one)
        print(f"    {sums[0]:7.0f}  {sums[0] / total:6.1%}  {sums[1]:7.0f}  all {count} {kind}")


def measure(model: Model, images: Sequence[Path], blocks: int, peak: float) -> None:
    """Print one model's rows."""
    print(f"\n{model.source.name}  {model.spec.image.height} x {model.spec.image.width}")
    for threads in (1, 2):
        litert, onnx, *baseline = median_ms(network_runs(model, threads), blocks)
        rate = network_gmacs(model) / onnx * 1e3
        share = f", {rate:.0f} GMAC/s = {rate / peak:.2f} of the int8 peak" if threads == 1 else ""
        ratio = f"{litert:.2f} -> {onnx:.2f} ms, ratio {litert / onnx:.2f}"
        before = "".join(f" (tf2onnx's graph {litert / other:.2f})" for other in baseline)
        print(f"  network, {threads} thread{'s'[: threads - 1]}: {ratio}{before}{share}")
    for score in (0.5, 0.001):
        litert, onnx, network = median_ms(box_runs(model, score), blocks)
        share = f", fused head {(onnx - network) / onnx:.1%}" if score == 0.5 else ""
        print(
            f"  picture -> boxes above {score}: {litert:.2f} -> {onnx:.2f} ms, ratio {litert / onnx:.2f}{share}"
        )
    one, two, onnx = folder_rates(model, images, blocks)
    print(
        f"  {len(images)} JPEG files -> JSON: {two:.0f} ({one:.0f} with one thread) -> {onnx:.0f} images/s, "
        f"ratio {onnx / max(one, two):.2f}"
    )


def main() -> None:
    """Measure every model named on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", type=Path, help="TFLite detectors with their sidecars")
    parser.add_argument("--images", type=Path, default=EMBEDDED.parent, help="folder of JPEG files")
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--profile", action="store_true", help="also print where the time goes")
    arguments = parser.parse_args()
    print(
        f"onnxruntime {ort.__version__}, {platform.machine()}, {platform.system()}, Python {platform.python_version()}"
    )
    peak = int8_peak_gmacs()
    print(f"int8 peak of one thread (MatMulInteger 1024^3): {peak:.0f} GMAC/s")
    images = find_images([arguments.images])
    with tempfile.TemporaryDirectory() as folder:
        for source in arguments.models or [EMBEDDED]:
            model = Model(source, Path(folder))
            measure(model, images, arguments.blocks, peak)
            if arguments.profile:
                print_profile(model)


if __name__ == "__main__":
    main()
