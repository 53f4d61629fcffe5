"""Every back end that runs finished models keeps one contract, each within what it declares it can do."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import onnx
import pytest

from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.heads.nms import detect_from_head
from converters.options import ConvertOptions
from converters.spec import HEAD, NETWORK_IMAGE, Arithmetic, ResizeRule, Thresholds
from tests.converters.sources.tflite.look_alikes import fastestdet
from tests.converters.sources.tflite.networks import HEAD_CHANNELS, NetworkBuilder
from tests.converters.sources.tflite.ssd_networks import ssd_raw
from tests.xdet.finished_models import finished_model, red_image
from xdet.checking.pair import open_pair
from xdet.checking.runs import Work, run_finished
from xdet.checking.runtimes import OpenRuntimes
from xdet.errors import MissingExtraError, ModelError, RuntimeUnavailableError, UsageError
from xdet.model.file import ModelFile, read_document
from xdet.model.wire import freeze_thresholds
from xdet.runtimes.base import RuntimeChoices
from xdet.runtimes.finished import open_at
from xdet.runtimes.table import RUNTIMES, open_model, providers_here

if TYPE_CHECKING:
    import subprocess

    from numpy.typing import NDArray

    from xdet.runtimes.base import Runtime

FINISHED = (
    *("onnxruntime:cpu", "onnxruntime-unfused:cpu", "openvino:cpu", "onnxruntime-web:wasm", "onnx-reference:numpy"),
    *("onnxruntime-web:chromium", "onnxruntime-node:cpu", "opencv:cpu", "tract:cpu", "tvm:cpu", "iree:llvm-cpu"),
)
COMPILED = {"opencv:cpu", "tract:cpu", "tvm:cpu", "iree:llvm-cpu"}  # for one image
FEEDS_THRESHOLDS = {"onnxruntime:cpu", "onnxruntime-unfused:cpu", "onnx-reference:numpy"}
WEBGPU = "onnxruntime-web:chromium-webgpu"
DROPS_FLAT_BOXES = {"opencv:cpu"}  # as docs/runtimes.md says
INNER = "max_pool_2d_2"
SIZE = 64
ASKED = [Thresholds(score, 0.45) for score in (0.2, 0.5, 0.9)] + [Thresholds(0.2, iou) for iou in (0.3, 0.99)]


def require_here(name: str) -> None:
    """Skip by name what is not installed."""
    row = RUNTIMES[name.partition(":")[0]]
    if row.extra is not None and not row.installed:
        pytest.skip(f'needs pip install "xdet[{row.extra}]"')
    if not row.package and name.partition(":")[2] not in providers_here(name.partition(":")[0]):
        pytest.skip(
            "needs Node (or Chromium) and npm install onnxruntime-web onnxruntime-node; XDET_NODE_MODULES names their "
            "folder"
        )


LOW = SourceOptions(
    anchors=((2.0, 2.0), (3.0, 4.0), (4.0, 3.0), (2.5, 2.5), (1.5, 1.7)),
    anchor_unit="cell",
    class_names=("person",),
    score_threshold=0.05,
    iou_threshold=0.45,
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small detector of 8 x 8 cells."""
    path = tmp_path_factory.mktemp("small") / "small.tflite"
    network = NetworkBuilder(SIZE, seed=3, gain=8.0).conv(16, stride=2, activation="RELU").max_pool()
    path.write_bytes(network.conv(32, activation="RELU").max_pool().conv(HEAD_CHANNELS, 1).build())
    return path


@pytest.fixture(scope="module")
def models(source: Path) -> dict[str, bytes]:
    """The detector with a low threshold and many boxes; ending at the raw head; and with a free batch."""
    raw = replace(LOW, head="none")
    return {
        "boxes": convert_to_bytes(source, ConvertOptions(source=LOW)).model,
        "head": convert_to_bytes(source, ConvertOptions(source=raw)).model,
        "free": convert_to_bytes(source, ConvertOptions(source=LOW, batch="dynamic")).model,
    }


@pytest.fixture(scope="module")
def any_size(source: Path) -> dict[str, bytes]:
    """The detector for photographs of any size, by resize rule."""
    return {
        rule: convert_to_bytes(
            source, ConvertOptions(source=replace(LOW, resize=rule), any_size=True, freeze_thresholds=True)
        ).model
        for rule in get_args(ResizeRule)
    }


@pytest.fixture(scope="module")
def noise() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)


def opened(name: str, model: bytes) -> Runtime:
    require_here(name)
    runtime, provider = name.split(":")
    return open_model(ModelFile(Path("m.onnx"), model, "onnx"), RuntimeChoices(runtime, provider, threads=1))


@pytest.mark.parametrize("name", FINISHED)
def test_a_runtime_gives_boxes_and_head_of_one_graph(
    name: str, models: dict[str, bytes], noise: NDArray[np.uint8]
) -> None:
    with opened(name, models["boxes"]) as runtime:
        thresholds = runtime.spec.thresholds
        head, found = runtime.head(noise), runtime.detect(noise, thresholds)
        expected = detect_from_head(head, runtime.spec, thresholds)
        assert runtime.name == name
        assert runtime.batch == 1
        assert runtime.sha256 == hashlib.sha256(models["boxes"]).hexdigest()
        assert (head.shape, head.dtype) == ((2, 8, 8, 30), np.dtype(np.float32))
        assert found.num_detections.tolist() == expected.num_detections.tolist()
        assert found.num_detections.min() >= 2
        assert [getattr(found, field).dtype for field in ("num_detections", "classes", "anchors")] == [np.int32] * 3
        for image in range(2):
            assert set(found.anchors[image].tolist()) == set(expected.anchors[image].tolist())
        # sorted scores: ties may change places, and exp differs by a few units in the last place
        np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", ["onnxruntime-node:cpu", "onnxruntime-web:wasm"])
def test_int8_codes_with_several_readers_are_exact_in_javascript(name: str, tmp_path: Path) -> None:
    source = tmp_path / "net.tflite"
    source.write_bytes(ssd_raw())
    uint8 = ConvertOptions(source=SourceOptions(head="none"))
    heads = []
    for runtime, options in (("onnxruntime:cpu", uint8), (name, replace(uint8, activations="int8"))):
        with opened(runtime, convert_to_bytes(source, options).model) as network:
            images = np.random.default_rng(0).integers(0, 256, (6, *network.spec.image.shape), np.uint8)
            heads.append(network.head(images))
    assert np.array_equal(heads[0], heads[1])


@pytest.mark.parametrize("name", FINISHED)
def test_a_runtime_that_declares_thresholds_takes_lower_ones_and_the_others_refuse(
    name: str, models: dict[str, bytes], noise: NDArray[np.uint8]
) -> None:
    with opened(name, models["boxes"]) as runtime:
        assert runtime.capabilities.thresholds == (name in FEEDS_THRESHOLDS)
        own, lower = runtime.spec.thresholds, replace(runtime.spec.thresholds, score=0.01)
        if not runtime.capabilities.thresholds:
            with pytest.raises(UsageError, match=r"frozen at 0\.05, 0\.01 is below it"):
                runtime.detect(noise[:1], lower)
            higher = runtime.detect(noise[:1], replace(own, score=0.3))
            count = int(higher.num_detections[0])
            assert 0 < count < int(runtime.detect(noise[:1], own).num_detections[0])
            assert (higher.scores[0, :count] > np.float32(0.3)).all()
            return
        found = [int(runtime.detect(noise[:1], t).num_detections[0]) for t in (own, lower)]
        assert found[0] < found[1]


@pytest.mark.parametrize("name", FINISHED)
def test_a_runtime_shows_inner_codes_and_refuses_names_it_has_not(
    name: str, models: dict[str, bytes], noise: NDArray[np.uint8]
) -> None:
    with opened(name, models["boxes"]) as runtime, opened("onnxruntime:cpu", models["boxes"]) as known:
        codes = runtime.tensors(noise[:1], [INNER])[INNER]
        assert (codes.shape, codes.dtype) == ((1, 16, 16, 16), np.dtype(np.uint8))
        # one convolution, one code apart at most, and a table whose steps are up to two codes
        off = np.abs(codes.astype(np.int64) - known.tensors(noise[:1], [INNER])[INNER])
        assert off.max() <= 2
        with pytest.raises(UsageError, match="computes no value named 'missing'"):
            runtime.tensors(noise[:1], ["missing"])


@pytest.mark.parametrize("name", [name for name in FINISHED if name not in COMPILED])  # which compile for minutes
def test_a_runtime_shows_a_value_again_beside_another(
    name: str, models: dict[str, bytes], noise: NDArray[np.uint8]
) -> None:
    with opened(name, models["boxes"]) as runtime:
        alone = runtime.tensors(noise[:1], [INNER])
        both = runtime.tensors(noise[:1], [INNER, HEAD])
        assert list(both) == [INNER, HEAD]
        assert np.array_equal(both[INNER], alone[INNER])
        assert np.array_equal(both[HEAD], runtime.head(noise[:1]))


@pytest.mark.parametrize("name", FINISHED)
def test_a_runtime_decodes_a_model_that_ends_at_the_head(
    name: str, models: dict[str, bytes], noise: NDArray[np.uint8]
) -> None:
    with opened(name, models["head"]) as runtime:
        assert runtime.capabilities.thresholds
        found = runtime.detect(noise[:1], Thresholds(0.01, 0.4, 20))
        assert found.scores.shape == (1, 20)
        assert int(found.num_detections[0]) == 20


@pytest.mark.parametrize("name", FINISHED)
def test_a_runtime_refuses_wrong_images_and_everything_once_it_is_closed(name: str) -> None:
    with opened(name, finished_model()) as runtime:
        assert int(runtime.detect(red_image(0, 255, 204, 0), Thresholds(0.6, 0.5, 4)).num_detections[0]) == 2
        with pytest.raises(UsageError, match="expected images as uint8"):
            runtime.detect(np.zeros((1, 3, 3, 3), np.uint8), Thresholds(max_detections=4))
    with pytest.raises(UsageError, match="was closed; open it again"):
        runtime.detect(red_image(0, 255, 204, 0), Thresholds(0.6, 0.5, 4))
    runtime.close()


@pytest.mark.parametrize("name", FINISHED)
def test_a_free_batch_takes_several_images_at_once(name: str) -> None:
    images = np.concatenate([red_image(0, 0, 0, 255), red_image(255, 255, 204, 0), red_image(0, 0, 0, 0)])
    with opened(name, finished_model(batch="N")) as runtime:
        assert runtime.batch == (1 if name in COMPILED else None)
        found = runtime.detect(images, Thresholds(0.6, 0.5, 4))
        assert found.num_detections.tolist() == [1, 3, 0]


@pytest.mark.parametrize("name", FINISHED)
def test_a_detector_with_a_free_batch_finds_what_one_image_at_a_time_finds(
    name: str, models: dict[str, bytes], noise: NDArray[np.uint8]
) -> None:
    with opened(name, models["free"]) as free, opened("onnxruntime:cpu", models["boxes"]) as known:
        thresholds = free.spec.thresholds
        found, expected = free.detect(noise, thresholds), known.detect(noise, thresholds)
        assert found.num_detections.tolist() == expected.num_detections.tolist()


@pytest.mark.parametrize("name", FINISHED)
def test_thresholds_give_the_boxes_of_a_copy_that_holds_them_as_constants(
    name: str, source: Path, models: dict[str, bytes], noise: NDArray[np.uint8]
) -> None:
    require_here(name)
    runtime, provider = name.split(":")
    choices = RuntimeChoices(runtime, provider, threads=1)
    source.with_suffix(".onnx").write_bytes(models["boxes"])
    pair = open_pair(source.with_suffix(".onnx"), source, LOW)
    with OpenRuntimes(pair) as runtimes:
        run = run_finished(pair.model, choices, Work(noise[:1], tuple(ASKED)), runtimes)
    assert [asked for asked, _ in run.boxes] == ASKED
    document = read_document(models["boxes"], file="m.onnx")
    counts = []
    for asked, found in run.boxes:
        with opened("onnxruntime:cpu", freeze_thresholds(models["boxes"], document, asked)) as frozen:
            expected = frozen.detect(noise[:1], asked)
        counts.append(int(found.num_detections[0]))
        assert counts[-1] == int(expected.num_detections[0])
        assert set(found.anchors[0].tolist()) == set(expected.anchors[0].tolist())
        np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=2e-6)
    assert counts[0] > counts[1] > counts[2] > 0
    assert counts[3] < counts[0] < counts[4]


@pytest.mark.parametrize("name", [*FINISHED, WEBGPU])
def test_detecting_at_any_thresholds_gives_the_boxes_of_a_frozen_copy(
    name: str, models: dict[str, bytes], noise: NDArray[np.uint8]
) -> None:
    require_here(name)
    runtime, provider = name.split(":")
    document = read_document(models["boxes"], file="m.onnx")
    file = ModelFile(Path("m.onnx"), models["boxes"], "onnx")
    with open_at(file, RuntimeChoices(runtime, provider, threads=1), lambda _: ASKED[0]) as everywhere:
        assert everywhere.capabilities.thresholds
        assert everywhere.spec.thresholds == document.spec.thresholds
        assert everywhere.sha256 == hashlib.sha256(models["boxes"]).hexdigest()
        for asked in ASKED:
            found = everywhere.detect(noise[:1], asked)
            with opened("onnxruntime:cpu", freeze_thresholds(models["boxes"], document, asked)) as frozen:
                expected = frozen.detect(noise[:1], asked)
            assert found.num_detections.tolist() == expected.num_detections.tolist()
            assert set(found.anchors[0].tolist()) == set(expected.anchors[0].tolist())
            np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=2e-6)  # exp's last bits
    with pytest.raises(UsageError, match="was closed; open it again"):
        everywhere.detect(noise[:1], ASKED[3])


@pytest.mark.parametrize("name", FINISHED)
def test_a_head_of_fewer_boxes_than_rows_keeps_boxes_of_no_area(
    name: str, tmp_path: Path, noise: NDArray[np.uint8]
) -> None:
    require_here(name)
    (tmp_path / "few.tflite").write_bytes(fastestdet(1))
    options = ConvertOptions(source=SourceOptions(score_threshold=0.1))
    few = convert_to_bytes(tmp_path / "few.tflite", options).model
    with opened(name, few) as runtime, opened("onnxruntime:cpu", few) as known:
        thresholds = known.spec.thresholds
        assert known.spec.num_boxes < thresholds.max_detections
        found, expected = runtime.detect(noise, thresholds), known.detect(noise, thresholds)
    filled = expected.anchors >= 0
    sides = expected.boxes_xyxy[..., 2:] - expected.boxes_xyxy[..., :2]
    assert filled.sum() > (sides.prod(axis=-1) == 0)[filled].sum() >= 1
    if name not in DROPS_FLAT_BOXES:
        assert found.num_detections.tolist() == expected.num_detections.tolist()
        np.testing.assert_array_equal(np.sort(found.anchors), np.sort(expected.anchors))


def test_iree_refuses_what_it_would_suppress_wrong(tmp_path: Path) -> None:
    require_here("iree:llvm-cpu")
    (tmp_path / "three.tflite").write_bytes(fastestdet(3))
    three = convert_to_bytes(tmp_path / "three.tflite", ConvertOptions()).model
    with pytest.raises(RuntimeUnavailableError, match=r"IREE suppresses boxes of one class, this head .* of 3 classes"):
        opened("iree:llvm-cpu", three)


@pytest.mark.parametrize("arithmetic", ["litert", "fused"])
def test_tract_runs_a_softmax_of_codes_as_xdet_writes_it(
    arithmetic: Arithmetic, tmp_path: Path, noise: NDArray[np.uint8]
) -> None:
    require_here("tract:cpu")
    (tmp_path / "three.tflite").write_bytes(fastestdet(3))
    three = convert_to_bytes(tmp_path / "three.tflite", ConvertOptions(arithmetic=arithmetic)).model
    with opened("tract:cpu", three) as runtime, opened("onnxruntime:cpu", three) as known:
        np.testing.assert_array_equal(runtime.head(noise), known.head(noise))


def test_tract_refuses_a_softmax_of_codes_that_it_computes_wrong(tmp_path: Path) -> None:
    require_here("tract:cpu")
    (tmp_path / "three.tflite").write_bytes(fastestdet(3))
    three = convert_to_bytes(tmp_path / "three.tflite", ConvertOptions(arithmetic="fused")).model
    model = onnx.load_model_from_string(three)
    (softmax,) = [node for node in model.graph.node if node.op_type == "Softmax"]
    (least,) = [node for node in model.graph.node if softmax.output[0] in node.input]
    softmax.output[0] = least.output[0]  # as xdet wrote it before
    model.graph.node.remove(least)
    with pytest.raises(RuntimeUnavailableError, match="tract computes a Softmax of codes wrong"):
        opened("tract:cpu", model.SerializeToString())


def test_every_runtime_of_the_table_that_takes_finished_files_keeps_the_contract() -> None:
    table = {name for name, row in RUNTIMES.items() if "onnx" in row.formats}
    assert {name.partition(":")[0] for name in FINISHED} == table
    listed = {f"{name}:{kind}" for name in table for kind in RUNTIMES[name].only}
    assert listed <= {*FINISHED, WEBGPU}


@pytest.mark.parametrize("rule", get_args(ResizeRule))
@pytest.mark.parametrize("name", [name for name in FINISHED if name != "onnx-reference:numpy"])  # 8 s a call
def test_a_file_for_any_size_finds_what_onnx_runtime_finds_or_is_refused(
    name: str, rule: ResizeRule, any_size: dict[str, bytes], noise: NDArray[np.uint8]
) -> None:
    model = any_size[rule]
    photograph = noise[:1, :48].repeat(2, axis=2)
    require_here(name)
    row = RUNTIMES[name.partition(":")[0]]
    if rule not in row.any_size:
        with pytest.raises(
            RuntimeUnavailableError, match=r"any size with resize .*convert the source without `any_size`"
        ):
            opened(name, model)
        return
    with opened(name, model) as runtime, opened("onnxruntime:cpu", model) as usual:
        thresholds = runtime.spec.thresholds
        found, wanted = (each.detect(photograph, thresholds) for each in (runtime, usual))
        heads = [each.head(photograph) for each in (runtime, usual)]
        pixels, exact = (each.tensors(photograph, [NETWORK_IMAGE])[NETWORK_IMAGE] for each in (runtime, usual))
    off = np.abs(pixels.astype(int) - exact)
    assert off.max() <= (1 if name == "openvino:cpu" else 0)
    if not np.array_equal(heads[0], heads[1]):  # of runtimes that round activations in another way
        return
    np.testing.assert_array_equal(found.anchors, wanted.anchors)
    np.testing.assert_allclose(found.boxes_xyxy, wanted.boxes_xyxy, rtol=0, atol=1e-6)  # exp rounds differently


@pytest.mark.parametrize("name", FINISHED)
def test_a_damaged_file_is_a_model_error(name: str, models: dict[str, bytes]) -> None:
    cut = models["boxes"].replace(b"MaxPool", b"MaxPooh")
    with pytest.raises(ModelError, match=r"'m\.onnx': .*MaxPooh"):
        opened(name, cut).head(np.zeros((1, SIZE, SIZE, 3), np.uint8))


def test_openvino_that_is_not_installed_gives_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r'pip install "xdet\[openvino\]"'):
        opened_anyway("openvino")


def test_an_openvino_too_old_for_a_file_is_told_with_the_release_that_it_needs(
    any_size: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    require_here("openvino:cpu")
    monkeypatch.setattr("openvino.__version__", "2025.3.0-19807-of-a-build")
    told = r"OpenVINO 2025\.3\.0 is installed, expected 2025\.4 or newer: 'm\.onnx' does not load in .*; .*\[openvino\]"
    with pytest.raises(RuntimeUnavailableError, match=told):
        opened("openvino:cpu", any_size["letterbox"])


def test_an_openvino_device_that_is_not_there_is_told_with_those_that_are() -> None:
    require_here("openvino:cpu")
    with pytest.raises(RuntimeUnavailableError, match="'npu9' is not available: OpenVINO has cpu"):
        opened_anyway("openvino", "npu9")


def test_kernels_that_a_runtime_has_not_are_told_with_those_it_has() -> None:
    with pytest.raises(
        RuntimeUnavailableError, match=r"'webgl' is not available for .* runs on onnxruntime-web: it has wasm, chromium"
    ):
        opened_anyway("onnxruntime-web", "webgl")


def test_kernels_are_named_in_any_case(models: dict[str, bytes]) -> None:
    require_here("onnxruntime-web:wasm")
    with opened("onnxruntime-web:WASM", models["head"]) as runtime:
        assert runtime.name == "onnxruntime-web:wasm"


def opened_anyway(name: str, provider: str | None = None) -> Runtime:
    return open_model(ModelFile(Path("m.onnx"), finished_model(), "onnx"), RuntimeChoices(name, provider))


def test_a_missing_npm_package_gives_the_line_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDET_NODE_MODULES", str(tmp_path))
    assert providers_here("onnxruntime-web") == ()
    with pytest.raises(RuntimeUnavailableError, match=r"npm install onnxruntime-web.*XDET_NODE_MODULES"):
        opened_anyway("onnxruntime-web")


@pytest.fixture
def empty_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An npm package of that name that holds nothing to load."""
    package = tmp_path / "onnxruntime-web"
    package.mkdir()
    (package / "package.json").write_text('{"name": "onnxruntime-web"}', "utf-8")
    monkeypatch.setenv("XDET_NODE_MODULES", str(tmp_path))
    return package


@pytest.mark.usefixtures("empty_package")
def test_a_node_package_that_cannot_start_is_told_with_its_last_words() -> None:
    if shutil.which("node") is None:
        pytest.skip("needs node on the PATH (Debian: apt-get install nodejs)")
    with pytest.raises(RuntimeUnavailableError, match=r"onnxruntime-web ended: .*Cannot find"):
        opened_anyway("onnxruntime-web")


@pytest.mark.usefixtures("empty_package")
def test_without_node_the_web_runtime_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    assert providers_here("onnxruntime-web") == ()
    with pytest.raises(RuntimeUnavailableError, match="needs Node, which is not on the PATH"):
        opened_anyway("onnxruntime-web")


@pytest.mark.usefixtures("empty_package")
def test_without_chromium_the_web_runtime_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDET_CHROMIUM", "no-such-browser")
    with pytest.raises(RuntimeUnavailableError, match=r"apt-get install chromium.*XDET_CHROMIUM"):
        opened_anyway("onnxruntime-web", "chromium")


@pytest.mark.usefixtures("empty_package")
def test_a_chromium_that_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "onnxruntime-web" / "dist").mkdir()
    monkeypatch.setenv("XDET_CHROMIUM", sys.executable)  # which knows no such options, and ends
    with pytest.raises(RuntimeUnavailableError, match=r"did not open our page: it ended with exit code \d"):
        opened_anyway("onnxruntime-web", "chromium")


def test_no_node_process_outlives_its_runtime(models: dict[str, bytes]) -> None:
    runtime = opened("onnxruntime-web:wasm", models["head"])
    process: subprocess.Popen[bytes] = runtime._peer.process  # type: ignore[attr-defined]  # looked at from inside
    assert process.poll() is None
    runtime.close()
    assert process.poll() == 0
