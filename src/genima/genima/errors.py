"""The one exception that users see."""


class GenimaError(Exception):
    """One line that says what is wrong, where, and what to do about it.

    The command line prints it without a traceback and exits with code 2; nodes log it and hold the arm.
    """
