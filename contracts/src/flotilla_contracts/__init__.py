"""The truth of every wire shape. Change a shape here first; everything else follows.

`message` says what a message is, `envelope` what travels around an event, `errors` every stable
error code with its status, and one module a bounded context (`counter`) its own words.
Subjects, streams and headers are named in one place: `wire`.
"""

from flotilla_contracts.envelope import Envelope
from flotilla_contracts.errors import PROBLEMS, ErrorCode, FieldError, Problem, ProblemSpec
from flotilla_contracts.message import Command, Event, Query, Reply

__all__ = [
    "PROBLEMS",
    "Command",
    "Envelope",
    "ErrorCode",
    "Event",
    "FieldError",
    "Problem",
    "ProblemSpec",
    "Query",
    "Reply",
]
