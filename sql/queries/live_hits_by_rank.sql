-- One row per rank: share of active users of all judged lists who took the item in it on the first
-- day, and the same for popularity's lists.
select
    cast(value as integer) as rank,
    sum(hits) filter (where lists = 'served')
    / sum(users) filter (where lists = 'served') as served,
    sum(hits) filter (where lists = 'popularity')
    / sum(users) filter (where lists = 'popularity') as popularity
from live_metrics
where slice = 'rank' and days = 1
group by value
order by rank
