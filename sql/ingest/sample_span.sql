-- One row per example in a refusal's report: the oldest and the newest accepted rows.
(
    select
        source_row,
        user_id,
        item_id,
        "timestamp"
    from accepted
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
    from accepted
    order by "timestamp" desc, source_row desc
    limit 2
)
order by "timestamp", source_row
