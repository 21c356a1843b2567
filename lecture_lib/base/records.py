"""Recorded results: JSON files that say which command made them, where and when."""

import json
from datetime import date
from pathlib import Path

from .errors import CourseError
from .files import explaining_os_errors, write_text


def stamp(command: str) -> dict[str, str]:
    """What is stored with every recorded number: the command that made it, the machine and today's date."""
    from .device import describe_machine  # with torch, which those who only read records don't need

    return {"command": command, "machine": describe_machine(), "date": date.today().isoformat()}


def read_json(path: Path) -> dict:
    """The content of a JSON file; an empty dict if there is no such file yet.

    Raises CourseError if it is damaged, or can't be read.
    """
    try:
        with explaining_os_errors(path):
            return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:  # also of text that isn't UTF-8
        raise CourseError(
            f"{path} is damaged, or no JSON file ({error}); get it again, or delete it"
        ) from None


def write_json(path: Path, content: dict) -> None:
    """Write `content` to `path`, atomically, in the one format of all records."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def rounded(content: dict, digits: int = 4) -> dict:
    """The content as JSON gives it back, with every number that isn't an integer rounded."""
    return json.loads(json.dumps(content), parse_float=lambda number: round(float(number), digits))
