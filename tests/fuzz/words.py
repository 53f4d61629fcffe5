"""Mutants of what describes a detector beside its layers: options of custom operators, metadata, priors, cfg."""

from __future__ import annotations

import io
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.convert import convert_to_bytes
from converters.description.config import read_config
from converters.description.priors import READERS, PriorStatement, read_priors
from converters.description.statements import SourceOptions, describe_source
from converters.errors import ConversionError
from converters.facts import SourceFacts, SourceOutput
from converters.options import ConvertOptions
from tests.fuzz.mutations import bend_bytes, bend_tflite, bend_tree, to_json
from xdet.inspection import inspect
from xdet.inspection.report import inspection_report
from xdet.writing.terminal import report_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from random import Random

NAMES = ("a", "b", "c", "d")
LITERALS = (
    *("{0: 'a', 1: 'b'}", "['a', 'b']", "{" * 9, "-" * 9000, "(" * 5000, "'" * 3, "[1] * 9**9", "9" * 9000),
    *("{0: 'a', 0: 'b'}", "[64, 64]", "[1e400, 0]", "{1j: None}", "b'a'", "f'{1}'", "{[]: 1}", "\\N{a}", "\0"),
)
CFG_WORDS = (
    *("[yolo]", "[region]", "[net]", "[", "mask=", "mask=9999", "mask=0,0,0", "anchors=", "anchors=1,nan"),
    *("anchors=1e400,1", "classes=999999", "classes=-1", "scale_x_y=inf", "scale_x_y=1/0", "new_coords=1"),
    *("width=0", "width=999999", "channels=7", "=", "#", "\x1b[2J=\x1b", "anchors=" + "1," * 4000),
)


@cache
def ssd_corpus() -> tuple[bytes, ...]:
    """Every way in which an SSD states its priors."""
    from tests.converters.sources.tflite.ssd_networks import ssd_raw, ssd_with_postprocess

    return (
        ssd_with_postprocess(),
        ssd_with_postprocess(use_regular_nms=True),
        ssd_raw(),
        ssd_raw("constant"),
        ssd_raw("joined"),
    )


def make_ssd(random: Random) -> bytes:
    """Half of them with bent options of the operator behind the outputs."""
    if random.random() < 0.5:
        return bend_tflite(random, random.choice(ssd_corpus()))
    import ai_edge_litert.schema_py_generated as schema
    import flatbuffers

    model = schema.ModelT.InitFromPackedBuf(ssd_corpus()[random.randrange(2)], 0)
    operator = model.subgraphs[0].operators[-1]
    operator.customOptions = list(bend_bytes(random, bytes(operator.customOptions)))
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def run_ssd(path: Path) -> None:
    """Inspect it and convert it, with generated priors where it has none."""
    inspect(path)
    source_options = SourceOptions(head="ssd", priors=PriorStatement("coco-ssd"))
    try:
        convert_to_bytes(path, ConvertOptions(source=SourceOptions()))
    except ConversionError:
        convert_to_bytes(path, ConvertOptions(source=source_options))


@cache
def metadata_corpus() -> tuple[bytes, bytes, tuple[dict[str, str], ...]]:
    """A network without metadata, TFLite's metadata, and the members of ZIPs."""
    from tests.converters.sources.tflite.test_metadata import flatbuffer_metadata, network
    from tests.converters.test_facts import ULTRALYTICS, YAML

    json = to_json({**ULTRALYTICS, "names": {"0": "person", "1": "dog"}}).decode()
    members: tuple[dict[str, str], ...] = (
        {"metadata__json": json},
        {"metadata__yaml": YAML},
        {"temp_meta__txt": str(ULTRALYTICS)},
        {"classes__txt": "person\ndog\n"},
    )
    return network(), flatbuffer_metadata(mean=[127.5], std=[127.5, 127.5]), members


def make_metadata(random: Random) -> bytes:
    """Bent members of a ZIP, a bent ZIP, bent metadata, or ``metadata_props`` of an ONNX file."""
    from tests.converters.sources.tflite.test_metadata import network, with_files

    plain, metadata, archives = metadata_corpus()
    kind = random.randrange(4)
    if kind == 0:
        return _with_props(random)
    if kind == 1:
        plain = network(metadata=bend_bytes(random, metadata))
    members = dict(random.choice(archives))
    if kind == 2:
        name = random.choice(list(members))
        text = bend_bytes(random, members[name].encode()).decode("utf-8", "replace")
        members[name] = random.choice((text, text, random.choice(LITERALS)))
    data = with_files(plain, **members)
    return data if kind < 3 else data[:-200] + bend_bytes(random, data[-200:])


def _with_props(random: Random) -> bytes:
    from tests.converters.sources.onnx.networks import yolo_v8

    words = {"names": "{0: 'a', 1: 'b'}", "stride": "32", "imgsz": "[64, 64]", "task": "detect"}
    key = random.choice(list(words))
    bent = bend_bytes(random, words[key].encode()).decode("utf-8", "replace")
    words[key] = random.choice((bent, random.choice(LITERALS)))
    return yolo_v8(shape=(1, 3, 64, 64), metadata=words)


def run_metadata(path: Path) -> None:
    """Inspect the file under the suffix of its format."""
    suffix = ".tflite" if path.read_bytes()[4:8] == b"TFL3" else ".onnx"
    renamed = path.rename(path.with_suffix(suffix))
    report_text(inspection_report(inspect(renamed)))


@cache
def priors_corpus() -> tuple[bytes, ...]:
    rows = np.array([[0.5, 0.5, 0.25, 0.5, 0.1, 0.1, 0.2, 0.2], [0.25, 0.5, 0.5, 0.5, 0.1, 0.1, 0.2, 0.2]])
    csv = "\n".join(",".join(map(str, row)) for row in rows.tolist()).encode()
    found = [csv]
    for table in (rows, rows.astype(np.float32)[:, :4], (rows * 4).astype(np.uint8)):
        file = io.BytesIO()
        np.save(file, table)
        found.append(file.getvalue())
    return tuple(found)


def make_priors(random: Random) -> bytes:
    """Bent JSON, or bent bytes of .npy and .csv."""
    tree: dict[str, Any] = {
        "priors": [[0.5, 0.5, 0.25, 0.5], [0.25, 0.5, 0.5, 0.5]],
        "format": "yxhw",
        "variances": [0.1, 0.1, 0.2, 0.2],
    }
    if random.random() < 0.4:
        return to_json(bend_tree(random, tree if random.random() < 0.7 else tree["priors"]))
    return bend_bytes(random, random.choice(priors_corpus()))


def run_priors(path: Path) -> None:
    """As ``--priors`` under each of its suffixes."""
    _last_error([partial(read_priors, str(_copied(path, suffix)), (64, 64)) for suffix in READERS])


def make_cfg(random: Random) -> bytes:
    """Lines of a cfg exchanged, doubled, or with odd words; or bent bytes."""
    from tests.converters.description.test_config import V2, V3

    text = random.choice((V2, V3))
    if random.random() < 0.3:
        return bend_bytes(random, text.encode())
    lines = text.splitlines()
    for _ in range(random.choice((1, 1, 2, 3))):
        place = random.randrange(len(lines))
        kind = random.randrange(4)
        if kind == 0:
            del lines[place]
        elif kind == 1:
            lines.insert(place, random.choice(lines))
        elif kind == 2:
            lines[place] = random.choice(CFG_WORDS)
        else:
            lines[place] = bend_bytes(random, lines[place].encode()).decode("utf-8", "replace")
        lines = lines or [""]
    return "\n".join(lines).encode()


def run_cfg(path: Path) -> None:
    """As ``--config`` and ``--anchors`` with a source of matching outputs."""
    read_config(path)
    outputs = tuple(SourceOutput(str(side), (side, side, 18)) for side in (2, 4))
    facts = SourceFacts("m.tflite", 64, 64, outputs, "uint8", None)
    describe_source(path.with_name("m.tflite"), facts, SourceOptions(config=path))


def _copied(path: Path, suffix: str) -> Path:
    copy = path.with_name(f"copy{suffix}")
    copy.write_bytes(path.read_bytes())
    return copy


def _last_error(calls: list[Callable[[], object]]) -> None:
    """Make every call; raise what was refused last where each was."""
    errors = []
    for call in calls:
        try:
            call()
        except ConversionError as error:
            errors.append(error)
    if len(errors) == len(calls):
        raise errors[-1]
