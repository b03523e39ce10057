"""Runs functions of cross-compiled programs on emulated Arm processors, in this process.

    compile_c([*CORTEX_M4.flags, "-Os", "sum.c", "-o", "sum.elf"], ZIG)
    program = Program(Path("sum.elf"), CORTEX_M4)
    total = program.call("sum", np.arange(100, dtype=np.int8), 100)

Arrays lie on guarded memory: an access beyond one raises `UcError`, as does an instruction that the processor has not.
Instructions can be counted; time is not what an emulator knows.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import unicorn
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection
from unicorn import arm64_const as arm64
from unicorn import arm_const as arm

PAGE = 4096
#: Addresses that no program is linked to: calls return to the first, the stack ends at the second, arrays follow.
_RETURN, _STACK, _ARRAYS = 0x6FFF0000, 0x70000000, 0x71000000
_STACK_BYTES, _UNUSED = 1 << 16, 0xA5


@dataclass(frozen=True)
class Processor:
    """One emulated processor.

    Attributes:
        flags: of `python -m ziglang cc` for programs that it runs.
        architecture, mode, model: unicorn's names for it.
        registers: of the first arguments; the first one also takes the result.
        stack, link: the registers of these names.
        switches: registers and their values that switch its floating point and vectors on.
        is_thumb: it runs Thumb instructions, of 2 and 4 bytes.
    """

    flags: tuple[str, ...]
    architecture: int
    mode: int
    model: int
    registers: tuple[int, ...]
    stack: int
    link: int
    switches: tuple[tuple[int, int], ...]
    is_thumb: bool = False

    @property
    def word(self) -> np.dtype:
        return np.dtype("<u8" if self.architecture == unicorn.UC_ARCH_ARM64 else "<u4")


def _arm64(model: int, features: str = "") -> Processor:
    return Processor(
        flags=("-target", "aarch64-freestanding", f"-mcpu=generic{features}"),
        architecture=unicorn.UC_ARCH_ARM64,
        mode=unicorn.UC_MODE_ARM,
        model=model,
        registers=tuple(arm64.UC_ARM64_REG_X0 + i for i in range(8)),
        stack=arm64.UC_ARM64_REG_SP,
        link=arm64.UC_ARM64_REG_LR,
        switches=((arm64.UC_ARM64_REG_CPACR_EL1, 3 << 20),),
    )


def _arm32(flags: tuple[str, ...], mode: int, model: int) -> Processor:
    return Processor(
        flags=flags,
        architecture=unicorn.UC_ARCH_ARM,
        mode=mode,
        model=model,
        registers=(arm.UC_ARM_REG_R0, arm.UC_ARM_REG_R1, arm.UC_ARM_REG_R2, arm.UC_ARM_REG_R3),
        stack=arm.UC_ARM_REG_SP,
        link=arm.UC_ARM_REG_LR,
        switches=((arm.UC_ARM_REG_C1_C0_2, 0xF << 20), (arm.UC_ARM_REG_FPEXC, 1 << 30)),
        is_thumb=bool(mode & unicorn.UC_MODE_THUMB),
    )


_M_CLASS = unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS

#: Armv8-A as in Cortex-A72, which has no dot product.
CORTEX_A72 = _arm64(arm64.UC_CPU_ARM64_A72)
#: Armv8-A with all that the emulator knows, dot product among it.
ARM64_MAX = _arm64(arm64.UC_CPU_ARM64_MAX)
#: Armv7-A with NEON.
CORTEX_A7 = _arm32(
    ("-target", "arm-freestanding-eabihf", "-mcpu=cortex_a7"), unicorn.UC_MODE_ARM, arm.UC_CPU_ARM_CORTEX_A7
)
#: Armv7E-M with single-precision floating point.
CORTEX_M4 = _arm32(
    ("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m4+vfp4d16sp"), _M_CLASS, arm.UC_CPU_ARM_CORTEX_M4
)

#: Armv8-M with single-precision floating point: the newest M class here, so what a Cortex-M55 runs without its vectors.
CORTEX_M33 = _arm32(
    ("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m33+fp_armv8d16sp"), _M_CLASS, arm.UC_CPU_ARM_CORTEX_M33
)


class Program:
    """A program in the memory of a processor of its own.

    Args:
        path: the ELF file, linked to fixed addresses.
        counts: count instructions, which takes several times as long.

    Attributes:
        instructions: executed by the last `call`, where they are counted.
        blocks: of instructions without a jump between them, as (address, bytes): how often the last `call` ran each,
            where they are counted.
    """

    def __init__(self, path: Path, processor: Processor, counts: bool = False) -> None:
        self.processor = processor
        self.instructions = 0
        self.blocks: Counter[tuple[int, int]] = Counter()
        self._uc = unicorn.Uc(processor.architecture, processor.mode)
        self._uc.ctl_set_cpu_model(processor.model)
        for register, value in processor.switches:
            self._uc.reg_write(register, value)
        self._symbols = self._load(path)
        self._uc.mem_map(_STACK - _STACK_BYTES, _STACK_BYTES)
        if counts:
            self._block_instructions: dict[tuple[int, int], int] = {}
            self._uc.hook_add(unicorn.UC_HOOK_BLOCK, self._count)

    def call(self, name: str, *arguments: int | bytes | np.ndarray) -> int:
        """Calls a function of the program.

        Args:
            name: of the function. It takes integers and pointers, none wider than a register.
            *arguments: integers and, for pointers to data, bytes or arrays. Each lies with its end at a page without
                access, and another before its first page. Bytes are read-only; arrays are read back.

        Returns:
            Its result, unsigned and as wide as a register.

        Raises:
            unicorn.UcError: an access beyond an argument, or an instruction that the processor has not.
        """
        free, words = _ARRAYS, []
        placed: list[tuple[int, int, int]] = []
        try:
            for argument in arguments:
                if isinstance(argument, int | np.integer):
                    words.append(int(argument))
                    continue
                content = argument if isinstance(argument, bytes) else argument.tobytes()
                size = max(PAGE, -(-len(content) // PAGE) * PAGE)
                is_constant = isinstance(argument, bytes)
                self._uc.mem_map(free, size, unicorn.UC_PROT_READ if is_constant else unicorn.UC_PROT_ALL)
                placed.append((free, size, free + size - len(content)))
                self._uc.mem_write(free + size - len(content), content)
                words.append(free + size - len(content))
                free += size + PAGE
            result = self._run(self._symbols[name], words)
            arrays = [argument for argument in arguments if isinstance(argument, bytes | np.ndarray)]
            for array, (_, _, address) in zip(arrays, placed, strict=True):
                if isinstance(array, np.ndarray):
                    content = bytes(self._uc.mem_read(address, array.nbytes))
                    array[...] = np.frombuffer(content, array.dtype).reshape(array.shape)
        finally:
            for start, size, _ in placed:
                self._uc.mem_unmap(start, size)
        return result

    def read(self, address: int, size: int) -> bytes:
        """What lies in its memory."""
        return bytes(self._uc.mem_read(address, size))

    @property
    def stack_bytes(self) -> int:
        """How deep the last `call` went into its stack."""
        stack = np.frombuffer(bytes(self._uc.mem_read(_STACK - _STACK_BYTES, _STACK_BYTES)), np.uint8)
        return len(stack) - int(np.argmax(stack != _UNUSED)) if np.any(stack != _UNUSED) else 0

    def _run(self, function: int, words: list[int]) -> int:
        registers, word = self.processor.registers, self.processor.word
        for register, value in zip(registers, words, strict=False):
            self._uc.reg_write(register, value)
        rest = np.asarray([value % (1 << 8 * word.itemsize) for value in words[len(registers) :]], word).tobytes()
        stack = (_STACK - len(rest)) & ~15
        self._uc.mem_write(_STACK - _STACK_BYTES, bytes([_UNUSED]) * _STACK_BYTES)
        self._uc.mem_write(stack, rest)
        self._uc.reg_write(self.processor.stack, stack)
        self._uc.reg_write(self.processor.link, _RETURN | self.processor.is_thumb)
        self.instructions = 0
        self.blocks.clear()
        self._uc.emu_start(function, _RETURN)
        return self._uc.reg_read(registers[0])

    def _load(self, path: Path) -> dict[str, int]:
        """Maps the program; returns the addresses of its symbols."""
        with path.open("rb") as file:
            elf = ELFFile(file)
            for segment in elf.iter_segments("PT_LOAD"):
                start = segment["p_vaddr"] // PAGE * PAGE
                end = -(-(segment["p_vaddr"] + segment["p_memsz"]) // PAGE) * PAGE
                # ELF and unicorn give these rights different bits.
                rights = zip(
                    (4, 2, 1), (unicorn.UC_PROT_READ, unicorn.UC_PROT_WRITE, unicorn.UC_PROT_EXEC), strict=True
                )
                self._uc.mem_map(start, end - start, sum(right for bit, right in rights if segment["p_flags"] & bit))
                self._uc.mem_write(segment["p_vaddr"], segment.data())
            sections = (section for section in elf.iter_sections() if isinstance(section, SymbolTableSection))
            return {symbol.name: symbol["st_value"] for section in sections for symbol in section.iter_symbols()}

    def _count(self, uc: unicorn.Uc, address: int, size: int, _: object) -> None:
        block = (address, size)
        if block not in self._block_instructions:
            self._block_instructions[block] = self._instructions_in(self.read(address, size))
        self.blocks[block] += 1
        self.instructions += self._block_instructions[block]

    def _instructions_in(self, block: bytes) -> int:
        if not self.processor.is_thumb:
            return len(block) // 4
        halves, count, position = np.frombuffer(block, "<u2"), 0, 0
        while position < len(halves):
            position += 2 if halves[position] >> 11 >= 0b11101 else 1  # the patterns that open 4 bytes
            count += 1
        return count
