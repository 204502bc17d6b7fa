-- One row per delta and number of reverse steps of $model_id: the history alone first, then its
-- own delta.
-- reads: diffusion_metrics, $model_id
-- makes: rows (delta, steps, is_served, ndcg, gain, gain_error, users)
select
    delta,
    steps,
    is_served,
    ndcg,
    gain,
    gain_error,
    users
from diffusion_metrics
where model_id = $model_id
order by
    steps > 0,
    bool_or(is_served) over (partition by delta) desc,
    delta,
    steps
