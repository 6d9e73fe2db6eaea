"""What the engine refuses.

Refused    a request is answered with an ERROR packet; `code` is its string ("ENOENT")
"""

__all__ = ["Refused"]


class Refused(Exception):  # noqa: N818 - an answer, and no fault of anyone's
    """The request is answered with `code`."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code
