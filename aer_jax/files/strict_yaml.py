"""YAML without surprises: what PyYAML reads otherwise than it looks is read as it looks, or refused."""

from __future__ import annotations

import re
from typing import Any

import yaml

MOST_VALUES = 10_000  # of a document with its aliases written out


class BadYaml(Exception):
    """Why a text cannot be read, without a full stop."""


class _Loader(yaml.SafeLoader):
    """SafeLoader without dates, base 60 and octal numbers, which stay text: `2024-01-01`, `1:30`, `010`."""


_TAGS = ("null", "bool", "int", "float", "str", "seq", "map")
_Loader.yaml_constructors = {
    tag: constructor
    for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.removeprefix("tag:yaml.org,2002:") in _TAGS
}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] in ("null", "bool", "merge")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F]{1,16})$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"),
    list("-+.0123456789"),
)


def load(text: str) -> Any:
    """The one document of `text`; None where it is empty.

    Raises:
        BadYaml: it is not YAML, a key stands twice in one mapping, or it is nested or repeated without measure.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _values(node, {}) > MOST_VALUES:
            raise BadYaml(f"it holds more than {MOST_VALUES:,} values, or its aliases stand for more")
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        tab = "; indent with spaces, not with tabs" if "'\\t'" in str(error.problem) else ""
        raise BadYaml(f"{error.problem or error.context}{where}{tab}") from None
    except yaml.YAMLError as error:
        raise BadYaml(" ".join(str(error).split())) from None
    except RecursionError:
        raise BadYaml("it is nested too deeply") from None
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:  # PyYAML's own, of odd scalars
        raise BadYaml(f"a value cannot be read ({' '.join(str(error).split())[:100]})") from None


def _values(node: yaml.Node, known: dict[int, int]) -> int:
    if id(node) in known:
        if not known[id(node)]:
            raise BadYaml(f"an alias on line {node.start_mark.line + 1} holds itself")
        return known[id(node)]
    known[id(node)] = 0  # being counted
    count = 1
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                if key.value in lines:
                    places = f"lines {lines[key.value]} and {line}" if line != lines[key.value] else f"line {line}"
                    raise BadYaml(f'the key "{key.value[:60]}" stands twice, on {places}; keep one')
                lines[key.value] = line
            count += _values(key, known) + _values(value, known)
    elif isinstance(node, yaml.SequenceNode):
        count += sum(_values(item, known) for item in node.value)
    known[id(node)] = count
    return count
