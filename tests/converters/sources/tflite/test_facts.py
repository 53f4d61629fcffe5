"""What a TFLite file tells about its detector, and how files of other families are turned away."""

from __future__ import annotations

from dataclasses import replace

import pytest

from converters.errors import SourceFileError
from converters.facts import SourceFacts, SourceOutput
from converters.quant import QuantParams
from converters.sources.tflite.facts import facts_from_tflite
from converters.sources.tflite.reader import TfliteModel, TfliteOperator
from converters.sources.tflite.tensors import TfliteTensor

Shape = tuple[int, ...]
QUANT = QuantParams.per_tensor(0.5, 3)


def model(inputs: list[Shape], outputs: list[Shape]) -> TfliteModel:
    shapes = [("image", "uint8", shape) for shape in inputs] + [("boxes", "float32", shape) for shape in outputs]
    tensors = tuple(
        TfliteTensor(i, name, dtype, shape, QUANT if dtype == "uint8" else None, None)
        for i, (name, dtype, shape) in enumerate(shapes)
    )
    n = len(inputs)
    return TfliteModel("m.tflite", "", tensors, (), tuple(range(n)), tuple(range(n, len(tensors))))


def test_a_detector_tells_its_sizes_and_its_input_encoding() -> None:
    facts = facts_from_tflite(model([(1, 96, 160, 3)], [(1, 3, 5, 30)]))
    assert facts == SourceFacts(
        "m.tflite", 96, 160, (SourceOutput("boxes", (3, 5, 30), from_picture=False),), "uint8", QUANT
    )


@pytest.mark.parametrize(("dtype", "smallest", "largest"), [("uint8", -1.5, 126.0), ("int8", -65.5, 62.0)])
def test_a_quantised_output_tells_what_its_codes_can_hold(dtype: str, smallest: float, largest: float) -> None:
    found = model([(1, 96, 160, 3)], [(1, 3, 5, 30)])
    output = replace(found.tensors[1], dtype=dtype, quant=QUANT)
    (fact,) = facts_from_tflite(replace(found, tensors=(found.tensors[0], output))).outputs
    assert (fact.smallest, fact.largest) == (smallest, largest)


@pytest.mark.parametrize(
    ("inputs", "outputs", "said"),
    [
        (
            [(1, 96, 96, 2)],
            [(1, 3, 3, 30)],
            "input expected one image [N, height, width, 3], or 1 for grey, found 'image' [1, 96, 96, 2]",
        ),
        ([(1, 3, 96, 96)], [(1, 3, 3, 30)], "found 'image' [1, 3, 96, 96]"),
        ([(2, 96, 96, 3)], [(1, 3, 3, 30)], "found 'image' [2, 96, 96, 3]"),
        ([(1, 0, 96, 3)], [(1, 3, 3, 30)], "found 'image' [1, 0, 96, 3]"),
        ([], [(1, 3, 3, 30)], "input expected one image [N, height, width, 3], or 1 for grey, found none"),
        ([(1, 9, 9, 3)] * 2, [(1, 3, 3, 30)], "found 'image' [1, 9, 9, 3], 'image' [1, 9, 9, 3]"),
        ([(1, 96, 96, 3)], [(45, 6)], "output expected numbers of one image, [1, ...], found 'boxes' [45, 6]"),
        ([(1, 96, 96, 3)], [(1, 45), ()], "found 'boxes' [1, 45], 'boxes' []"),
        ([(1, 96, 96, 3)], [(1, 3, 3, 0)], "found 'boxes' [1, 3, 3, 0]"),
        ([(1, 96, 96, 3)], [], "output expected numbers of one image, [1, ...], found none"),
    ],
)
def test_another_kind_of_model_is_named_with_what_was_found(
    inputs: list[Shape], outputs: list[Shape], said: str
) -> None:
    with pytest.raises(SourceFileError) as caught:
        facts_from_tflite(model(inputs, outputs))
    assert "'m.tflite' is not a detector" in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize("inputs", [(), (-1,)], ids=["none", "absent"])
def test_an_output_whose_operator_has_no_operands_tells_its_size_all_the_same(inputs: tuple[int, ...]) -> None:
    bare = TfliteOperator(0, "DEQUANTIZE", inputs, (1,), {})
    facts = facts_from_tflite(replace(model([(1, 96, 160, 3)], [(1, 3, 5, 30)]), operators=(bare,)))
    assert facts.outputs[0].shape == (3, 5, 30)
