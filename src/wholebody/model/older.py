"""The one place that knows what our own checkpoints said of themselves in earlier versions of this package."""

from __future__ import annotations

from typing import Any

_KINDS = {"vit": "osx", "hybrid": "embedded"}  # of the encoder -> family


def current_config(data: dict[str, Any]) -> dict[str, Any]:
    """A network's config as this version writes it. What cannot be told is left as it is, for the parser to refuse."""
    if not isinstance(data, dict) or "family" in data:
        return data
    encoder = data.get("encoder")
    family = _KINDS.get(encoder.get("kind", "")) if isinstance(encoder, dict) else None
    if family is None:
        return data
    # Until version 0.1 one config described both families: exchangeable parts said their kind, the camera's three
    # numbers stood alone, and what only the embedded network has was null, false or 1.
    new = {**data, "family": family, "box_enlarge": 1.25, "encoder": _without(encoder, "kind")}
    new["camera"] = {"focal": new.pop("focal"), "hw": new.pop("camera_hw"), "size": new.pop("camera_size")}
    if family == "osx":
        new["encoder"]["tokens"] = 31
        new["crop_filter"] = "published"
        _drop(new, lifting=None, position_unit=1.0)
    else:
        new["crop_filter"] = "area"
    for part in ("hands", "face"):
        if isinstance(new.get(part), dict):
            new[part] = _osx_part(new[part]) if family == "osx" else _embedded_part(new[part])
    return new


def _osx_part(part: dict[str, Any]) -> dict[str, Any]:
    part = {**part, "pyramid": _without(part["pyramid"], "kind")}
    _drop(part, context=False, aligned=False)
    return part


def _embedded_part(part: dict[str, Any]) -> dict[str, Any]:
    part = dict(part)
    _drop(part, context=True, aligned=True, position_level=0)
    del part["pyramid"]  # its one number is the encoder's too
    return part


def _without(table: Any, *keys: str) -> Any:
    return {key: value for key, value in table.items() if key not in keys}


def _drop(table: dict[str, Any], **only: Any) -> None:
    """Take settings out that nothing but these values was ever used of; others stay, and are refused."""
    for key, value in only.items():
        if table.get(key) == value:
            table.pop(key)
