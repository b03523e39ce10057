"""Reads `packed_layer.fbs`, the one definition of the packed layer: the struct as a dtype, the enums as IntEnum."""

import re
from enum import IntEnum
from importlib.resources import files
from typing import Any

import numpy as np

_SCALARS = {"ubyte": "u1", "ushort": "<u2", "short": "<i2", "uint": "<u4", "int": "<i4", "float": "<f4"}


def parse(text: str, struct: str) -> tuple[np.dtype, dict[str, Any]]:
    """The dtype of `struct` and every enum of a FlatBuffers schema; fields are scalars or fixed arrays.

    Raises ValueError where a field would need padding: the schema states every byte.
    """
    text = re.sub(r"//.*", "", text)
    enums: dict[str, Any] = {}
    for name, body in re.findall(r"enum (\w+) : ubyte \{(.*?)\}", text, re.DOTALL):
        members = {key: int(value) for key, value in re.findall(r"(\w+) = (\d+)", body)}
        enums[name] = IntEnum(name, members)
    found = re.search(rf"struct {struct} \{{(.*?)\}}", text, re.DOTALL)
    if found is None:
        raise ValueError(f"the schema has no struct {struct}")
    fields: list[tuple] = []
    for name, kind in re.findall(r"(\w+) : ([^;]+);", found.group(1)):
        array = re.fullmatch(r"\[(\w+):(\d+)\]", kind)
        fields.append((name, _SCALARS[array[1]], (int(array[2]),)) if array else (name, _SCALARS[kind]))
    packed, aligned = np.dtype(fields), np.dtype(fields, align=True)
    if packed.itemsize != aligned.itemsize:
        raise ValueError(f"struct {struct} has fields off their natural alignment")
    return packed, enums


HEADER, ENUMS = parse(files(__package__).joinpath("packed_layer.fbs").read_text(encoding="utf-8"), "Header")
