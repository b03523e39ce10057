"""Where a run of packed layers keeps its activations: nothing overlaps what is in use, and nothing is kept longer."""

from __future__ import annotations

import ctypes
import itertools
from pathlib import Path

import numpy as np
import pytest
from compilers import SOURCES, STRICT, compile_c
from hypothesis import given, settings
from hypothesis import strategies as st
from models import chain, random_layer

from subbyte.kernels import Interpreter


class Tenant(ctypes.Structure):
    _fields_ = (
        ("bytes", ctypes.c_size_t),
        ("first", ctypes.c_int32),
        ("last", ctypes.c_int32),
        ("offset", ctypes.c_size_t),
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    path: Path = tmp_path_factory.mktemp("arena") / "arena.so"
    compile_c([*STRICT, "-shared", "-fPIC", SOURCES / "arena.c", "-o", path])
    function = ctypes.CDLL(str(path)).subbyte_plan_arena
    function.restype = ctypes.c_size_t

    def place(tenants: list[tuple[int, int, int]]) -> tuple[int, list[int]]:
        array = (Tenant * len(tenants))(*(Tenant(*tenant, 12345) for tenant in tenants))
        return function(array, ctypes.c_int32(len(tenants))), [tenant.offset for tenant in array]

    return place


tenants = st.tuples(st.integers(0, 500), st.integers(0, 9), st.integers(0, 4)).map(
    lambda drawn: (drawn[0], drawn[1], drawn[1] + drawn[2])
)


@settings(deadline=None)
@given(drawn=st.lists(tenants, min_size=1, max_size=12))
def test_tenants_in_use_at_once_do_not_overlap(place, drawn):
    total, offsets = place(drawn)
    for step in range(15):
        owner = np.full(total + 1, -1)
        for i, (size, first, last) in enumerate(drawn):
            if size and first <= step <= last:
                assert offsets[i] % 64 == 0
                assert offsets[i] + size <= total
                assert np.all(owner[offsets[i] : offsets[i] + size] == -1)
                owner[offsets[i] : offsets[i] + size] = i
    assert total <= sum(-(-size // 64) * 64 for size, _, _ in drawn)


def test_by_hand(place):
    # A chain: each tenant is made at one step and read at the next.
    assert place([(64, 0, 1), (128, 1, 2), (192, 2, 3), (64, 3, 4)]) == (320, [0, 192, 0, 192])
    assert place([(100, 0, 9), (10, 0, 0), (10, 1, 1)]) == (138, [0, 128, 128])
    assert place([(0, 0, 9)]) == (0, [0])


def test_the_arena_of_a_chain_holds_two_activations_at_a_time():
    rng = np.random.default_rng(0)
    sizes = [32, 640, 64, 640, 64, 640, 8]
    layers = [random_layer(rng, inputs, outputs) for inputs, outputs in itertools.pairwise(sizes)]
    interpreter = Interpreter(model_content=chain(layers))
    interpreter.allocate_tensors()
    workspace = interpreter.get_tensor_details()[-1]
    assert workspace["dtype"] == np.uint8
    assert list(workspace["shape"]) == [640 + 64]
