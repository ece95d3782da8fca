"""What a scrape tells, as a Prometheus server reads it."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families


class Scrape:
    """The samples of one text."""

    def __init__(self, text):
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self._samples = [sample for family in self.families.values() for sample in family.samples]

    def names(self):
        return {sample.name for sample in self._samples}

    def value(self, name, **labels):
        """The sum of the samples of this name that have these labels; ``None``: there is none."""
        values = [
            sample.value
            for sample in self._samples
            if sample.name == f"flask_hotreload_{name}" and labels.items() <= sample.labels.items()
        ]
        return sum(values) if values else None
