"""The twelve leads as differences of electrode potentials, and what each electrode sees of the heart's dipole.

Dower's matrix (Dower et al., J Electrocardiol 13:243, 1980), in Frank's axes: x left, y down, z posterior.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfmmcl.errors import InputError, nearest

ELECTRODES = ("RA", "LA", "LL", "V1", "V2", "V3", "V4", "V5", "V6")

_DOWER = {
    "I": (0.632, -0.235, 0.059),
    "II": (0.235, 1.066, -0.132),
    "V1": (-0.515, 0.157, -0.917),
    "V2": (0.044, 0.164, -1.387),
    "V3": (0.882, 0.098, -1.277),
    "V4": (1.213, 0.127, -0.601),
    "V5": (1.125, 0.127, -0.086),
    "V6": (0.831, 0.076, 0.230),
}


def _electrode_vectors() -> np.ndarray:
    """Returns what each electrode sees of the dipole, relative to Wilson's terminal (the mean of RA, LA and LL)."""
    one, two = np.array(_DOWER["I"]), np.array(_DOWER["II"])
    limbs = [-(one + two) / 3, (2 * one - two) / 3, (2 * two - one) / 3]
    return np.array([*limbs, *(_DOWER[f"V{i}"] for i in range(1, 7))])


def _lead_rows() -> dict[str, np.ndarray]:
    """Returns each lead's coefficients on the nine electrodes."""
    ra, la, ll, *chest = np.eye(len(ELECTRODES))
    limb = {"I": la - ra, "II": ll - ra, "III": ll - la}
    augmented = {"aVR": ra - (la + ll) / 2, "aVL": la - (ra + ll) / 2, "aVF": ll - (ra + la) / 2}
    return limb | augmented | {f"V{i}": v - (ra + la + ll) / 3 for i, v in enumerate(chest, 1)}


ELECTRODE_VECTORS = _electrode_vectors()
LEAD_ROWS = _lead_rows()
LEADS = tuple(LEAD_ROWS)


def check_leads(leads: Sequence[str]) -> None:
    """Raises `InputError` for the first lead that is not one of the twelve."""
    for lead in leads:
        if lead not in LEAD_ROWS:
            raise InputError(f"unknown lead '{lead}'{nearest(lead, LEADS)}; the known leads are {', '.join(LEADS)}.")
