"""Settings and calibrations of files that kdprompt 0.1.0 wrote, brought to the present names.

Format 1 had a codec of its own: an object was ``{"": class name, "fields": {…}}``, and tuples, dictionaries, floats
that JSON lacks and functions were tagged likewise. Kernels, orders and profiles have kept their fields.
"""

from collections.abc import Mapping
from typing import Any

from kdprompt.settings import FLAT_NAMES

__all__ = ["upgrade_calibration", "upgrade_settings"]

TRIAL_RENAMED = {"share": "output_share", "penalties": "weights"}
KINDS = {"Product": "product", "Scaled": "scaled", "Sum": "sum"}  # objects that had no ``kind`` yet
PARAMETERS = ("kernel", "output_share", "neighbourhood", "weights", "tolerance")


def upgrade_settings(stored: Any) -> dict[str, Any] | None:
    """Settings of format 1 as JSON of the present ``Settings``; None where they could not be stored."""
    plain = _untag(stored)
    if plain is None:
        return None
    upgraded: dict[str, Any] = {}
    for name, value in plain.items():
        if name in FLAT_NAMES:
            group, field = FLAT_NAMES[name]
            upgraded.setdefault(group, {})[field] = value
        else:
            upgraded[name] = value
    return upgraded


def upgrade_calibration(stored: Any) -> dict[str, Any] | None:
    """A calibration of format 1 as JSON of the present ``Calibration``; None where it could not be stored."""
    plain = _untag(stored)
    if plain is None:
        return None
    upgraded = {name: value for name, value in plain.items() if name not in ("static", "core")}
    upgraded["chosen"] = _upgrade_trial(plain["chosen"])
    upgraded["static_parameters"] = _upgrade_trial(plain["static"])["parameters"]
    upgraded["trials"] = [_upgrade_trial(trial) for trial in plain["trials"]]
    upgraded["prefix"] = plain.get("core", [])
    return upgraded


def _upgrade_trial(trial: Mapping[str, Any]) -> dict[str, Any]:
    renamed = {TRIAL_RENAMED.get(name, name): value for name, value in trial.items()}
    parameters = {name: renamed.pop(name) for name in PARAMETERS if name in renamed}
    return {"parameters": parameters, **renamed}


def _untag(value: Any) -> Any:
    """The value without the tags of format 1: objects become dictionaries of their fields."""
    if isinstance(value, list):
        return [_untag(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    match value[""]:
        case "dict":
            return {key: _untag(inner) for key, inner in value["items"]}
        case "tuple":
            return [_untag(inner) for inner in value["items"]]
        case "float":
            return float(value["value"])
        case "name":
            return value["name"]
        case _:
            kind = KINDS.get(value[""])
            fields = {name: _untag(inner) for name, inner in value["fields"].items()}
            return fields if kind is None else {**fields, "kind": kind}
