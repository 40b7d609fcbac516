"""The error tree. Every message says what happened, where, what was expected and what to do.

EdgeRuntimeError
 +-- BundleError      a bundle that is missing, altered, hostile or of another version
 +-- BackendError     an engine that is absent or failed
 +-- SourceError      a camera, file or stream that cannot be opened
 |    +-- StreamBroken   a source that worked and then failed (not its ordinary end)
 +-- FrameError       a picture that cannot be processed
 +-- ProfileError     a device profile that cannot be used
 +-- BudgetError      a deadline, accuracy or other wish that makes no sense
 +-- PolicyError      a policy that does not exist or lacks what it needs
 +-- ReplayError      a trace that cannot be replayed, or that replays to other decisions
 +-- SinkError        an output that cannot be written
 +-- ResultError      a profile result that cannot be read, written, used or compared
"""

from __future__ import annotations


class EdgeRuntimeError(Exception):
    """Base of all errors that a user may see; `exit_code` is what a command returns."""

    exit_code = 1


class BundleError(EdgeRuntimeError):
    """A bundle that cannot be trusted or used."""

    exit_code = 3


class BackendError(EdgeRuntimeError):
    """An inference engine that is absent, or that failed."""

    exit_code = 4


class SourceError(EdgeRuntimeError):
    """A source of frames that cannot be opened."""

    exit_code = 5


class StreamBroken(SourceError):  # noqa: N818 (it is a state of a stream, known by this name)
    """A source that delivered frames and then failed."""

    exit_code = 6


class FrameError(EdgeRuntimeError):
    """A picture that cannot be processed."""


class ProfileError(EdgeRuntimeError):
    """A device profile that cannot be used."""

    exit_code = 7


class BudgetError(EdgeRuntimeError):
    """A budget that makes no sense, such as a deadline of zero."""

    exit_code = 2


class PolicyError(EdgeRuntimeError):
    """A policy that does not exist, or that lacks what it needs."""

    exit_code = 2


class ReplayError(EdgeRuntimeError):
    """A recorded trace that cannot be replayed, or that replays to other decisions."""

    exit_code = 9


class SinkError(EdgeRuntimeError):
    """An output that cannot be written."""

    exit_code = 8


class ResultError(EdgeRuntimeError):
    """A profile result that cannot be read, written, used or compared."""

    exit_code = 9


def missing_package(package: str, extra: str, purpose: str) -> BackendError:
    """The error for an absent optional package.

    Args:
        package: its name on the package index.
        extra: the extra of edge-runtime that brings it.
        purpose: what it is needed for, as the object of "to".
    """
    return BackendError(f"{package} is not installed; it is needed to {purpose}: pip install 'edge-runtime[{extra}]'")
