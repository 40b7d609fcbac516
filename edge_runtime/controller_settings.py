"""The constants of the controller; docs/controller.md says which experiment set each one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ControllerSettings:
    """Constants of the controller; docs/controller.md says what each one does."""

    quantile_sigmas: float = 2.33
    """A point is admissible when mean + this many standard deviations fits: 99 % of frames of a normal slowdown."""
    margin_share: float = 0.05
    """Share of the deadline kept free for what the table does not know."""
    step_up_share: float = 0.85
    """To step up, the better point must fit in this share of the time left."""
    step_up_dwell_s: float = 0.5
    """And must have done so for this long without interruption."""
    measurement_noise: float = 0.01
    """Variance of one observed slowdown, relative to its square: 10 % standard deviation."""
    min_process_noise: float = 0.0005
    """The slowdown is never believed to stand still; relative to its square."""
    noise_memory: float = 0.9
    """Weight of the past in the estimate of the process noise."""
    jump_sigmas: float = 4.0
    """A slower frame beyond this is set aside; a second one in a row is a change of the machine and is believed."""
    min_slowdown: float = 1e-3
    max_slowdown: float = 1e3
    """Ratios outside say no more than these do; their squares would leave the filter's range."""
    max_temperature_c: float = 85.0
    """At and above it, step towards cheaper points."""
    cool_temperature_c: float = 78.0
    """Below it, points may be stepped up again."""
