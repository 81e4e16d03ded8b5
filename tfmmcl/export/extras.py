"""What lies beside an exported model: its model card, its settings, and an excerpt of its data set's manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tfmmcl.config import Settings
from tfmmcl.export.card import model_card
from tfmmcl.records.manifest import DataSet

if TYPE_CHECKING:
    from tfmmcl.export.servable import Servable

CARD, MANIFEST, SETTINGS = "model_card.md", "manifest.json", "config.yaml"


def write_extras(
    servable: Servable, folder: Path, outputs: Mapping[str, Sequence[int | None]], notes: Sequence[str] = ()
) -> str:
    """Writes the files into a folder, which is made if it is not there.

    Args:
        servable: What is exported.
        folder: Where.
        outputs: Name → shape of the model's outputs, the batch axis first.
        notes: Sentences on this file in particular.

    Returns:
        The model card.
    """
    folder.mkdir(exist_ok=True)
    settings = yaml.safe_dump(portable(servable.settings), sort_keys=False, allow_unicode=True)
    card = model_card(servable, outputs, settings, notes)
    excerpt = json.dumps(manifest_excerpt(servable.data), indent=1, ensure_ascii=False)
    for name, text in {CARD: card, SETTINGS: settings, MANIFEST: f"{excerpt}\n"}.items():
        (folder / name).write_text(text, encoding="utf-8")
    return card


def portable(settings: Settings) -> dict[str, Any]:
    """Returns a run's settings as plain data, with the names of its folders instead of where they lie."""
    tree = settings.model_dump(mode="json")
    places = [(tree["data"], "path"), (tree["data"], "cohort"), (tree["data"], "cache"), (tree, "pretrained")]
    for section, key in places:
        if section.get(key):
            section[key] = Path(section[key]).name
    return tree


def manifest_excerpt(data: DataSet) -> dict[str, Any]:
    """Returns what of a manifest says how the data were made and what they hold, without files and their hashes."""
    manifest = data.manifest.model_dump(mode="json")
    kept = {key: manifest[key] for key in ("format_version", "spec", "splits")}
    provenance = {key: manifest["provenance"][key] for key in ("tfmmcl", "cohort", "flow")}
    return {"fingerprint": data.fingerprint, **kept, "provenance": provenance}
