"""What the suites beside the commands have in common: samples by name, figures by name."""

from collections.abc import Callable, Mapping

from bench.measure import Sample, median_of

Samples = dict[str, list[Sample]]
Tell = Callable[[str], None]
"""Say what is measured next."""


def medians(samples: Mapping[str, list[Sample]]) -> dict[str, Sample]:
    """Return the median over the rounds, by name."""
    return {name: median_of(taken) for name, taken in samples.items()}
