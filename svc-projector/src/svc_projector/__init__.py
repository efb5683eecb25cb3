"""Folds logs into read models and answers queries from them.

`projector.py` is the loop, `log_reader.py` reads a log from JetStream, `running.py` shows how
it is; `counters.py`, `totals.py` and `activity.py` are the read models.
"""
