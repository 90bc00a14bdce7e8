"""Exception for errors that the user can correct."""


class GenimaError(Exception):
    """Error in one line: ``<subject>: <problem> (<value>); <remedy>``.

    The command line prints it without a traceback and exits with code 2; nodes log it and hold the arm.
    """
