"""How long page-ins take, kept cheaply: counts in buckets whose width is an eighth of their place, never single values."""

_SUB_BITS = 3
_BUCKETS = 64 << _SUB_BITS


class Latencies:
    """A histogram of nanoseconds; quantiles are right within 12.5 %."""

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self.count = 0

    def record(self, ns: int) -> None:
        """Count one."""
        shift = max(ns.bit_length() - _SUB_BITS - 1, 0)
        self._counts[min((shift << _SUB_BITS) + (ns >> shift), _BUCKETS - 1)] += 1
        self.count += 1

    def quantile_us(self, share: float) -> float:
        """The time in microseconds that this share (0 to 1) stays below; 0.0 if nothing was recorded."""
        left = share * self.count
        for bucket, count in enumerate(self._counts):
            left -= count
            if count and left <= 0:
                return _upper_ns(bucket) / 1000
        return 0.0


def _upper_ns(bucket: int) -> int:
    if bucket < 2 << _SUB_BITS:
        return bucket
    shift = (bucket >> _SUB_BITS) - 1
    return ((bucket & ((1 << _SUB_BITS) - 1)) + (1 << _SUB_BITS) + 1 << shift) - 1
