"""Device profiles: find them by name or path, list them, and tell which one fits a machine.

    profile = load_profile("raspberry-pi-5")
    profile, reason = match_profile(read_machine_facts())

The shipped profiles are TOML files: `profiles/` of the checkout, `edge_runtime/profiles/` in the wheel.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from edge_runtime.errors import ProfileError
from edge_runtime.machine_facts import MachineFacts, read_machine_facts
from edge_runtime.profile_file import parse_profile
from edge_runtime.profile_schema import DeviceProfile, FallingBand, HardwareFact, MatchRule, RisingBand

__all__ = [
    "DeviceProfile",
    "FallingBand",
    "HardwareFact",
    "MachineFacts",
    "MatchRule",
    "RisingBand",
    "list_profiles",
    "load_profile",
    "match_profile",
    "read_machine_facts",
]

CHECKOUT_FOLDER = Path(__file__).resolve().parent.parent / "profiles"
WHEEL_FOLDER = Path(__file__).resolve().parent / "profiles"
MAX_FILE_BYTES = 1 << 20


def load_profile(name_or_path: str | Path) -> DeviceProfile:
    """One profile.

    Args:
        name_or_path: a shipped profile's name, such as "raspberry-pi-5", or a path that ends in .toml.
    Raises:
        ProfileError: there is no such profile, it cannot be read, or it is not valid.
    """
    if isinstance(name_or_path, Path) or name_or_path.endswith(".toml"):
        return _read_path(Path(name_or_path))
    shipped = _shipped()
    file = shipped.get(name_or_path)
    if file is None:
        near = difflib.get_close_matches(name_or_path, shipped, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(shipped)}"
        raise ProfileError(f"no device profile is named {name_or_path!r}; {advice} (a path must end in .toml)")
    return _read_shipped(name_or_path, file)


def list_profiles() -> list[DeviceProfile]:
    """All shipped profiles, by name."""
    return [_read_shipped(name, file) for name, file in _shipped().items()]


def match_profile(facts: MachineFacts, profiles: list[DeviceProfile] | None = None) -> tuple[DeviceProfile, str]:
    """The profile that fits a machine best, and why.

    Args:
        profiles: to choose from; None takes the shipped ones.
    Returns:
        the profile and a sentence; a machine that fits none gets the fallback, and the sentence says so.
    Raises:
        ProfileError: none fits and there is no fallback.
    """
    profiles = list_profiles() if profiles is None else profiles
    fitting = [(profile, reasons) for profile in profiles if (reasons := _reasons(profile.match, facts)) is not None]
    if fitting:
        profile, reasons = max(fitting, key=lambda pair: pair[0].match.priority)
        return profile, ", ".join(reasons) or "it asks nothing special of the machine"
    fallback = next((profile for profile in profiles if profile.match.fallback), None)
    if fallback is None:
        raise ProfileError(f"no device profile fits {facts.system} on {facts.architecture}; give one with --profile")
    return fallback, f"no profile is made for {facts.system} on {facts.architecture}, and this one is the most cautious"


def _reasons(rule: MatchRule, facts: MachineFacts) -> list[str] | None:
    """Why a machine fits a rule, most telling first; None if it does not fit."""
    model = next((part for part in rule.models if part.lower() in facts.model.lower()), None)
    features = [feature for feature in rule.cpu_features if feature in facts.cpu_features]
    if (
        (rule.models and model is None)
        or (rule.systems and facts.system not in rule.systems)
        or (rule.architectures and facts.architecture not in rule.architectures)
        or (rule.cpu_features and not features)
        or (rule.battery is not None and bool(facts.has_battery) is not rule.battery)
    ):
        return None
    reasons = [f'it calls itself "{facts.model}"'] if model else []
    reasons += [f"the processor has {', '.join(features)}"] if features else []
    reasons += [f"it has {'a' if rule.battery else 'no'} battery"] if rule.battery is not None else []
    reasons += [f"it runs {facts.system}"] if rule.systems and not model else []
    reasons += [f"the architecture is {facts.architecture}"] if rule.architectures and not model else []
    return reasons


def _shipped() -> dict[str, Path]:
    """Name -> file, sorted."""
    for folder in (WHEEL_FOLDER, CHECKOUT_FOLDER):
        if (folder / "__init__.py").is_file():  # another project's folder may be named profiles, too
            return {path.stem: path for path in sorted(folder.glob("*.toml"))}
    raise ProfileError(f"{WHEEL_FOLDER}: the shipped device profiles are missing; reinstall edge-runtime")


def _read_shipped(name: str, file: Path) -> DeviceProfile:
    where = f"profile {name}"
    try:
        profile = parse_profile(file.read_text(encoding="utf-8"), where)
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"{where}: cannot be read: {error}; reinstall edge-runtime") from error
    if profile.name != name:
        raise ProfileError(f"{where}: the file says its name is {profile.name!r}; file name and name must be equal")
    return profile


def _read_path(path: Path) -> DeviceProfile:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise ProfileError(f"{path}: is larger than 1 MiB; a device profile has a few KB")
        text = data.decode("utf-8")
    except OSError as error:
        raise ProfileError(
            f"{path}: cannot be read: {error.strerror or error}; give a profile's name or file"
        ) from error
    except UnicodeDecodeError as error:
        raise ProfileError(f"{path}: is not UTF-8 text; a device profile is a TOML file") from error
    return parse_profile(text, str(path))
