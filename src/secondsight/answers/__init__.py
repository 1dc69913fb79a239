"""Answers about a model on a whole collection: what it confuses, what drives a ranking, what a new checkpoint changed."""

from secondsight.support.errors import InputError

try:
    import pandas  # noqa: F401
    import scipy  # noqa: F401

    from secondsight.answers.collection import Collection, collect, open_collection
    from secondsight.answers.report import Answer, Case, Claim, Section, write_answer
except ModuleNotFoundError as problem:
    raise InputError(f"answers need the package {problem.name!r}: pip install 'secondsight[eval]'") from problem

__all__ = ["Answer", "Case", "Claim", "Collection", "Section", "collect", "open_collection", "write_answer"]
