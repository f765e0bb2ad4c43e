"""YAML as its version 1.2 reads it, with the line of every value: for files that people write by hand.

PyYAML itself reads version 1.1, in which `1e-6` is a text, `no` is false, `010` is eight and `1:30` is ninety. Nothing
is built but lists, named fields and plain values; a name that stands twice is refused.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, cast

import yaml

from storage.errors import Refused

MAX_VALUES = 10_000
"""Values that a document may have, each alias counted as often as it stands: a file of a training has a hundred."""
_PREFIX = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
}


class InvalidYaml(Refused):
    """A text that is no YAML, or more than plain values. The message names the line."""

    code = "invalid_yaml"


@dataclass(frozen=True)
class YamlDocument:
    """A document's value, and the line (from 1) of each field in it by its path (`sampler.steps`)."""

    value: Any
    lines: dict[str, int] = field(default_factory=dict[str, int])


def read_yaml(text: str | bytes, name: str) -> YamlDocument:
    """The one document in a text. `name` is what messages call it. Raises InvalidYaml."""
    try:
        node = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        tab = " Indent with spaces." if "\\t" in str(error.problem) else ""
        raise InvalidYaml(f"{name}{where}: this is not YAML: {error.problem or error.context}.{tab}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidYaml(f"{name}: this is not a text in UTF-8: {str(error).splitlines()[0]}.") from error
    except RecursionError:
        raise InvalidYaml(f"{name}: this is nested too deeply.") from None
    document = YamlDocument(None)
    return YamlDocument(_Reader(name, document.lines).read(node), document.lines)


class _Reader:
    def __init__(self, name: str, lines: dict[str, int]) -> None:
        self._name, self._lines, self._left = name, lines, MAX_VALUES

    def read(self, node: Any, path: str = "", depth: int = 0) -> Any:
        self._left -= 1
        # An alias of what it stands in would go round for ever.
        if self._left < 0 or depth > 20:
            raise self._refusal(node, "this holds too many values, or too deep ones")
        match node:
            case None:
                return None
            case yaml.MappingNode():
                return self._fields(node, path, depth)
            case yaml.SequenceNode():
                self._check_tag(node, "seq")
                return [
                    self.read(self._noted(one, f"{path}.{number}"), f"{path}.{number}", depth + 1)
                    for number, one in enumerate(cast(list[Any], node.value))
                ]
            case _:
                return self._plain(node)

    def _fields(self, node: yaml.MappingNode, path: str, depth: int) -> dict[str, Any]:
        self._check_tag(node, "map")
        found: dict[str, Any] = {}
        for key, value in cast(list[tuple[Any, Any]], node.value):
            if not isinstance(key, yaml.ScalarNode):
                raise self._refusal(key, "the name of a field is a plain text")
            name = str(key.value)
            inside = f"{path}.{name}" if path else name
            if name in found:
                raise self._refusal(key, f"{inside} stands here twice; the first is in line {self._lines[inside]}")
            self._noted(key, inside)
            found[name] = self.read(value, inside, depth + 1)
        return found

    def _plain(self, node: yaml.ScalarNode) -> Any:
        text = str(node.value)
        # BaseLoader tags every plain value as a text; only what says `!!int` and the like has another tag.
        self._check_tag(node, "str")
        if node.style is not None:  # in quotes, or a block
            return text
        if text in _WORDS:
            return _WORDS[text]
        if _INTEGER.fullmatch(text):
            if len(text) > 30:
                raise self._refusal(node, f"{text[:12]}... is too large a number")
            return int(text)
        if _FLOAT.fullmatch(text):
            if not math.isfinite(number := float(text)):
                raise self._refusal(node, f"{text[:40]} is too large a number")
            return number
        if text.lower().lstrip("+-") in (".inf", ".nan"):
            raise self._refusal(node, f"{text} is no number that can be counted with")
        return text

    def _check_tag(self, node: Any, kind: str) -> None:
        if node.tag != _PREFIX + kind:
            shown = str(node.tag).removeprefix(_PREFIX)
            raise self._refusal(node, f"the tag {shown} is not read here; write the plain value")

    def _noted(self, node: Any, path: str) -> Any:
        self._lines[path] = node.start_mark.line + 1
        return node

    def _refusal(self, node: Any, reason: str) -> InvalidYaml:
        return InvalidYaml(f"{self._name}, line {node.start_mark.line + 1}: {reason}.")
