"""The header of a safetensors file, read for exactly its grammar: an object of objects with known fields.

So its depth is fixed, its size in memory is bounded by the limits below, and a header that any other reader could
understand differently is refused. Source of the format: https://github.com/huggingface/safetensors#format.

Our own, beside the safetensors library that loads weights: that one wants the whole file, while here the first bytes
of an upload are judged before the rest arrives.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import msgspec

from storage.errors import WeightsRefused

MAX_TENSORS = 50_000
MAX_DIMENSIONS = 8
MAX_NAME_BYTES = 512
MAX_METADATA_ENTRIES = 1_000
MAX_METADATA_BYTES = 4 * 1024 * 1024
MAX_KEPT_METADATA_BYTES = 2 * 1024 * 1024
MAX_NUMBER = 2**63 - 1

DTYPE_BITS: Mapping[str, int] = MappingProxyType(
    {
        **dict.fromkeys(("F4",), 4),
        **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
        **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
        **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
        **dict.fromkeys(("I32", "U32", "F32"), 32),
        **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
    }
)
"""Bits of one element, by the format's name of the type."""

# Possessive quantifiers (*+, ++) never go back: a hostile header costs time that grows with its length, no faster.
_TOKEN = re.compile(rb'[ \t\r\n]*+(?:("(?:[^"\\\x00-\x1f]++|\\.)*+")|(\d{1,19}+)|([{}\[\]:,]))', re.DOTALL)
_PADDING = re.compile(rb"[ \t\r\n]*+")
_STRING = msgspec.json.Decoder(str)


@dataclass(frozen=True)
class TensorFacts:
    """One tensor: its element type (a key of DTYPE_BITS), shape, and bytes from `begin` to `end` after the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def elements(shape: tuple[int, ...]) -> int:
    """How many numbers a tensor of this shape has."""
    product = 1
    for length in shape:
        product *= length
    return product


class HeaderReader:
    """Reads the header from left to right. Each method takes what must come next, or refuses the file."""

    def __init__(self, name: str, header: bytes) -> None:
        self._name, self._header, self._at = name, header, 0
        self.metadata_keys: set[str] = set()
        self.metadata: dict[str, str] = {}

    def read(self) -> dict[str, TensorFacts]:
        """All tensors by name; the metadata is then in `metadata_keys` and `metadata`."""
        tensors: dict[str, TensorFacts] = {}
        seen_metadata = False
        # One more, for the metadata.
        for key in self._members(MAX_TENSORS + 1):
            if key == "__metadata__":
                if seen_metadata:
                    raise self._refusal("duplicate", "the metadata comes twice")
                seen_metadata = True
                self._read_metadata()
            elif key in tensors:
                raise self._refusal("duplicate", f"tensor '{key[:80]}' comes twice")
            else:
                tensors[key] = self._tensor(key)
        if not _PADDING.fullmatch(self._header, self._at):
            raise self._refusal("header_grammar", f"something follows the closing brace at byte {self._at}")
        return tensors

    def _read_metadata(self) -> None:
        left = MAX_KEPT_METADATA_BYTES
        for key in self._members(MAX_METADATA_ENTRIES):
            # JSON parsers keep the first or the last of two equal keys, each as it likes: they would read two different
            # files.
            if key in self.metadata_keys:
                raise self._refusal("duplicate", f"metadata key '{key[:80]}' comes twice")
            self.metadata_keys.add(key)
            begin = self._at
            value = self._text(MAX_METADATA_BYTES)
            left -= self._at - begin
            if left >= 0:
                self.metadata[key] = value

    def _tensor(self, key: str) -> TensorFacts:
        dtype, shape, offsets = "", None, None
        for field in self._members(3):
            match field:
                case "dtype" if not dtype:
                    dtype = self._text(MAX_NAME_BYTES)
                case "shape" if shape is None:
                    shape = self._numbers(MAX_DIMENSIONS)
                case "data_offsets" if offsets is None:
                    offsets = self._numbers(2)
                case _:
                    raise self._refusal("header_grammar", f"tensor '{key[:80]}' has the field '{field[:40]}' too many")
        if dtype not in DTYPE_BITS:
            raise self._refusal(
                "dtype", f"tensor '{key[:80]}' has the element type '{dtype[:20]}', which the format lacks"
            )
        if shape is None or offsets is None or len(offsets) != 2:
            raise self._refusal("header_grammar", f"tensor '{key[:80]}' lacks its shape or its two data_offsets")
        begin, end = offsets
        bits = elements(shape) * DTYPE_BITS[dtype]
        if bits % 8 or end - begin != bits // 8:
            raise self._refusal(
                "shape", f"tensor '{key[:80]}' of shape {list(shape)} in {dtype} does not fill bytes {begin} to {end}"
            )
        return TensorFacts(dtype, shape, begin, end)

    def _members(self, maximum: int) -> Iterator[str]:
        """The keys of an object, one at a time; the caller takes each value before it asks for the next key."""
        self._mark(b"{")
        # Only here may an object end without a key: after a comma one must follow.
        if self._next_is(b"}"):
            return
        for _ in range(maximum):
            key = self._text(MAX_NAME_BYTES)
            self._mark(b":")
            yield key
            if self._next_is(b"}"):
                return
            self._mark(b",")
        raise self._refusal("header_limits", f"more than {maximum:,} entries in one object")

    def _numbers(self, maximum: int) -> tuple[int, ...]:
        numbers: list[int] = []
        self._mark(b"[")
        if self._next_is(b"]"):
            return ()
        for _ in range(maximum):
            digits = self._token(2, "a whole number").group(2)
            # JSON has no leading zeros; readers that let them pass do not agree on what they mean.
            if int(digits) > MAX_NUMBER or (len(digits) > 1 and digits.startswith(b"0")):
                raise self._refusal("header_grammar", f"'{digits.decode()}' is no size")
            numbers.append(int(digits))
            if self._next_is(b"]"):
                return tuple(numbers)
            self._mark(b",")
        raise self._refusal("header_limits", f"more than {maximum} numbers in one list")

    def _text(self, maximum: int) -> str:
        token = self._token(1, "a text in quotes")
        length = token.end(1) - token.start(1) - 2
        if length > maximum:
            raise self._refusal("header_limits", f"a text of {length:,} bytes; {maximum:,} are allowed")
        try:
            return _STRING.decode(token.group(1))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._refusal("header_grammar", f"a text that is not JSON ({error})") from error

    def _mark(self, mark: bytes) -> None:
        if self._token(3, f"'{mark.decode()}'").group(3) != mark:
            raise self._refusal("header_grammar", f"'{mark.decode()}' was expected before byte {self._at}")

    def _next_is(self, mark: bytes) -> bool:
        token = _TOKEN.match(self._header, self._at)
        if token is None or token.start(3) < 0 or token.group(3) != mark:
            return False
        self._at = token.end()
        return True

    def _token(self, group: int, what: str) -> re.Match[bytes]:
        """The next token, of the kind `group` of _TOKEN. Its bytes are not copied: it may be as long as the header."""
        token = _TOKEN.match(self._header, self._at)
        if token is None or token.start(group) < 0:
            raise self._refusal("header_grammar", f"{what} was expected at byte {self._at}")
        self._at = token.end()
        return token

    def _refusal(self, reason: str, what: str) -> WeightsRefused:
        return WeightsRefused(reason, f"{self._name} is not a sound safetensors file: {what}. Get or convert it again.")
