-- One row at most: how many items have no id, how many ids come twice, and one such id.
-- reads: new_items
-- makes: rows (without_id, repeated_ids, example)
with repeated as (
    select item_id
    from new_items
    where item_id is not null
    group by item_id
    having count(*) > 1
)

select
    (select count(*) from new_items where item_id is null) as without_id,
    (select count(*) from repeated) as repeated_ids,
    (select cast(min(item_id) as varchar) from repeated) as example
where without_id > 0 or repeated_ids > 0
