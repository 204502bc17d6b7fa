-- One row per judged item of a run_date that popularity would have listed: its rank in that list.
-- That is its place without the popular items before it that the user had had, as was known then.
-- reads: crossed_out, judged_items, stored_places, $data_until, $edition, $excludes_seen, $judged,
--     $known_by, $run_date
-- makes: table popular_ranks (user_id, item_id, rank)
create or replace temp table popular_ranks as
with candidates as (
    select
        user_id,
        item_id,
        place
    from judged_items
    where run_date = $run_date and place is not null
),

had as (
    select
        crossed_out.user_id,
        stored_places.place
    from crossed_out
    inner join stored_places using (item_id)
    where
        stored_places.run_date = $run_date
        and stored_places.edition = $edition
        and $excludes_seen
        and first_at < $data_until
        and known_at < $known_by
)

select
    candidates.user_id,
    candidates.item_id,
    candidates.place - count(had.place) as rank
from candidates
left join had on candidates.user_id = had.user_id and candidates.place > had.place
group by candidates.user_id, candidates.item_id, candidates.place
having candidates.place - count(had.place) <= $judged
