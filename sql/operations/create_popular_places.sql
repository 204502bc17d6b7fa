-- One row per item that was popular on one of the judged run_dates: its best place.
-- reads: stored_places, windows
-- makes: table popular_places (item_id, place)
create or replace temp table popular_places as
select
    item_id,
    min(place) as place
from stored_places
semi join windows using (run_date)
group by item_id
