"""Experiments on data sets: measures, records that survive a kill, tables, figures, one report ([M25] §4)."""

from secondsight.support.errors import InputError

try:
    from secondsight.evaluation import measures
    from secondsight.evaluation.evaluate import evaluate
    from secondsight.evaluation.experiments import EXPERIMENTS, Experiment
    from secondsight.evaluation.report import Results
    from secondsight.evaluation.run import Run
    from secondsight.evaluation.setting import Setting, settings
except ModuleNotFoundError as problem:
    raise InputError(f"experiments need the package {problem.name!r}: pip install 'secondsight[eval]'") from problem

__all__ = ["EXPERIMENTS", "Experiment", "Results", "Run", "Setting", "evaluate", "measures", "settings"]
