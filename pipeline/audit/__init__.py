"""Findings about a classifier, from the maps and records of a run."""

from pipeline.audit.audit import Audit, audit_run
from pipeline.audit.finding import AUDIT, Finding
from pipeline.audit.settings import AuditSettings
from pipeline.audit.write import write_audit

__all__ = ["AUDIT", "Audit", "AuditSettings", "Finding", "audit_run", "write_audit"]
