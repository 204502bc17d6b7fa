-- One row per model, delta and number of reverse steps: what the diffusion of a model brings.
create view diffusion_metrics as
with measured as (
    select
        model_id,
        json_extract(config, '$.diffusion') as diffusion,
        unnest(cast(json_extract(config, '$.diffusion.qualities') as json[])) as quality
    from models
),

figures as (
    select
        model_id,
        cast(json_extract(quality, '$.delta') as double) as delta,
        cast(json_extract(quality, '$.steps') as bigint) as steps,
        cast(json_extract(quality, '$.ndcg') as double) as ndcg,
        cast(json_extract(quality, '$.error') as double) as error,
        cast(json_extract(quality, '$.gain') as double) as gain,
        cast(json_extract(quality, '$.gain_error') as double) as gain_error,
        cast(json_extract(diffusion, '$.users') as bigint) as users,
        cast(json_extract(diffusion, '$.delta') as double) as own_delta,
        cast(json_extract(diffusion, '$.steps') as bigint) as own_steps
    from measured
)

select
    model_id,
    delta,
    steps,
    steps > 0 and delta = own_delta and steps = own_steps as is_served,
    ndcg,
    error,
    gain,
    gain_error,
    users
from figures;
