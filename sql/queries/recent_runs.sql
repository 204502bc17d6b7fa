-- One row per flow run of the last 30 days, newest first, and what became of it.
select
    started,
    flow,
    status,
    seconds,
    (outcome ->> '$.ingest.accepted')::bigint as interactions_accepted,
    outcome ->> '$.train.model_id' as model_trained,
    (outcome ->> '$.recommend.users')::bigint as users_served,
    error,
    run_id
from runs
where started >= now() - interval 30 days
order by started desc
