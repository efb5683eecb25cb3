"""Other people's event sourcing, on our tables: what they write is relayed like our own.

Each module needs an extra of the same name: `flotilla.interop.eventsourcing` needs
`flotilla[eventsourcing]`.
"""
