"""Hierarchies: series that are sums of others, and forecasts of them that agree."""

from tsar.hierarchy.reconciled import Reconciled
from tsar.hierarchy.reconciling import reconcile
from tsar.hierarchy.summing import TOTAL, Hierarchy, aggregate

__all__ = ["TOTAL", "Hierarchy", "Reconciled", "aggregate", "reconcile"]
