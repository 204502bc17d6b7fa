-- One row per interaction that the batches of $batches brought and that the source may change:
-- of all times, of the staged span, or of the staged users.
-- reads: interactions, staged_rows, $batches, $newest, $oldest, $scope
-- makes: table rows_in_scope (user_id, item_id, timestamp, event, value, batch_id, of_moment)
create or replace temp table rows_in_scope as
select
    user_id,
    item_id,
    "timestamp",
    event,
    "value",
    batch_id,
    count(*) over (partition by user_id, item_id, "timestamp") as of_moment
from interactions
where
    list_contains($batches::varchar[], batch_id)
    and ($scope <> 'span' or "timestamp" between $oldest and $newest)
    and ($scope <> 'users' or user_id in (select user_id from staged_rows))
