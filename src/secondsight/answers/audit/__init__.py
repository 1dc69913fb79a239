"""An audit: what a model confuses, ignores and over-uses on a whole collection, each claim with its cases."""
