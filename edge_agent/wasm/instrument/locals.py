"""The parameters and locals of a function, and those that are added to them."""

from edge_agent.wasm.instrument.binary import BYTES, InvalidError, letter, u32, unsigned
from edge_agent.wasm.instrument.shape import Type

MAX_LOCALS = 50_000  # of one function, as in browsers


class Locals:
    """`letters` are the types of the function's own, parameters first."""

    def __init__(self, kind: Type) -> None:
        self.letters = kind.params
        self._kind = kind
        self._groups: list[bytes] = []
        self._temporary: dict[str, int] = {}

    def read(self, code: bytes) -> int:
        """Where the code begins. IndexError: cut."""
        count, at = u32(code, 0)
        letters = [self.letters]
        total = 0
        for _ in range(count):
            start = at
            number, at = u32(code, at)
            total += number
            if total > MAX_LOCALS:
                raise InvalidError(f"a function has more than {MAX_LOCALS} locals")
            letters.append(letter(code[at]) * number)
            at += 1
            self._groups.append(code[start:at])
        self.letters = "".join(letters)
        return at

    def temporary(self, kind: str) -> int:
        """The number of a local that is added for values of this type."""
        if kind not in self._temporary:
            self._temporary[kind] = len(self.letters) + len(self._temporary)
            self._groups.append(b"\x01" + BYTES[kind])
        return self._temporary[kind]

    def pad(self, frame_bytes: int) -> None:
        """Add some until a frame has so many bytes; the last ones to be added."""
        held = 8 * len(self._kind.results + self._kind.params)
        held += sum(8 if one in "IF" else 4 for one in self.letters[len(self._kind.params) :])
        if held < frame_bytes:
            self._groups.append(unsigned((frame_bytes - held + 7) // 8) + BYTES["I"])

    def encoded(self) -> bytes:
        """As they stand before the code."""
        return unsigned(len(self._groups)) + b"".join(self._groups)
