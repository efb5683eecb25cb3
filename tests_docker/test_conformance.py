"""The behaviour of every topology, observed in containers: the same tests, another fleet."""

from test_topologies import *  # noqa: F403 - its tests are this module's
