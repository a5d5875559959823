"""Air-gap bundles: artifacts, chart and images in one file, an OCI image layout as a tar archive."""

from enginewright_store.bundle.artifacts import ARTIFACT_TYPE, add_artifact, install_artifacts
from enginewright_store.bundle.chart import CHART_TYPE, add_chart
from enginewright_store.bundle.layout import REF_NAME, LayoutReader, LayoutWriter

__all__ = [
    "ARTIFACT_TYPE",
    "CHART_TYPE",
    "REF_NAME",
    "LayoutReader",
    "LayoutWriter",
    "add_artifact",
    "add_chart",
    "install_artifacts",
]
