"""A CD that boots: El Torito without emulation, one sector of 8086 code, nothing installed to make it.

It writes `GREETING` to the first serial port and waits for ever, so an HVM guest needs no disk and no
kernel to be proven: it is up in seconds even under emulation, where Linux takes minutes.
Layout: ECMA-119 (volume descriptors), El Torito 1.0 (boot record, catalogue).
"""

import struct
from pathlib import Path

__all__ = ["GREETING", "write_boot_cd"]

GREETING = "CD-BOOTED"

_SECTOR = 2048
_LOAD = 0x7C00  # where the BIOS puts the boot image
_CATALOGUE, _CODE, _ROOT, _SECTORS = 19, 20, 22, 30

_PROGRAM = bytes.fromhex(
    "fa 31c0 8ed8"  # cli; ds = 0
    "be 0000"  # si = text (filled in)
    "ac 84c0 74 06"  # next: al = *si++; if it is 0, go to rest
    "ba f803 ee"  # out 0x3f8, al
    "eb f5"  # go to next
    "fb f4 eb fd"  # rest: sti; hlt; go to hlt.  With interrupts off Xen would end the guest
)


def _both(number: int, size: str) -> bytes:
    return struct.pack(f"<{size}", number) + struct.pack(f">{size}", number)


def _directory(name: bytes) -> bytes:
    fields = _both(_ROOT, "I") + _both(_SECTOR, "I") + bytes(7) + b"\2\0\0" + _both(1, "H")
    return bytes([34, 0]) + fields + b"\1" + name


def _descriptor(kind: int, body: bytes) -> bytes:
    return (bytes([kind]) + b"CD001\1" + body).ljust(_SECTOR, b"\0")


def write_boot_cd(path: Path) -> None:
    """Write the image (60 KB) to ``path``."""
    code = bytearray(_PROGRAM)
    struct.pack_into("<H", code, 6, _LOAD + len(code))
    code += GREETING.encode() + b"\r\n\0"

    volume = bytearray(_descriptor(1, b"\0" + bytes(32) + b"XENMESH".ljust(32)))
    volume[80:88] = _both(_SECTORS, "I")
    volume[120:132] = _both(1, "H") + _both(1, "H") + _both(_SECTOR, "H")
    volume[156:190] = _directory(b"\0")
    volume[881] = 1

    # The validation entry's words add up to nought.
    check = -(0x0001 + 0xAA55) & 0xFFFF
    catalogue = struct.pack("<BB26xHBB", 1, 0, check, 0x55, 0xAA)
    catalogue += struct.pack("<BBHBBHI20x", 0x88, 0, 0, 0, 0, 4, _CODE)

    image = bytearray(_SECTOR * _SECTORS)
    record = b"EL TORITO SPECIFICATION".ljust(64, b"\0") + struct.pack("<I", _CATALOGUE)
    for sector, content in (
        (16, volume),
        (17, _descriptor(0, record)),
        (18, _descriptor(255, b"")),
        (_CATALOGUE, catalogue),
        (_CODE, code),
        (_ROOT, _directory(b"\0") + _directory(b"\1")),
    ):
        image[sector * _SECTOR : sector * _SECTOR + len(content)] = content
    path.write_bytes(image)
