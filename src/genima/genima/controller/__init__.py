"""The controller: reads drawn targets into chunks of joint actions."""

from genima.controller.controller import Controller

__all__ = ["Controller"]
