"""Choose an operating point for each frame: the one with the highest expected accuracy of answers on time.

Pure arithmetic: numbers and `now_s` in, a decision out; no clock, no I/O. The estimate is after ALERT (Wan et al. 2020,
arXiv:1911.00119): one slowdown, the ratio of observed to tabled latency, tracked by a Kalman filter. Differs: heavy
tails, late frames that are explained before they are believed, a table that is corrected point by point, steps up
that wait, and a slow loop of bands over it. docs/controller.md has the equations and the order of operations.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from edge_runtime.budget import Budget
from edge_runtime.controller_bands import DeviceLimits
from edge_runtime.controller_crowding import Crowding
from edge_runtime.controller_damping import Damping
from edge_runtime.controller_filter import SlowdownFilter
from edge_runtime.controller_foresight import LoadForesight
from edge_runtime.controller_ladder import LadderPoint
from edge_runtime.controller_limits import SlowLoop
from edge_runtime.controller_selection import Selection, select
from edge_runtime.controller_settings import ControllerSettings
from edge_runtime.controller_table import QueryTable
from edge_runtime.controller_wish import ROOM_SHARE, Wish
from edge_runtime.readings import Readings
from edge_runtime.result import Decision

__all__ = ["Controller", "ControllerSettings", "DeviceLimits", "LadderPoint", "SlowdownFilter"]

BEST = "best within the deadline"
NOT_RESIDENT = "not in memory"
LONGEST_MS = 1e9
"""Times beyond are cut to it; no deadline is longer."""
PERIOD_MEMORY, PERIOD_TOLERANCE = 0.9, 0.1
"""Of the mean time between frames, by which energy becomes power."""


class Controller:
    """Holds the estimate, the current point and the timers.

    Args:
        ladder: the query table, in any order; a dominated point is simply never the best one.
        settings: constants; None takes the defaults.
        limits: the device's bands; None takes the default ones.
    """

    name = "ours"

    def __init__(
        self,
        ladder: Sequence[LadderPoint],
        settings: ControllerSettings | None = None,
        limits: DeviceLimits | None = None,
    ) -> None:
        self.settings = settings or ControllerSettings()
        self.limits = limits or DeviceLimits()
        self.crowding = Crowding(self.settings)
        self.filter = self.crowding.filter
        self.table = QueryTable(ladder, self.settings)
        self.slow = SlowLoop(self.limits, self.settings)
        self.pinned: str | None = None
        """Name of the point that is forced, or None."""
        self.switches = 0
        self._foresight = LoadForesight(self.settings)
        self._damping = Damping(self.settings.step_up_dwell_s)
        self._current: int | None = None
        self._before_alarm: int | None = None
        self._late_index: int | None = None
        self._wish = Wish()
        self._time_ms = 0.0
        self._late: dict[tuple[int, float], float] = {}
        """P(late) of (point, time left), as long as one decision takes: several steps ask for the same."""
        self._readings: Readings | None = None
        self._budget: Budget | None = None
        self._resident: Collection[str] | None = None
        self._selection: Selection | None = None
        self._last_s: float | None = None
        self._period_s = self._selected_period_s = 0.0

    @property
    def ladder(self) -> tuple[LadderPoint, ...]:
        """The query table as it was given, fastest point first; `table` has the corrected latencies."""
        return self.table.points

    @property
    def current(self) -> int | None:
        """Index of the point of the last decision."""
        return self._current

    def take_crowding(self, crowding: float | None) -> None:
        """Take in how many tasks want a core, for each core, as the next frame begins; None is unknown."""
        before = self.filter
        self.filter = self.crowding.take(crowding)
        if self.filter is not before:
            self._late_index = self._before_alarm = None

    def choose(
        self, now_s: float, budget: Budget, readings: Readings, resident: Collection[str], age_ms: float = 0.0
    ) -> Decision:
        """Decide for one frame.

        Args:
            now_s: any monotonic clock, seconds.
            budget: what the application wants.
            readings: of the sensors; unknown values hold the point and never step up.
            resident: names of the points that can run at once; never empty.
            age_ms: how much of the deadline is spent already: the frame's age and what a frame costs beside the engine.
        Raises:
            ValueError: no resident point is in the ladder.
        """
        self._damping.begin(now_s)
        longer = self._budget is not None and budget.deadline_ms > self._budget.deadline_ms
        selection = self._select(now_s, budget, readings, resident)
        time_ms = self._time_ms = self._time_left_ms(budget, age_ms)
        self._late.clear()
        if self.pinned is not None and self.pinned in resident:
            return self._decide(self.table.index[self.pinned], "pinned", budget, time_ms, selection)
        index, reason = self._wanted(selection, budget, time_ms)
        current, cost_ms = self._current, self.table.cost_ms
        if current is None or current not in selection.order:
            self._before_alarm = None
        elif index != current and cost_ms[index] < cost_ms[current]:
            index, reason = self._down(index, current, reason, now_s, time_ms)
        elif index != current:
            index, reason = self._up(index, current, reason, now_s, time_ms, longer=longer)
        return self._decide(index, reason, budget, time_ms, selection)

    def observe(self, point: str, run_ms: float) -> None:
        """Learn from a finished frame: what the engine took for the point, in milliseconds."""
        if not run_ms > 0.0:
            return
        index, table = self.table.index[point], self.table
        cost_ms, variance = table.cost_ms[index], table.variance[index]
        alarm, late_index = self.filter.alarm, self._late_index
        self.crowding.judge(run_ms / cost_ms)
        innovation = self.filter.observe(run_ms / cost_ms, cost_ms, variance)
        self._late_index = index if self.filter.alarm is not None else None
        if innovation is None:
            return
        table.learn(index, innovation, self.filter.total)
        if alarm is not None and late_index is not None and late_index != index:
            surprise = alarm / self.filter.mean - 1.0  # late at one point, as expected at another: the table, perhaps
            if surprise > 0.0:
                table.learn(late_index, min(surprise, self.settings.jump_share), self.filter.total)

    def wish(self, holdable: Collection[str]) -> str | None:
        """The point that would be used if all of these were resident, so that it can be fetched.

        Args:
            holdable: names of the points that can become resident; not empty.
        Returns:
            its name; it changes only when half a second of frames agree. None before the first frame.
        """
        if self._budget is None or self._selection is None:
            return None
        if self.filter.alarm is not None:
            return self._wish.name
        key = (self._selection, holdable)
        selection = self._wish.cached(key)
        if selection is None:
            selection = select(self.table, self.slow, self._budget, holdable, self._period_s)
            self._wish.keep(key, selection)
        self._late.clear()
        index, _ = self._wanted(selection, self._budget, self._time_ms * ROOM_SHARE)
        return self._wish.take(self.table.points[index].name)

    def replace_ladder(self, ladder: Sequence[LadderPoint]) -> None:
        """Take a new query table of the same points, for example when the device has measured them.

        What is expected of the current point stays; corrections begin anew.
        """
        current, old = self._current, self.table
        self.table = QueryTable(ladder, self.settings)
        self._selection = self._before_alarm = self._late_index = None
        if current is None:
            return
        name = old.points[current].name
        self._current = self.table.index.get(name)
        if self._current is not None and self.filter.frames:
            self.crowding.rescale(old.cost_ms[current] / self.table.cost_ms[self._current])

    def _select(self, now_s: float, budget: Budget, readings: Readings, resident: Collection[str]) -> Selection:
        """The usable points; worked out anew only when something that decides about them has changed."""
        selection, slow = self._selection, self.slow
        if readings is not self._readings and readings != self._readings:
            before = slow.cap_share, slow.reason, slow.memory_limit_bytes
            slow.take_readings(now_s, readings, budget)
            if not self.crowding.known:
                self._foresight.take_load(slow.foreign_load, self.filter)
            if before != (slow.cap_share, slow.reason, slow.memory_limit_bytes):
                selection = None
        self._readings = readings
        expired = slow.expire(now_s)
        if budget is not self._budget and budget != self._budget:
            slow.take_budget(readings, budget)
            selection = None
        elif expired:
            selection = None
        self._budget = budget
        self._take_period(now_s)
        if budget.max_power_w is not None:
            change = self._period_s - self._selected_period_s
            if abs(change) > PERIOD_TOLERANCE * self._selected_period_s:
                selection = None
        if selection is None or resident is not self._resident or not isinstance(resident, frozenset):
            self._resident, self._selected_period_s = resident, self._period_s
            selection = self._selection = select(self.table, slow, budget, resident, self._period_s)
        return selection

    def _take_period(self, now_s: float) -> None:
        last_s, self._last_s = self._last_s, now_s
        if last_s is None or not 0.0 < now_s - last_s < 60.0:
            return
        if self._period_s > 0.0:
            self._period_s = PERIOD_MEMORY * self._period_s + (1.0 - PERIOD_MEMORY) * (now_s - last_s)
        else:
            self._period_s = now_s - last_s

    def _time_left_ms(self, budget: Budget, age_ms: float) -> float:
        kept = 1.0 - self.settings.margin_share
        time_ms = budget.deadline_ms * kept - age_ms
        if budget.target_fps is not None:
            time_ms = min(time_ms, 1000.0 / budget.target_fps * kept)
        return min(max(time_ms, -LONGEST_MS), LONGEST_MS)

    def _wanted(self, selection: Selection, budget: Budget, time_ms: float) -> tuple[int, str]:
        """The point for this frame if moving cost nothing, and why."""
        if self.slow.battery_low:
            index = self._cheapest_in_time(selection, time_ms)
            if index is not None:
                return index, "battery low"
        index, hopeless = self._best(selection.order, time_ms)
        if not selection.within_limits:
            return index, f"{selection.reason} out of reach"
        if not selection.floor_reached and budget.min_accuracy > 0.0:
            return index, "nothing meets the budget" if hopeless else "accuracy floor out of reach"
        if hopeless:
            return index, "deadline out of reach" if selection.all_accurate else "accuracy floor before deadline"
        return index, BEST

    def _cheapest_in_time(self, selection: Selection, time_ms: float) -> int | None:
        table, found = self.table, None
        for i in selection.order:
            if found is None or table.cost_ms[i] < table.cost_ms[found]:
                found = i
        if found is None or not selection.floor_reached or table.cost_ms[found] * self.filter.mean > time_ms:
            return None
        return found

    def _best(self, order: Sequence[int], time_ms: float) -> tuple[int, bool]:
        """The highest value, and whether the deadline is out of reach even for the fastest, which is then returned.

        The value of a point is its accuracy x (1 - miss_weight x (1 - P(on time) / P(the fastest is on time))): only
        what a faster point could have saved counts as a miss.
        """
        cost_ms, accuracy = self.table.cost_ms, self.table.accuracy
        late, current, settings = self._late_probability, self._current, self.settings
        elsewhere_ms = time_ms - settings.switch_cost_ms
        fastest = min(order, key=cost_ms.__getitem__)
        surest = 1.0 - late(fastest, time_ms if fastest == current else elsewhere_ms)
        if surest < settings.hopeless_below:
            return fastest, True
        best, best_value, cheapest_ms = fastest, -1.0, time_ms / self.filter.mean
        for i in order:  # most accurate first
            if accuracy[i] <= best_value:
                break
            if cost_ms[i] >= cheapest_ms and i != fastest:
                continue  # its expected latency does not fit, or a more accurate point is as fast
            cheapest_ms = cost_ms[i]
            on_time = 1.0 - late(i, time_ms if i == current else elsewhere_ms)
            value = accuracy[i] * (1.0 - settings.miss_weight * (1.0 - on_time / surest))
            if value > best_value:
                best, best_value = i, value
        return best, False

    def _late_probability(self, index: int, time_ms: float) -> float:
        """P(a point is late) if it has this time."""
        key, known = (index, time_ms), self._late
        if key not in known:
            known[key] = self.filter.late_probability(self.table.cost_ms[index], time_ms, self.table.variance[index])
        return known[key]

    def _down(self, index: int, current: int, reason: str, now_s: float, time_ms: float) -> tuple[int, str]:
        """Take the cheaper point at once, unless it is hardly better."""
        alarmed = self.filter.alarm is not None
        if reason == BEST:
            dominated = self.table.accuracy[index] >= self.table.accuracy[current]
            if not dominated and not self._worth_it(index, current, time_ms, self.settings.keep_share):
                return current, "hold: gain is small"
            if alarmed:
                self._before_alarm = current
                return index, "step down: a late frame may stay"
        self._before_alarm = None
        self._damping.stepped_down(now_s)
        return index, f"step down: {reason}"

    def _worth_it(self, index: int, current: int, time_ms: float, share: float) -> bool:
        """Another point's value exceeds the current one's by a share."""
        table, weight = self.table, self.settings.miss_weight
        on_time = 1.0 - self._late_probability(index, time_ms - self.settings.switch_cost_ms)
        held = 1.0 - self._late_probability(current, time_ms)
        surest = on_time if on_time > held else held
        if surest <= 0.0:
            return True
        value = table.accuracy[index] * (1.0 - weight * (1.0 - on_time / surest))
        held_value = table.accuracy[current] * (1.0 - weight * (1.0 - held / surest))
        return value > held_value * (1.0 + share) or held_value <= 0.0

    def _up(
        self, index: int, current: int, reason: str, now_s: float, time_ms: float, *, longer: bool
    ) -> tuple[int, str]:
        """Take a costlier point when its time has come, and only if it is better enough."""
        if reason != BEST:  # the accuracy floor was raised, or another point has become the fastest
            self._damping.stepped_up(now_s)
            return index, f"step up: {reason}"
        before, self._before_alarm = self._before_alarm, None
        accident = before is not None and self.filter.alarm is None
        if not self._worth_it(index, current, time_ms, self.settings.step_up_share):
            return current, "hold: gain is small"
        if not self._damping.may_step_up(now_s, at_once=longer or accident or self.crowding.eased):
            return current, "hold: dwell"
        self._damping.stepped_up(now_s)
        if accident:
            return index, "step up: the late frame was an accident"
        return index, "step up: longer deadline" if longer else "step up: time to spare"

    def _decide(self, index: int, reason: str, budget: Budget, time_ms: float, selection: Selection) -> Decision:
        table, slowdown = self.table, self.filter.mean
        current = self._current
        switched = current is not None and index != current
        self.switches += switched
        self._current = index
        cost_ms = table.cost_ms[index]
        allowed_ms = time_ms - self.settings.switch_cost_ms if switched else time_ms
        on_time = 1.0 - self._late_probability(index, allowed_ms)
        accurate = table.accuracy[index] >= budget.min_accuracy
        feasible = accurate and on_time >= self.settings.hopeless_below and selection.within_limits
        limited_by = self._limited_by(index, reason, time_ms, selection)
        if reason.endswith(BEST) and limited_by not in ("", "deadline", NOT_RESIDENT):
            reason = reason.replace(BEST, limited_by)
        return Decision(
            table.points[index].name, reason, cost_ms * slowdown, slowdown, switched, feasible, limited_by, on_time
        )

    def _limited_by(self, index: int, reason: str, time_ms: float, selection: Selection) -> str:
        """What kept a more accurate point from being used."""
        if reason == "pinned" or self.slow.battery_low:
            return "pinned" if reason == "pinned" else "battery low"
        table = self.table
        accuracy, slowdown = table.accuracy[index], self.filter.mean
        for i in selection.excluded:
            if table.accuracy[i] > accuracy and table.cost_ms[i] * slowdown <= time_ms:
                return selection.reason
        if table.accuracy[selection.order[0]] > accuracy:
            return "deadline"
        for i in selection.absent:
            if table.accuracy[i] > accuracy and table.cost_ms[i] * slowdown <= time_ms:
                return NOT_RESIDENT
        return ""
