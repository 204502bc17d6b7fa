"""The names of tables and columns, once."""

from typing import Final

USER_ID: Final = "user_id"
ITEM_ID: Final = "item_id"
TIMESTAMP: Final = "timestamp"
EVENT: Final = "event"
VALUE: Final = "value"

REQUIRED: Final = (USER_ID, ITEM_ID, TIMESTAMP)
OPTIONAL: Final = (EVENT, VALUE)
OF_ITEMS: Final = (ITEM_ID, "title", "category", "eligible")

INTERACTIONS: Final = "interactions"
QUARANTINE: Final = "quarantine"
BATCHES: Final = "batches"
ITEMS: Final = "items"
EDITIONS: Final = "editions"
RECOMMENDATIONS: Final = "recommendations"
MODELS: Final = "models"
PROMOTIONS: Final = "promotions"
RUNS: Final = "runs"
QUALITY_RESULTS: Final = "quality_results"
LIST_DAYS: Final = "list_days"
ERASURES: Final = "erasures"
POPULAR_ITEMS: Final = "popular_items"
EXPLANATIONS: Final = "explanations"
LIVE_METRICS: Final = "live_metrics"
REPLAYS: Final = "replays"
DRIFT: Final = "drift"
