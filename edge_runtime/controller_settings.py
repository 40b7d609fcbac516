"""The constants of the controller; docs/controller.md says which experiment set each one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ControllerSettings:
    """Constants of the controller. Variances are relative: of the slowdown divided by its mean."""

    # What a late frame costs, and how a point is judged
    miss_weight: float = 1.2
    """A frame that the fastest point would have answered in time costs so many times its accuracy when it is late."""
    margin_share: float = 0.02
    """Share of the deadline kept free for what neither the table nor the filter knows."""
    switch_cost_ms: float = 0.1
    """What the first frame at another point takes longer: benchmarks/results/switch_latency.json."""
    hopeless_below: float = 0.5
    """When even the fastest point is on time less often than this, the deadline is out of reach."""

    # When to move
    step_up_share: float = 0.01
    """To step up, the better point's value must be higher by this share."""
    step_up_dwell_s: float = 0.06
    """No step up sooner after any step; two steps up are never closer."""
    keep_share: float = 0.08
    """A cheaper point's value must be higher by this share; it stops wavering between two equals."""

    # The slowdown's filter
    first_variance: float = 0.01
    """Of the mean, before the first frame."""
    first_noise: float = 0.0025
    """Of one frame, before the first frame."""
    min_noise: float = 0.0004
    max_noise: float = 0.25
    noise_rate: float = 0.03
    """Weight of one frame in the estimate of the noise."""
    min_drift: float = 0.0002
    """The slowdown is never believed to stand still."""
    max_drift: float = 0.25
    drift_memory: float = 0.8
    """Weight of the past in the estimate of the drift."""
    jump_sigmas: float = 4.0
    jump_share: float = 0.4
    """A frame is set aside when it is slower than expected by both: so many standard deviations, and this share."""
    jump_variance: float = 0.03
    """Of the mean, relative, after a change that was believed at once: two extreme frames exaggerate it."""
    remembered_frames: int = 128
    """Surprises that the distribution of late frames is made of."""
    prior_frames: float = 16.0
    """Weight of Student's t beside them, in frames."""
    state_step: float = 1.5
    """States of the machine, each of which remembers its own noise and surprises: the first up to this slowdown, the
    next up to its square, and so on."""
    states: int = 4
    """The last one has no upper end."""
    calm_frames: int = 16
    """A calmer state that has seen so many frames is known."""
    calm_sigmas: float = 2.0
    """A frame as fast as a known calmer state's, up to so many standard deviations, may mean that the load is gone."""
    level_rate: float = 0.1
    """Weight of one frame in a state's mean slowdown."""
    persistence_memory: float = 16.0
    """Number of set-aside frames that the learned share of those that stay is made of, at most."""
    min_slowdown: float = 1e-3
    max_slowdown: float = 1e3
    """Ratios outside say no more than these do; their squares would leave the filter's range."""

    # The query table
    first_table_variance: float = 0.0025
    """Of each tabled latency: 5 % standard deviation."""
    min_table_variance: float = 1e-5
    max_correction: float = 2.0
    """A tabled latency is corrected by at most this factor, either way."""

    # The slow loop
    foreign_gain: float = 0.5
    """First guess: how much the slowdown rises when foreign load takes one more share of all cores; learned."""
    foreign_gain_rate: float = 0.2
    max_foreign_gain: float = 4.0
    load_cap_s: float = 0.1
    """A load band caps for so long after it was entered; then the fast loop has measured the load."""
    trend_horizon_s: float = 5.0
    """A thermal band is entered so long before the temperature's trend would reach it."""
    trend_rate: float = 0.1
    """Weight of one reading in the trend."""
    max_trend_c_per_s: float = 2.0
    throttled_cap_share: float = 0.5
    """Cap while the device says that it is throttled, where the profile has no thermal bands."""
    memory_share: float = 0.8
    """Share of the memory limit of the process or its cgroup that one point may take."""
    power_step_up: float = 1.05
    power_relax_below: float = 0.9
    """The power cap is raised by the step while the power is below this share of its limit."""
    min_power_cap_share: float = 0.02
