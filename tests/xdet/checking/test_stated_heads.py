"""What options state of a source's anchors and priors is compared with the model's, for every head that takes them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from converters.convert import convert_to_bytes
from converters.options import ConvertOptions
from converters.spec import BY_TF2ONNX
from tests.converters.sources.tflite.look_alikes import three_grids
from tests.converters.sources.tflite.networks import ANCHORS, st_yolo_lc
from tests.converters.sources.tflite.ssd_networks import corners_xyxy, ssd_raw
from xdet.checking.heads.spread import why_not_exact
from xdet.checking.numbers import compare_description, uncompared
from xdet.checking.pair import OpenedPair, open_pair
from xdet.conversion import describing_options
from xdet.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PIXELS = tuple((float(6 * i), float(5 * i)) for i in range(1, 7))
FRACTIONS = tuple((w / 6, h / 6) for w, h in ANCHORS)
OTHERS = ("classes", "resize")


def converted(folder: Path, data: bytes, **said: Any) -> Callable[..., OpenedPair]:
    """Convert a source with options; what opens the pair with others."""
    source, model = folder / "net.tflite", folder / "net.onnx"
    source.write_bytes(data)
    model.write_bytes(convert_to_bytes(source, ConvertOptions(source=describing_options(**said))).model)
    return lambda **options: open_pair(model, source, describing_options(**options))


def findings(pair: OpenedPair) -> list[tuple[str, str]]:
    return [(finding.cause, finding.message) for finding in compare_description(pair)]


@pytest.mark.parametrize("head", [{}, {"head": "st_yolo_x", "anchor_unit": "cell"}, {"head": "yolo_v5_raw"}], ids=str)
def test_anchors_of_several_grids_are_compared(tmp_path: Path, head: dict[str, Any]) -> None:
    opened = converted(tmp_path, three_grids(14), anchors=PIXELS, **head)
    silent = opened()
    assert uncompared(silent) == ("anchors", *OTHERS)
    assert findings(silent) == []
    assert findings(opened(anchors=PIXELS)) == []
    assert uncompared(opened(anchors=PIXELS)) == OTHERS
    ((cause, message),) = findings(opened(anchors=[*PIXELS[:5], (36.0, 31.0)]))
    assert cause == "anchors"
    assert message.startswith("anchors of the grid 2 x 2: the source says ((")
    assert "in pixels, scale_x_y 1, the model ((" in message


def test_a_list_of_several_grids_that_cannot_be_is_refused(tmp_path: Path) -> None:
    opened = converted(tmp_path, three_grids(14), anchors=PIXELS)
    with pytest.raises(UsageError, match="--anchor-unit pixel"):
        opened(anchors=PIXELS, anchor_unit="cell")


def test_a_list_without_its_unit_asks_for_the_unit_alone(tmp_path: Path) -> None:
    opened = converted(tmp_path, st_yolo_lc(96), anchors=FRACTIONS, anchor_unit="cell", classes="person")
    assert uncompared(opened()) == ("anchors", *OTHERS)
    assert uncompared(opened(anchors=FRACTIONS)) == ("anchor-unit", *OTHERS)
    assert uncompared(opened(anchors=FRACTIONS, anchor_unit="image")) == OTHERS


def test_priors_are_compared(tmp_path: Path) -> None:
    right, moved = tmp_path / "priors.npy", tmp_path / "moved.npy"
    priors = corners_xyxy()
    np.save(right, priors)
    priors[7] += np.float32(0.01)
    np.save(moved, priors)
    said = {"prior_format": "xyxy", "variances": "0.1,0.1,0.2,0.2"}
    opened = converted(tmp_path, ssd_raw(), priors=right, **said)
    assert uncompared(opened()) == ("priors", *OTHERS)
    assert findings(opened(priors=right, **said)) == []
    assert uncompared(opened(priors=right, **said)) == OTHERS
    assert [cause for cause, _ in findings(opened(priors=moved, **said))] == ["priors"]
    assert findings(opened(priors=moved, **said))[0][1].startswith("prior 7: the source says (")
    other = findings(opened(priors=right, prior_format="xyxy", variances="1,1,1,1"))
    assert [message.partition(":")[0] for _, message in other] == ["scales of the SSD head"]
    with pytest.raises(UsageError, match="--prior-format"):
        opened(priors=right)


def test_half_of_what_a_head_needs_in_a_sidecar_is_not_compared(tmp_path: Path) -> None:
    np.save(tmp_path / "priors.npy", corners_xyxy())
    (tmp_path / "net.xdet.json").write_text('{"priors": "priors.npy"}', encoding="utf-8")
    opened = converted(tmp_path, ssd_raw(), prior_format="xyxy", variances="0.1,0.1,0.2,0.2")
    assert uncompared(opened()) == ("priors", *OTHERS)


def test_a_graph_of_tf2onnx_is_not_exact_by_no_option_of_the_caller(tmp_path: Path) -> None:
    pair = converted(tmp_path, st_yolo_lc(96), anchors=ANCHORS, anchor_unit="cell")()
    document = replace(pair.document, leaky_relu="float", notes=(f"{BY_TF2ONNX}: int8 activations",))
    assert "tf2onnx wrote the graph" in str(why_not_exact(document, pair.origin.graph))


def test_blue_first_is_named_where_nobody_states_it(tmp_path: Path) -> None:
    said = {"anchors": ANCHORS, "anchor_unit": "cell", "color": "bgr"}
    opened = converted(tmp_path, st_yolo_lc(96), **said)
    assert uncompared(opened()) == ("anchors", *OTHERS, "color")
    assert uncompared(opened(color="bgr")) == ("anchors", *OTHERS)
    assert [cause for cause, _ in findings(opened(color="rgb"))] == ["image-input"]
