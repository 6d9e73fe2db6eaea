"""Faults on the wire: what is done to the packets of one flush before they are written. Pure; seeded.

Set the fields of `Faults` by program, or by CONTROL (see control.py).
"""

import struct
from dataclasses import dataclass, field
from random import Random

from xenmesh.xenstore.packets import HEADER_SIZE, PAYLOAD_MAX, Op

__all__ = ["Faults"]

_TYPE = struct.Struct("<I")
_LENGTH = struct.Struct("<I")


@dataclass
class Faults:
    """What goes wrong.

    `stall`: nothing is sent (requests are still done). `refuse`: new connections are closed at once. `delay`: seconds
    before anything is sent. `split`: each byte is sent by itself. `reorder`: the replies of one flush change places
    (events keep theirs). `oversize`: so many replies to come are blown up above 4096 bytes. `cut_after`: after so many
    bytes more, wherever that is in a packet, the connection that they go to ends. `seed`: of what is random.
    """

    stall: bool = False
    refuse: bool = False
    delay: float = 0.0
    split: bool = False
    reorder: bool = False
    oversize: int = 0
    cut_after: int | None = None
    seed: int = 0
    _random: Random = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._random = Random(self.seed)  # noqa: S311 - it must be repeatable, not secret

    @property
    def any(self) -> bool:
        """Whether packets must be looked at at all."""
        return bool(self.split or self.reorder or self.oversize or self.cut_after is not None)

    def shape(self, frames: list[bytes]) -> tuple[list[bytes], bool]:
        """Return the pieces to write, and whether the connection then ends."""
        if self.reorder:
            frames = self._reordered(frames)
        frames = [self._oversized(frame) for frame in frames]
        cut = False
        if self.cut_after is not None:
            data = b"".join(frames)
            cut = len(data) >= self.cut_after
            frames = [data[: self.cut_after]]
            self.cut_after = None if cut else self.cut_after - len(data)
        if self.split:
            return [bytes((byte,)) for frame in frames for byte in frame], cut
        return [b"".join(frames)], cut

    def _reordered(self, frames: list[bytes]) -> list[bytes]:
        places = [at for at, frame in enumerate(frames) if not _is_event(frame)]
        mixed = places.copy()
        self._random.shuffle(mixed)
        frames = frames.copy()
        for at, frame in zip(places, [frames[at] for at in mixed], strict=True):
            frames[at] = frame
        return frames

    def _oversized(self, frame: bytes) -> bytes:
        if self.oversize <= 0 or _is_event(frame):
            return frame
        self.oversize -= 1
        payload = frame[HEADER_SIZE:].ljust(PAYLOAD_MAX + 1, b"x")
        return frame[: HEADER_SIZE - 4] + _LENGTH.pack(len(payload)) + payload


def _is_event(frame: bytes) -> bool:
    return bool(_TYPE.unpack_from(frame)[0] == Op.WATCH_EVENT)
