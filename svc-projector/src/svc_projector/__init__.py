"""Folds logs into read models and answers queries from them.

`projector.py` is the loop, `log_reader.py` reads a log from JetStream, `counters.py` is a read model.
"""
