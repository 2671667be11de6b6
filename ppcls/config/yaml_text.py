"""Read YAML that may be damaged or hostile, and write YAML that reads back unchanged.

All YAML of ppcls is read and written here: recipes, ``-o`` values, ``config.yaml`` of runs and
``inference.yml`` of exports. Time and memory are limited: a few lines of YAML can describe gigabytes (aliases
of aliases), crash a parser (thousands of brackets) or contain numbers that cannot be printed; these are
refused.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from ppcls.config.yaml_problems import explain_problem, is_own, line_to_correct
from ppcls.errors import ConfigError, Mistake, Place

# Far above any real file: the longest recipe has some 300 values, a list of 22,000 class names 0.5 MB.
MAX_BYTES = 8 << 20
MAX_DEPTH = 40
MAX_NODES = 10_000
MAX_NODES_OF_DATA = 100_000
_LONGEST_NUMBER = 100
# Number of characters that count as one value if aliases repeat them.
TEXT_OF_A_NODE = 256

_PREFIX = "tag:yaml.org,2002:"
_TAGS = ("null", "bool", "int", "float", "str", "seq", "map")
# YAML 1.1 requires a dot and a sign as in 1.0e-4, but people write 1e-4 for the number.
_FLOAT = re.compile(r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)[eE][-+]?[0-9]+\Z")
# The C parser is ten times as fast; it is missing only if PyYAML was built without it.
_Base: TypeAlias = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # type: ignore[valid-type]


class NotYaml(ConfigError):
    """A text that is not YAML at all."""


class _Loader(_Base):
    """Creates only dicts, lists, texts, numbers, booleans and null."""

    yaml_implicit_resolvers = {
        first: [(tag, rule) for tag, rule in rules if tag.removeprefix(_PREFIX) in (*_TAGS, "merge")]
        for first, rules in _Base.yaml_implicit_resolvers.items()
    }
    yaml_constructors = {f"{_PREFIX}{tag}": _Base.yaml_constructors[f"{_PREFIX}{tag}"] for tag in _TAGS}

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Build the value of a node; a tag that does not fit its text, as in ``!!int x``, is an error."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, ArithmeticError, AttributeError, TypeError):
            kind = node.tag.removeprefix(_PREFIX)
            raise _problem_at(node, f"a value marked as {kind} that is none") from None

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Any, Any]:
        """Build a map whose keys are text or whole numbers, each given once."""
        if not isinstance(node, yaml.MappingNode):
            raise _problem_at(node, f"expected a map, got {_short(node)}")
        seen: set[Any] = set()
        for key_node, _ in node.value:  # before `<<` adds keys, which may be given again
            if key_node.tag == f"{_PREFIX}merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, bool) or not isinstance(key, (str, int)):
                raise _problem_at(key_node, f"the key {_short(key_node)} is no text; put it in quotes")
            if key in seen:
                raise _problem_at(key_node, f"the key {key!r} is given twice")
            seen.add(key)
        self.flatten_mapping(node)
        return {
            self.construct_object(key_node, deep=True): self.construct_object(value_node, deep=True)
            for key_node, value_node in node.value
        }

    def construct_whole(self, node: yaml.Node) -> int:
        """Build a whole number of at most 64 bits."""
        value = self.construct_yaml_int(node) if len(node.value) <= _LONGEST_NUMBER else 1 << 64
        if value.bit_length() > 64:
            raise _problem_at(node, f"the whole number {_short(node)} has more than 64 bits")
        return value

    def construct_real(self, node: yaml.Node) -> float:
        """Build a number that fits a float."""
        if len(node.value) > _LONGEST_NUMBER:
            raise _problem_at(node, f"the number {_short(node)} has more than {_LONGEST_NUMBER} characters")
        value: float = self.construct_yaml_float(node)
        return value

    def refuse_tag(self, node: yaml.Node) -> None:
        """Refuse a tag; Python's tags could build any object."""
        raise _problem_at(node, f"the tag {node.tag.replace(_PREFIX, '!!')} is not supported")


_Loader.add_constructor(f"{_PREFIX}int", _Loader.construct_whole)
_Loader.add_constructor(f"{_PREFIX}float", _Loader.construct_real)
_Loader.add_constructor(None, _Loader.refuse_tag)


class _Texts:
    """Writes a text in quotes if a reader could mistake it for another type."""

    def represent_text(self: Any, text: str) -> Any:
        """Return the node of a text; rare line breaks become escapes, because readers would change them."""
        style = '"' if any(sign in text for sign in "\x85\u2028\u2029") else None
        return self.represent_scalar(f"{_PREFIX}str", text, style)


class _Dumper(_Texts, yaml.SafeDumper):
    """Writes every text."""


class _QuickDumper(_Texts, getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Writes the same in a fifth of the time, but escapes emoji and refuses halves of surrogate pairs."""


for _class in (_Dumper, _QuickDumper):
    _class.add_representer(str, _class.represent_text)

for _class in (_Loader, _Dumper, _QuickDumper):
    _class.add_implicit_resolver(f"{_PREFIX}float", _FLOAT, list("-+0123456789."))


def _problem_at(place: Any, text: str) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, text, place.start_mark)


def _short(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        return "a map" if isinstance(node, yaml.MappingNode) else "a list"
    text: str = node.value
    return text if len(text) <= 30 else f"{text[:20]}... ({len(text)} characters)"


def read_yaml(path: str | Path, max_nodes: int = MAX_NODES) -> Any:
    """Return the content of a YAML file as plain dicts, lists, texts, numbers, booleans and None.

    Args:
        path: the file, UTF-8.
        max_nodes: see :func:`parse_yaml`.

    Raises:
        ConfigError: with file and line, if it cannot be read, is not UTF-8, or is refused by
            :func:`parse_yaml`.
    """
    return parse_yaml(_text_of(path), str(path), max_nodes)


def _text_of(path: str | Path) -> str:
    """Return the text of a UTF-8 file of reasonable size."""
    file = Path(path)
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise _wrong(path, f"cannot be read: {error.strerror or error}") from None
    if len(content) > MAX_BYTES:
        raise _wrong(path, f"larger than {MAX_BYTES >> 20} MB, which no YAML file of ppcls is")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        byte = f"byte 0x{content[error.start]:02x}"
        raise _wrong(path, f"not UTF-8 ({byte}); save the file as UTF-8", line) from None


def parse_yaml(text: str, where: str, max_nodes: int = MAX_NODES) -> Any:
    """Return the content of a YAML text as plain dicts, lists, texts, numbers, booleans and None.

    ``1e-4`` is a number and ``2024-1-1`` a text. Values of aliases are copied, so that a change of one does
    not affect the others.

    Args:
        text: the YAML.
        where: the file, for messages.
        max_nodes: largest number of values; values that aliases repeat are counted each time.

    Raises:
        ConfigError: with file and line: not YAML, a key that is given twice or is not text, a tag for Python
            objects, more than `MAX_DEPTH` levels or `max_nodes` values, a whole number beyond 64 bits.
    """
    try:
        _check_size(text, max_nodes)
        return _unshared(yaml.load(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        kind = ConfigError if is_own(error) else NotYaml
        raise _wrong(where, explain_problem(error), line_to_correct(error, text), kind) from None
    except (yaml.YAMLError, UnicodeEncodeError) as error:  # characters that YAML does not allow
        raise _wrong(where, f"not YAML: {str(error).splitlines()[0]}", None, NotYaml) from None


def compose_yaml(path: Path) -> yaml.Node | None:
    """Return a YAML file that :func:`read_yaml` can read as nodes, which know their lines.

    Raises:
        ConfigError: if it cannot be read.
    """
    return yaml.compose(_text_of(path), Loader=_Loader)


def _wrong(
    file: str | Path, text: str, line: int | None = None, kind: type[ConfigError] = ConfigError
) -> ConfigError:
    return kind.of(Mistake("", text, place=Place(str(file), line)))


def dump_yaml(content: Any, *, compact: bool = False) -> str:
    """Return plain dicts, lists, texts, numbers, booleans and None as YAML that reads back unchanged.

    Keys keep their order. A text such as ``1e3`` or ``no`` is put in quotes, for other readers too.

    Args:
        content: what to write.
        compact: write the innermost lists and maps on one line.
    """
    try:
        text = _dumped(content, _QuickDumper, compact)
    except UnicodeEncodeError:  # bytes of a path that are not UTF-8
        return _dumped(content, _Dumper, compact)
    return _dumped(content, _Dumper, compact) if "\\U" in text else text


def _dumped(content: Any, dumper: Any, compact: bool) -> str:
    style = None if compact else False
    text: str = yaml.dump(
        content, Dumper=dumper, sort_keys=False, allow_unicode=True, default_flow_style=style
    )
    return text


def _check_size(text: str, max_nodes: int) -> None:
    """Check the size of a YAML text without building its values.

    Raises:
        yaml.MarkedYAMLError: if it is nested too deeply or has too many values, aliases written out.
    """
    weights: dict[str | None, tuple[int, int]] = {}  # weight and height of values with an anchor
    open_nodes: list[list[Any]] = [
        [None, 0, 0]
    ]  # anchor, weight so far, height so far; the first is the stream
    for event in yaml.parse(text, Loader=_Base):
        if isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append([event.anchor, 1, 0])
            weights.pop(event.anchor, None)
            done = (0, 0)
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, *measured = open_nodes.pop()
            done = (measured[0], measured[1] + 1)
            weights[anchor] = done
        elif isinstance(event, yaml.ScalarEvent):
            done = (1 + len(event.value) // TEXT_OF_A_NODE, 0)
            weights[event.anchor] = done
        elif isinstance(event, yaml.AliasEvent):
            if any(node[0] == event.anchor for node in open_nodes):
                raise _problem_at(event, f"the alias *{event.anchor} stands inside what it means")
            done = weights.get(event.anchor, (0, 0))  # an unknown one is reported when it is loaded
        else:
            continue
        above = open_nodes[-1]
        above[1] = above[1] + done[0]
        above[2] = max(above[2], done[1])
        if len(open_nodes) - 1 + done[1] > MAX_DEPTH:
            raise _problem_at(event, f"nested more than {MAX_DEPTH} levels deep")
        if sum(node[1] for node in open_nodes) > max_nodes + len(text) // TEXT_OF_A_NODE:
            repeats = ", aliases written out" if weights.keys() - {None} else ""
            raise _problem_at(event, f"more than {max_nodes} values{repeats}")


def _unshared(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unshared(item) for key, item in value.items()}
    return [_unshared(item) for item in value] if isinstance(value, list) else value
