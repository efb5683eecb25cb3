"""Workflows: a process manager is an aggregate plus a pump; recovery is not a second code path.

`definition` says what is to be done, `checking` whether that can work; `instance` is the aggregate,
`pump` does what it asks for, `arrivals` tells it what others did; `picture` shows where one stands.
"""
