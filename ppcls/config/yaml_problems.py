"""Explanations of YAML mistakes: the line to correct, and what to do."""

from __future__ import annotations

import yaml

# What begins on one line and is missed on a later one: the line where it begins is the one to correct.
_OPENED = ("a flow sequence", "a flow mapping", "a quoted scalar", "a simple key")


def line_to_correct(error: yaml.MarkedYAMLError, text: str) -> int | None:
    """Return the line to correct, counted from 1; the parser only gives the line where it stopped."""
    if error.context_mark and str(error.context).endswith(_OPENED):
        return int(error.context_mark.line) + 1
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return None
    filled = [n for n, content in enumerate(text.splitlines(), 1) if content.partition("#")[0].strip()]
    above = max((n for n in filled if n <= mark.line), default=None)
    at_end = mark.line >= max(filled, default=0)
    # A line without its colon is read as text that continues in the next line.
    unfinished = str(error.problem).startswith(_AFTER_A_LINE_WITHOUT_COLON)
    if above is not None and (at_end or (unfinished and ":" not in text.splitlines()[above - 1])):
        return above
    return int(mark.line) + 1


_AFTER_A_LINE_WITHOUT_COLON = ("mapping values are not allowed", "did not find expected key")
_REMEDIES = {
    "mapping values are not allowed": ". Expected 'key: value' here: a colon is missing, there is one colon "
    "too many, or the indentation is wrong",
    "found character that cannot start any token": ". Indent with spaces, not tabs; put text that "
    "begins with @, ` or % in quotes",
    "found a tab character": ". Indent with spaces, not tabs",
    "did not find expected key": ". A colon is missing, or the indentation differs from the lines above",
    "could not find expected ':'": ". Expected 'key: value'",
}


def is_own(error: yaml.MarkedYAMLError) -> bool:
    """Tell whether our own checks found the mistake, in YAML that the parser accepts."""
    return isinstance(error, yaml.constructor.ConstructorError) and not error.context


def explain_problem(error: yaml.MarkedYAMLError) -> str:
    """Return the mistake, and what to do about it if that is known."""
    problem = error.problem or error.context or "the text ends too early"
    if is_own(error):
        return problem  # its text is complete
    remedy = next((advice for start, advice in _REMEDIES.items() if problem.startswith(start)), "")
    context = f" ({error.context})" if error.context and error.problem else ""
    return f"not YAML: {problem}{context}{remedy}"
