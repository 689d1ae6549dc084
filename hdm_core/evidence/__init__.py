"""Pieces of evidence: disjoint sets of pixels that suffice for the class."""

from hdm_core.evidence.find import evidence_passes, find_evidence
from hdm_core.evidence.result import Evidence, EvidenceStatus, Piece
from hdm_core.evidence.settings import EvidenceSettings

__all__ = ["Evidence", "EvidenceSettings", "EvidenceStatus", "Piece", "evidence_passes", "find_evidence"]
