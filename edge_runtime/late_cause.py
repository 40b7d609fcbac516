"""Why an answer was late: the part of its latency that took the most."""

from __future__ import annotations

LATE_CAUSES = ("source", "decode", "sink", "compute", "throttled")


def late_cause(age_ms: float, decode_ms: float, sink_ms: float, compute_ms: float, *, throttled: bool) -> str:
    """One of LATE_CAUSES, for an answer that missed its deadline.

    Args:
        age_ms: from capture to the start of processing; 0 for a source that does not wait.
        decode_ms: part of the age that decoding took.
        sink_ms: how long whoever takes the answers held up the loop before this frame; at most what is left of the age
            counts.
        compute_ms: from the start of processing to the answer.
        throttled: the device limits its speed because of heat or supply voltage.
    """
    age_ms = age_ms if age_ms > 0.0 else 0.0
    decoding = min(max(decode_ms, 0.0), age_ms)
    sinking = min(max(sink_ms, 0.0), age_ms - decoding)
    waiting = age_ms - decoding - sinking
    longest = max(waiting, decoding, sinking, compute_ms)
    if compute_ms >= longest:
        return "throttled" if throttled else "compute"
    if decoding >= longest:
        return "decode"
    return "sink" if sinking >= longest else "source"
