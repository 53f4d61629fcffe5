"""The page's image rules in Node: the bytes that Python gives for the same picture."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING, get_args

import numpy as np
import pytest

from converters.spec import Color, ImageInput, Rescaling, ResizeRule
from xdet.page import COLORS, RESIZE_RULES, STATIC
from xdet.pictures.images import network_pixels

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
import { readFileSync, writeFileSync } from "node:fs";
const { networkPixels } = await import(process.argv[1]);
for (const { file, size: [width, height], channels, image } of JSON.parse(process.argv[2])) {
  const data = new Uint8Array(readFileSync(file));
  writeFileSync(`${file}.out`, networkPixels({ data, width, height, channels }, image));
}
"""


def test_the_page_knows_every_rule() -> None:
    assert set(RESIZE_RULES) == set(get_args(ResizeRule))
    assert set(COLORS) == set(get_args(Color))


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node on the PATH (Debian: apt-get install nodejs)")
@pytest.mark.parametrize("rule", RESIZE_RULES)
def test_a_picture_becomes_the_same_bytes(rule: ResizeRule, tmp_path: Path) -> None:
    rng, cases, expected = np.random.default_rng(3), [], []
    for number in range(61):
        (width, height), to = rng.integers(1, 150, 2).tolist(), rng.integers(1, 130, 2).tolist()
        to = {0: [width, to[1]], 1: [to[0], height], 2: [width, height]}.get(number, to)
        color = COLORS[number % 5 % 3]
        image = {"width": to[0], "height": to[1], "resize": rule, "color": color, "any_size": number == 60}
        channels = 3 + number % 2
        picture = rng.integers(0, 256, (height, width, channels)).astype(np.uint8)
        file = tmp_path / str(number)
        file.write_bytes(picture.tobytes())
        cases.append({"file": str(file), "size": [width, height], "channels": channels, "image": image})
        target = ImageInput(to[1], to[0], Rescaling(1.0, 0.0), rule, color, any_size=number == 60)
        expected.append(network_pixels(np.ascontiguousarray(picture[..., :3]), target).tobytes())
    module = STATIC.joinpath("pixels.mjs").as_uri()
    command = ["node", "--input-type=module", "-e", PROGRAM, module, json.dumps(cases)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for number, pixels in enumerate(expected):
        assert (tmp_path / f"{number}.out").read_bytes() == pixels, cases[number]
