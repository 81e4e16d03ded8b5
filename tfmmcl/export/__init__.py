"""Finished models for others to use: SavedModels and LiteRT files, each with its model card."""

from tfmmcl.export.litert import export_litert
from tfmmcl.export.saved_model import export_run

__all__ = ["export_litert", "export_run"]
