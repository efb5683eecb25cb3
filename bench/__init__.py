"""Measures Flotilla beside its references and peers, in one run on one machine: `python -m bench`."""
