"""FastestDet: checked against a plain loop over the maker's formula."""

from __future__ import annotations

import math

import numpy as np
import pytest

from converters.heads.fastestdet import FastestDet
from tests.converters.heads.decoding import decoder, random_outputs, run_onnxruntime


def test_boxes_and_scores_are_those_of_a_plain_loop() -> None:
    head = FastestDet(3, 4, 2)
    raw = random_outputs(head, 2, spread=3.0)[0]
    raw[..., [0, 5, 6]] = np.abs(raw[..., [0, 5, 6]]) % 1
    for boxes, scores in (head.decode([raw]), run_onnxruntime(decoder(head), [raw])):
        for image, row, column in np.ndindex(2, 3, 4):
            values = [float(value) for value in raw[image, row, column]]
            x, y = (column + math.tanh(values[1])) / 4, (row + math.tanh(values[2])) / 3
            w, h = (1 / (1 + math.exp(-value)) for value in values[3:5])
            expected = np.clip([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 0, 1)
            np.testing.assert_allclose(boxes[image, row * 4 + column], expected, rtol=0, atol=4e-7)
            wanted = [values[0] ** 0.6 * probability**0.4 for probability in values[5:]]
            np.testing.assert_allclose(scores[image, row * 4 + column], wanted, rtol=0, atol=4e-7)


@pytest.mark.parametrize("value", [0.0, -0.01])
def test_probabilities_of_0_and_codes_below_it_score_0(value: float) -> None:
    raw = np.full((1, 1, 1, 6), value, np.float32)
    for _, scores in (FastestDet(1, 1, 1).decode([raw]), run_onnxruntime(decoder(FastestDet(1, 1, 1)), [raw])):
        assert scores.item() == 0
