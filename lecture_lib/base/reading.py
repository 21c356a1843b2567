"""Reading a text that somebody else wrote: any script, any line ends, and a sentence if it is no text."""

import codecs
from pathlib import Path

from .errors import CourseError

MOST_BYTES = 2**25  # that are read of a text: 33 million; minutes of training see no more of it
LEAST = 1000  # characters that a text must have
MARKS = {  # the bytes that files of other encodings begin with
    "UTF-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),  # before UTF-16, whose mark it begins with
    "UTF-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}


def read_text(path: Path, least: int = LEAST) -> str:
    """The text of a UTF-8 file: without a byte-order mark, with Unix line ends, the last line ended, too.

    Of a larger file, the first `MOST_BYTES` are read. Raises CourseError if the file can't be read, isn't
    UTF-8 text, or has fewer than `least` characters.
    """
    data = read_bytes(path)
    refuse_other_encodings(path, data)
    data = data.removeprefix(codecs.BOM_UTF8)
    whole = len(data) < MOST_BYTES  # if not, the last character may be cut in two
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(data, final=whole)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise CourseError(
            f"{path} isn't UTF-8: byte 0x{data[error.start]:02x} in line {line:,}; if it's Latin-1, "
            f"convert it: iconv -f LATIN1 -t UTF-8 {path} > converted.txt"
        ) from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if len(text) < least:
        raise CourseError(f"{path} has {len(text):,} characters; expected at least {least:,} to learn from")
    return text if text.endswith("\n") else text + "\n"


def read_bytes(path: Path) -> bytes:
    """The first `MOST_BYTES` of a file; CourseError if it can't be read, or is no file."""
    try:
        path.stat()  # so that a missing file is told apart from a folder
        if path.is_dir():
            raise CourseError(f"{path} is a folder; expected a text file")
        if not path.is_file():
            raise CourseError(f"{path} is a device or a pipe; expected a text file")
        with path.open("rb") as file:
            return file.read(MOST_BYTES)
    except OSError as error:
        raise CourseError(f"{path} can't be read: {error.strerror}") from None
    except ValueError as error:  # a name that no file can have
        raise CourseError(f"{str(path)!r} is no name of a file: {error}") from None


def refuse_other_encodings(path: Path, data: bytes) -> None:
    """CourseError for an empty file, one with the mark of another encoding, and one with a byte 0."""
    if not data:
        raise CourseError(f"{path} is empty")
    for name, marks in MARKS.items():
        if data.startswith(marks):
            advice = f"convert it: iconv -f {name} -t UTF-8 {path} > converted.txt"
            raise CourseError(f"{path} is {name}, expected UTF-8; {advice}")
    if (place := data.find(0)) >= 0:
        raise CourseError(f"{path} is no text: there is a byte 0 at {place:,}, as in programs and pictures")
