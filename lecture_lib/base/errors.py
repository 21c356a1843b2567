"""The one exception whose message is written for the user."""


class CourseError(Exception):
    """A problem that the user can fix. The message names the value, what was expected and what to do.

    The command line prints it without a traceback and exits with 1.
    """
