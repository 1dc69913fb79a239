"""Checks annotations while tests run; a whole number is a number wherever a float is asked for, as in PEP 484."""

from beartype import BeartypeConf, beartype

typechecker = beartype(conf=BeartypeConf(is_pep484_tower=True))
