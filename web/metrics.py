"""Prometheus metrics, served at /metrics: numbers only, never images."""

from collections.abc import Sequence

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from handful import Prediction
from web.log import LOG

ACTIVE_S = 2  # a stream without a frame for longer has ended: its visitor may have left
REGISTRY = CollectorRegistry()  # not the global one, which refuses a second registration when a module is reloaded
PREDICTION_SECONDS = Histogram(
    "handful_reading_seconds",
    "Duration of predictions, in seconds.",
    ["where"],  # api, live, pictures, videos, teach; browser: run on visitors' devices
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5),
    registry=REGISTRY,
)
HANDS = Counter("handful_hands", "Detected hands, by raised fingers.", ["fingers"], registry=REGISTRY)
STREAMS = Gauge(
    "handful_streams", "Cameras whose frames the server predicts now; set by web/live.py.", registry=REGISTRY
)
REFUSED = Counter("handful_refused", "Refused inputs, by reason.", ["where", "kind"], registry=REGISTRY)
REFUSAL_KINDS = {413: "too large", 415: "unknown format", 422: "unreadable", 503: "busy"}  # by status; else: request


def record_prediction(prediction: Prediction, where: str) -> None:
    """Count a prediction, its duration and its hands."""
    record(prediction.milliseconds, [hand.fingers for hand in prediction.hands], where)


def record(milliseconds: float, fingers: Sequence[int], where: str) -> None:
    """Count a prediction: its duration, and the raised fingers of each hand."""
    PREDICTION_SECONDS.labels(where).observe(milliseconds / 1000)
    for count in fingers:
        HANDS.labels(count).inc()


def record_refusal(where: str, status: int) -> None:
    """Count and log a refused input; `status` is its HTTP status, as of `BadImage`."""
    kind = REFUSAL_KINDS.get(status, "request")
    REFUSED.labels(where, kind).inc()
    LOG.info("refused", extra={"where": where, "kind": kind})


def metrics_endpoint(request: Request) -> Response:
    """Serve the metrics in Prometheus's text format."""
    return Response(generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})
