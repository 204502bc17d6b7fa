-- One row per example in a refusal's report: the oldest and the newest accepted rows.
-- reads: accepted_rows
-- makes: rows (source_row, user_id, item_id, timestamp)
(
    select
        source_row,
        user_id,
        item_id,
        "timestamp"
    from accepted_rows
    order by "timestamp", source_row
    limit 3
)

union all

(
    select
        source_row,
        user_id,
        item_id,
        "timestamp"
    from accepted_rows
    order by "timestamp" desc, source_row desc
    limit 2
)
order by "timestamp", source_row
