"""The one exception of the machinery that a person is meant to read."""


class CourseError(Exception):
    """Something the user can mend. The message names the value, what was expected and what to do.

    The command line prints it without a traceback and exits with 1.
    """
