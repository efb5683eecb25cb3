"""New parts of a fleet from a short answer set: rendered, edited into what lists them, then generated.

`answers` says what may be asked for, `service` what follows from it, `editing` how lists are extended
without losing a comment, `changes` what is written; templates are files in `templates/`.
"""
