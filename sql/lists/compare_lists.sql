-- One row per figure of each of two sets of lists: what they show, and how unevenly. An item that
-- nobody has taken counts as taken once.
-- reads: compared, interactions, $eligible_a, $eligible_b
-- makes: rows (section, name, a, b, shared)
with popularity as (
    select
        item_id,
        count(*) as taken
    from interactions
    group by item_id
),

places as (
    select
        side,
        item_id,
        count(*) as places
    from compared
    group by side, item_id
),

ranked as (
    select
        side,
        places,
        places * log2((select count(*) from interactions) / coalesce(taken, 1)) as bits,
        row_number() over (partition by side order by places, item_id) as number,
        row_number() over (partition by side order by places desc, item_id) as place
    from places
    left join popularity using (item_id)
),

shown as (
    select
        side,
        count(*)::double as items,
        count(*) / if(side = 'a', $eligible_a, $eligible_b) as coverage,
        2 * sum(number * places) / (count(*) * sum(places)) - (count(*) + 1) / count(*) as gini,
        sum(places) filter (where place <= 10) / sum(places) as top,
        sum(bits) / sum(places) as novelty
    from ranked
    group by side
),

reasons as (
    select
        side,
        count(*) filter (where reason like 'popular%') / count(*) as popular
    from compared
    group by side
),

figures as (
    select
        side,
        unnest(
            [
                'items shown',
                'share of the items that could be shown',
                'Gini index of the places',
                'share of the ten most shown items',
                'novelty, in bits',
                'share of popular items'
            ]
        ) as name,
        unnest([items, coverage, gini, top, novelty, popular]) as figure,
        unnest(range(1, 7)) as place
    from shown
    inner join reasons using (side)
)

select
    'lists' as section,
    name,
    any_value(figure) filter (where side = 'a') as a,
    any_value(figure) filter (where side = 'b') as b,
    null::double as shared
from figures
group by name, place
order by place
