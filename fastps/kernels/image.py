"""A kernel's machine code, on disk and in messages between processes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

MAGIC = b"fastps kernel 1\n"


@dataclass(frozen=True)
class KernelImage:
    """Object code of one kernel, valid for the CPU that it was compiled for.

    Attributes
    ----------
    symbol : the name of the function in the object code
    code : a relocatable object file
    """

    symbol: str
    code: bytes

    @property
    def digest(self) -> str:
        """Names the code: equal digests, equal behaviour."""
        return hashlib.sha256(self.symbol.encode() + b"\0" + self.code).hexdigest()

    def to_bytes(self) -> bytes:
        return MAGIC + f"{self.digest}\n{self.symbol}\n".encode() + self.code

    @classmethod
    def from_bytes(cls, data: bytes) -> KernelImage | None:
        """The image, or None if the bytes are not a complete one."""
        if not data.startswith(MAGIC):
            return None
        try:
            digest, symbol, code = data[len(MAGIC) :].split(b"\n", 2)
            image = cls(symbol.decode(), code)
            return image if image.digest == digest.decode() else None
        except ValueError:
            return None
