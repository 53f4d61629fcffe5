"""Bends inputs: bytes, trees of JSON values, and the object trees of TFLite and ONNX files.

Every function takes a ``random.Random`` and nothing else that varies, so a case is its surface, seed and number.
"""

from __future__ import annotations

import copy
import json
import struct
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

if TYPE_CHECKING:
    from random import Random

NUMBERS: tuple[Any, ...] = (
    *(0, 1, -1, 2, 3, 4, 5, 7, 8, 127, 128, 255, 256, -128, 65535, 2**31 - 1, -(2**31), 2**31, 2**32 - 1, 2**63),
    *(0.0, -0.0, 0.5, 1e-45, 1e-38, 3e38, -3e38, 1e30, 1e300, float("nan"), float("inf"), float("-inf")),
)
TEXTS = (
    *("", "a", "a\x1b[2J\n", "\ud800", "x" * 5000, "../../etc/passwd", "a\0b", "\u202e"),
    *("<b>", "1/0", "1e999", "NaN"),
)
VALUES: tuple[Any, ...] = (*NUMBERS, *TEXTS, None, True, False, [], {}, [[]], 10**400, -(10**30))


def to_json(tree: object) -> bytes:
    """As Python writes it; lone surrogates as escapes."""
    return json.dumps(tree).encode("ascii")


def bend_bytes(random: Random, data: bytes) -> bytes:
    """Flip, insert, delete, repeat or cut some bytes; integers of 1, 2, 4 and 8 bytes become odd ones."""
    bent = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 4, 16))):
        place = random.randrange(len(bent) + 1) if random.random() < 0.5 else random.randrange(min(len(bent), 256) + 1)
        kind = random.randrange(7)
        if kind == 0 and place < len(bent):
            bent[place] ^= 1 << random.randrange(8)
        elif kind == 1 and place < len(bent):
            bent[place] = random.randrange(256)
        elif kind == 2:
            size, number = (random.choice((1, 2, 4, 8)), random.choice([n for n in NUMBERS if isinstance(n, int)]))
            bent[place : place + size] = struct.pack("<Q", number % 2**64)[:size]
        elif kind == 3:
            bent[place:place] = random.randbytes(random.randrange(1, 9))
        elif kind == 4:
            del bent[place : place + random.randrange(1, 9)]
        elif kind == 5:
            start = random.randrange(len(bent) + 1)
            bent[place:place] = bent[start : start + random.randrange(1, 65)]
        elif kind == 6 and random.random() < 0.2:
            del bent[place:]
    return bytes(bent)


def bend_tree(random: Random, tree: Any) -> Any:
    """A copy of a tree of JSON values with one to three of its nodes replaced, removed, doubled or exchanged."""
    tree = copy.deepcopy(tree)
    for _ in range(random.choice((1, 1, 2, 3))):
        holders = [(holder, key) for holder, key in _places(tree)]
        if not holders:
            return random.choice(VALUES)
        holder, key = random.choice(holders)
        kind = random.randrange(8)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, list):
            holder[key:key] = [copy.deepcopy(holder[key])] * random.choice((1, 1, 50))
        elif kind == 1:
            holder[random.choice(TEXTS)] = holder[key]
        elif kind == 2:
            other, there = random.choice(holders)
            holder[key] = copy.deepcopy(other[there])
        elif kind == 3 and isinstance(holder[key], int | float):
            factor = random.choice((-1, 0.5, 2, 1e6, 1e-6))
            with suppress(OverflowError):  # a whole number beyond float stays
                holder[key] = holder[key] * factor + random.choice((-1, 0, 1))
        else:
            holder[key] = copy.deepcopy(random.choice(VALUES))
    return tree


def _places(tree: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        keys = list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
        found += [(node, key) for key in keys]
        waiting += [node[key] for key in keys]
    return found


def bend_png(random: Random, data: bytes) -> bytes:
    """Bend the content of one chunk and make its checksum right again, or leave a chunk out, or write it twice."""
    chunks, position = [], 8
    while position + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        chunks.append((data[position + 4 : position + 8], data[position + 8 : position + 8 + length]))
        position += 12 + length
    index = random.randrange(len(chunks))
    name, content = chunks[index]
    kind = random.randrange(6)
    if kind == 0:
        del chunks[index]
    elif kind == 1:
        chunks[index:index] = [chunks[index]]
    elif name == b"IHDR":
        place = random.choice((0, 4))
        size = struct.pack(">I", random.choice((0, 1, 2, 100, 5000, 65535, 2**31 - 1, 2**32 - 1)))
        content = content[:place] + size + content[place + 4 :] if kind < 4 else bend_bytes(random, content)
        chunks[index] = (name, content)
    elif name == b"IDAT" and kind < 4:
        chunks[index] = (name, zlib.compress(bend_bytes(random, zlib.decompress(content))))
    else:
        chunks[index] = (name, bend_bytes(random, content))
    return data[:8] + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


def bend_tflite(random: Random, data: bytes) -> bytes:
    """Bend one to three fields of the model's object tree and pack it again; bytes where the tree does not pack."""
    import ai_edge_litert.schema_py_generated as schema
    import flatbuffers

    model = schema.ModelT.InitFromPackedBuf(data, 0)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        owner = _random_owner(random, model)
        fields = [name for name, value in vars(owner).items() if value is not None]
        if fields:
            _bend_field(random, owner, random.choice(fields))
    builder = flatbuffers.Builder(len(data))
    try:
        builder.Finish(model.Pack(builder), b"TFL3")
    except (TypeError, ValueError, AttributeError, OverflowError, AssertionError, struct.error, LookupError):
        return bend_bytes(random, data)
    return bytes(builder.Output())


def _random_owner(random: Random, model: Any) -> Any:
    """A table: tensors and operators more often than the rest."""
    graph = model.subgraphs[0] if model.subgraphs else model
    tensors, operators = getattr(graph, "tensors", None) or [], getattr(graph, "operators", None) or []
    kind = random.randrange(10)
    if kind < 3 and tensors:
        tensor = random.choice(tensors)
        return tensor.quantization if tensor.quantization is not None and random.random() < 0.5 else tensor
    if kind < 8 and operators:
        operator = random.choice(operators)
        options = operator.builtinOptions
        return options if options is not None and random.random() < 0.5 else operator
    return random.choice([model, graph, *(model.operatorCodes or []), *(model.buffers or [])])


def _bend_field(random: Random, owner: Any, name: str) -> None:
    value = getattr(owner, name)
    if isinstance(value, bool | int | np.integer):
        setattr(owner, name, int(random.choice((*range(-2, 40), 127, 255, 2**31 - 1, -(2**31)))))
    elif isinstance(value, float):
        setattr(owner, name, float(random.choice([n for n in NUMBERS if isinstance(n, float)])))
    elif isinstance(value, bytes | str):
        words = (b"", b"a", b"\xff\xfe", b"\xd0\xd1" * 3, b"x" * 70000, b"a\x1b[2J\n", b"head", b"image")
        setattr(owner, name, random.choice(words))
    elif isinstance(value, np.ndarray):
        setattr(owner, name, _bent_array(random, value))
    elif isinstance(value, list) and value:
        setattr(owner, name, _bent_list(random, value))
    elif random.random() < 0.3:
        setattr(owner, name, None)


def _bent_array(random: Random, array: Any) -> Any:
    bent = array.copy()
    kind = random.randrange(5)
    if kind == 0 or not bent.size:
        return np.append(bent, bent[:1]) if bent.size else np.zeros(1, bent.dtype)
    if kind == 1:
        return bent[:-1]
    place = random.randrange(bent.size)
    if bent.dtype.kind == "f":
        bent[place] = random.choice((0, -1, 1e-45, 1e-38, 1e-6, 1e6, 3e38, np.nan, np.inf))
    else:
        info = np.iinfo(bent.dtype)
        wanted = random.choice((0, 1, -1, 2, 3, 5, int(bent[place]) + 1, info.min, info.max, 1000))
        bent[place] = min(max(wanted, info.min), info.max)
    return bent


def _bent_list(random: Random, values: list[Any]) -> list[Any]:
    bent = list(values)
    place = random.randrange(len(bent))
    kind = random.randrange(4)
    if kind == 0:
        del bent[place]
    elif kind == 1:
        bent.insert(place, bent[place])
    elif kind == 2:
        other = random.randrange(len(bent))
        bent[place], bent[other] = bent[other], bent[place]
    elif isinstance(bent[place], int):
        bent[place] = random.choice((0, 1, -1, 2, len(bent), 2**31 - 1, random.randrange(30)))
    return bent


OPERATORS = (
    *("Conv", "QLinearConv", "Loop", "If", "Reshape", "Gemm"),
    *("MatMul", "Constant", "Scan", "Tile", "Foreign", "DequantizeLinear"),
)


def bend_onnx(random: Random, data: bytes) -> bytes:
    """Bend one to three parts of an ONNX model: nodes, names, attributes, constants, types, versions."""
    model = onnx.load_model_from_string(data)
    graph = model.graph
    for _ in range(random.choice((1, 1, 2, 3))):
        kind = random.randrange(9)
        if kind < 3 and graph.node:
            _bend_node(random, graph)
        elif kind < 5 and graph.initializer:
            _bend_tensor(random, random.choice(graph.initializer))
        elif kind == 5:
            value = random.choice([*graph.input, *graph.output])
            if value.type.tensor_type.shape.dim:
                random.choice(value.type.tensor_type.shape.dim).dim_value = random.choice((0, 1, -1, 3, 2**31, 2**62))
            else:
                value.name = random.choice(("", "image", "a\x1b[2J"))
        elif kind == 6:
            model.opset_import[0].version = random.choice((0, 1, 9, 13, 22, 99, 2**40))
            model.opset_import[0].domain = random.choice(("", "foreign", "ai.onnx"))
        elif kind == 7 and model.metadata_props:
            entry = random.choice(model.metadata_props)
            entry.value = bend_bytes(random, entry.value.encode()).decode("utf-8", "replace")
        else:
            model.producer_name = random.choice(("", "xdet", "a\x1b[2J\n", "x" * 10000))
    return bytes(model.SerializeToString())


def _bend_node(random: Random, graph: Any) -> None:
    node = random.choice(graph.node)
    names = [name for other in graph.node for name in (*other.input, *other.output)]
    kind = random.randrange(7)
    if kind == 0:
        node.op_type = random.choice(OPERATORS)
    elif kind == 1:
        node.domain = random.choice(("foreign", "ai.onnx.ml", "com.microsoft"))
    elif kind == 2 and node.input:
        node.input[random.randrange(len(node.input))] = random.choice([*names, "", "nowhere"])
    elif kind == 3 and node.output:
        node.output[random.randrange(len(node.output))] = random.choice([*names, ""])
    elif kind == 4 and node.input:
        del node.input[random.randrange(len(node.input)) :]
    elif kind == 5:
        del node.output[:]
    elif node.attribute:
        attribute = random.choice(node.attribute)
        attribute.i = random.choice((0, 1, -1, 2**31, -(2**63)))
        attribute.type = random.choice((1, 2, 3, 4, 5, 6, 7, 8))
    else:
        graph.node.add().CopyFrom(node)


def _bend_tensor(random: Random, tensor: Any) -> None:
    kind = random.randrange(5)
    if kind == 0:
        tensor.dims.append(random.choice((0, 1, 2, -1, 2**31, 2**62)))
    elif kind == 1 and tensor.dims:
        tensor.dims[random.randrange(len(tensor.dims))] = random.choice((0, 1, -1, 2**31, 2**62))
    elif kind == 2:
        tensor.data_type = random.randrange(30)
    elif kind == 3:
        tensor.raw_data = bend_bytes(random, tensor.raw_data)
    else:
        tensor.data_location = 1
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", "../../etc/passwd"
