"""Remarks of the report page about baselines that keep the class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hdm_core import MetricSettings, method_title
from hdm_core.baseline_contrast import no_contrast_sentence
from hdm_core.problem_type import ProblemType
from pipeline.runs.measured import configured_metrics


@dataclass(frozen=True)
class ContrastRemarks:
    """Maker of the remarks on the images of a run.

    Attributes:
        metrics_baseline: kind.
        problem_type: meaning of the records' probabilities.
    """

    metrics_baseline: str
    problem_type: ProblemType

    @classmethod
    def of_run(cls, info: Mapping[str, Any], metrics: MetricSettings | None = None) -> ContrastRemarks:
        """Return the maker for a run.

        Args:
            info: the content of run.json.
            metrics: settings of the run's numbers; None for those of its configuration.
        """
        problem_type: ProblemType = (info.get("interface") or {}).get("problem_type") or "single_label_classification"
        measured = metrics or configured_metrics(info)  # of a run without metrics no record tells of their baseline
        return cls("" if measured is None else measured.baseline, problem_type)

    def of_image(self, records: Sequence[Mapping[str, Any]]) -> list[str]:
        """Return the remarks on an image: a sentence per class and baseline that keeps it.

        Each begins with the methods that use the baseline, and the metrics if they do.

        Args:
            records: of the image, all methods and ranks.
        """
        users: dict[str, list[str]] = {}
        for record in records:
            if record["no_contrast"]:
                sentence = self._sentence(record, record["baseline"], record["baseline_probability"])
                users.setdefault(sentence, []).append(method_title(record["method"]))
        for record in records:
            if record["metrics_no_contrast"]:
                sentence = self._sentence(record, self.metrics_baseline, record["metrics_baseline_probability"])
                if "metrics" not in users.setdefault(sentence, []):
                    users[sentence].append("metrics")
        return [f"{', '.join(names)}: {sentence}." for sentence, names in users.items()]

    def _sentence(self, record: Mapping[str, Any], baseline: str, score: float) -> str:
        return no_contrast_sentence(record["target_name"], baseline, record["probability"], score, self.problem_type)
