-- One row per model, system, split, protocol, slice and metric: every figure of every evaluation.
create view model_metrics as
with reports as (
    select
        model_id,
        'model' as system,
        cast(metrics as json) as report
    from models

    union all

    select
        model_id,
        system,
        json_extract(baselines, '$."' || system || '"') as report
    from (select model_id, baselines, unnest(json_keys(baselines)) as system from models) as named
),

evaluations as (
    select
        model_id,
        system,
        split,
        json_extract(report, '$.' || split) as evaluation
    from reports
    cross join (values ('validation'), ('test')) as splits (split)
),

slices as (
    select
        model_id,
        system,
        split,
        'all' as slice,
        evaluation as figures,
        json_extract(evaluation, '$.intervals') as intervals
    from evaluations

    union all

    select
        model_id,
        system,
        split,
        json_extract_string(part, '$.name') as slice,
        part as figures,
        null as intervals
    from (
        select *, unnest(cast(json_extract(evaluation, '$.slices') as json[])) as part
        from evaluations
    ) as cut
),

named_metrics as (
    select
        *,
        unnest(json_keys(figures, '$.' || protocol)) as metric
    from slices
    cross join (values ('masked'), ('unmasked'), ('lists')) as protocols (protocol)
    where json_extract(figures, '$.' || protocol) is not null
)

select
    model_id,
    system,
    split,
    protocol,
    slice,
    metric,
    cast(json_extract(figures, '$.' || protocol || '."' || metric || '"') as double) as result,
    cast(json_extract(intervals, '$.' || protocol || '."' || metric || '"[0]') as double) as low,
    cast(json_extract(intervals, '$.' || protocol || '."' || metric || '"[1]') as double) as high,
    cast(json_extract(figures, '$.users') as bigint) as users
from named_metrics;
