-- One row, or none: the model $model_id, with its recipe and its training as JSON.
-- reads: models, $model_id
-- makes: rows (model_id, preset, why, trained_at, config)
select
    model_id,
    preset,
    why,
    trained_at,
    config
from models
where model_id = $model_id
