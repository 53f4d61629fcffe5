"""Darknet's ``.cfg``: size, channels, classes and anchors of a YOLO detector, in the order in which heads take them.

``[region]`` (v2) lists anchors in cells of its grid. Each ``[yolo]`` (v3, v4) picks its anchors out of one list by
``mask``, in pixels of the network's picture; the grids are ordered finest first here, by their smallest anchors.
Nothing else of the file is read, and its weights are none of its business. Source of the keys: ``src/parser.c`` of
AlexeyAB/darknet.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from converters.description.values import located, read_small_text, sizes_from_text
from converters.description.zoo_yaml import ZooConfig, number_from_yaml, zoo_config
from converters.errors import SourceFileError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from converters.description.values import SizesWh

Section = tuple[str, "Mapping[str, str]"]
_SECTION = re.compile(r"\[([A-Za-z0-9_]+)\]\s*")
_NET = re.compile(r"^\s*\[(net|network)\]\s*$", re.MULTILINE | re.IGNORECASE)


def is_darknet(text: str) -> bool:
    """Whether a text is such a file, and no yaml: its first section is ``[net]``."""
    return _NET.search(text) is not None


def read_config(path: Path) -> ZooConfig:
    """Read what ``--config`` names: a zoo yaml or a Darknet cfg."""
    text = read_small_text(path, "config")
    return read_darknet(text, path.name) if is_darknet(text) else zoo_config(text, path.name)


def read_darknet(text: str, file: str) -> ZooConfig:
    """What a cfg states, as a configuration."""
    where = f"config '{file}'"
    sections = _sections(text, where)
    net = next(values for name, values in sections if name in ("net", "network"))
    yolo = [values for name, values in sections if name == "yolo"]
    region = [values for name, values in sections if name == "region"]
    if not yolo and len(region) != 1:
        raise SourceFileError(f"{where}: expected a [region] section or several [yolo] sections, found neither")
    if any(values.get("new_coords", "0") != "0" for values in yolo):
        raise SourceFileError(
            f"{where}: new_coords (scaled YOLO v4) is another head, which has no decoder here; --head none"
        )
    grids = sorted((_masked(values, where), _scale(values, where)) for values in yolo)  # the finest first
    return ZooConfig(
        file=file,
        head="yolo_v3" if yolo else "yolo_v2",
        size_hw=(_count(net, "height", where, default=416), _count(net, "width", where, default=416)),
        color="grey" if _count(net, "channels", where, default=3) == 1 else "rgb",
        num_classes=_count((yolo or region)[0], "classes", where, default=20),
        anchors=tuple(anchor for anchors, _ in grids for anchor in anchors) or _anchors(region[0], where),
        anchor_unit="pixel" if yolo else "cell",
        xy_scales=tuple(scale for _, scale in grids),
    )


def _sections(text: str, where: str) -> Sequence[Section]:
    sections: list[tuple[str, dict[str, str]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        content = line.split("#")[0].split(";")[0].strip()
        section = _SECTION.fullmatch(content)
        if section:
            sections.append((section[1].lower(), {}))
        elif content:
            key, equals, value = content.partition("=")
            if not equals or not sections:
                raise SourceFileError(
                    f"{where}, line {number}: expected [section] or key = value, found {content!r:.60}"
                )
            sections[-1][1][key.strip()] = value.strip()
    return sections


def _count(values: Mapping[str, str], key: str, where: str, default: int = 0) -> int:
    text = values.get(key, str(default))
    if not re.fullmatch(r"[0-9]{1,6}", text):
        raise SourceFileError(f"{where}: {key}: expected a whole number, found {text!r:.40}")
    return int(text)


def _scale(values: Mapping[str, str], where: str) -> float:
    with located(f"{where}: scale_x_y"):
        return number_from_yaml(values.get("scale_x_y", "1"))


def _anchors(values: Mapping[str, str], where: str) -> SizesWh:
    with located(f"{where}: anchors"):
        return sizes_from_text(values.get("anchors", ""))


def _masked(values: Mapping[str, str], where: str) -> SizesWh:
    """The anchors of one grid."""
    listed, mask = _anchors(values, where), values.get("mask", "")
    places = [int(place) for place in re.findall(r"[0-9]{1,4}", mask)]
    if not places or max(places) >= len(listed):
        raise SourceFileError(f"{where}: mask: expected places in a list of {len(listed)} anchors, found {mask!r:.40}")
    return tuple(listed[place] for place in places)
