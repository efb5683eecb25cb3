"""Names on the wire: streams, subjects, headers. Nobody else spells them.

- `evt.<service>.<tenant>.<aggregate>.<event>` on the JetStream stream `EVT_<SERVICE>`
- `cmd.<service>.<command>` and `qry.<service>.<query>`, answered by the queue group `<service>`
- `bell.<service>`: a best-effort hint that new events were committed
"""

from urllib.parse import quote


def subject_token(text: str) -> str:
    """Return `text` as one subject token that can inject no dot, wildcard or white space.

    Percent-encoding, with the dot encoded too. Raises `ValueError` for an empty text, which would
    make an invalid subject.
    """
    if not text:
        raise ValueError("a subject token cannot be empty")
    return quote(text, safe="").replace(".", "%2E")


def event_subject(service: str, tenant: str, event_type: str) -> str:
    """Return where an event of `event_type` (`<aggregate>.<event>.v<n>`) is published."""
    aggregate, event, _version = event_type.split(".")
    return ".".join(["evt", *(subject_token(part) for part in (service, tenant, aggregate, event))])


def event_stream(service: str) -> str:
    """Return the name of the JetStream stream that carries a service's log."""
    return f"EVT_{service.upper().replace('-', '_')}"


def event_subjects(service: str) -> str:
    """Return the wildcard subject of everything a service publishes."""
    return f"evt.{subject_token(service)}.>"


def doorbell_subject(service: str) -> str:
    """Return the subject of a service's doorbell: core NATS, best effort, no payload."""
    return f"bell.{subject_token(service)}"


def relay_lease(service: str) -> str:
    """Return the name of the lease that the relay of a service's log holds, in that service's store."""
    return f"relay:{service}"


def projection_lease(projection: str, log: str) -> str:
    """Return the name of the lease that the owner of a projection holds, in its view's store."""
    return f"projection:{projection}:{log}"


def projection_reader(service: str, projection: str) -> str:
    """Return the name under which a service's projection says how far it has read a log."""
    return f"projection:{service}:{projection}"
