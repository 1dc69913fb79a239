"""An audit: what a model confuses, ignores and over-uses on a whole collection, each claim with its cases."""

from secondsight.answers.audit.run import audit, audit_collection

__all__ = ["audit", "audit_collection"]
