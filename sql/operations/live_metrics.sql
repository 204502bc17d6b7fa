-- One row per days, lists, slice, value and metric of the lists of $run_date, as `live_metrics` has
-- it. A figure is the mean over users; those of a reason or a rank are over all judged users.
-- reads: judged_items, popular_ranks, windows, $by_model, $cutoffs, $ideal, $run_date
-- makes: rows (lists, days, slice, value, metric, users, hits, result, deviation)
with pairs as materialized (
    select
        windows.days as day,
        judged.user_id,
        judged.user_kind,
        if($by_model, judged.model_id, null) as model_id,
        judged.item_kind,
        judged.reason,
        judged.rank,
        popular_ranks.rank as popular_rank
    from judged_items as judged
    asof inner join windows
        on judged.run_date = windows.run_date and judged.taken_at < windows.until
    left join popular_ranks using (user_id, item_id)
    where judged.run_date = $run_date
),

horizons as (
    select days
    from windows
    where run_date = $run_date
),

cutoffs as (
    select
        unnest($cutoffs) as cutoff,
        unnest(range(1, len($cutoffs) + 1)) as number
),

-- Users are counted from their first day on; each in `all`, in a kind of user, in the group of a
-- model, and by kind of item.
first_days as (
    select
        user_id,
        user_kind,
        model_id,
        null as item_kind,
        min(day) as day
    from pairs
    group by user_id, user_kind, model_id

    union all

    select
        user_id,
        null,
        null,
        item_kind,
        min(day)
    from pairs
    where item_kind is not null
    group by user_id, item_kind
),

slice_users as (
    select
        horizons.days,
        case
            when item_kind is not null then 'item'
            when grouping(user_kind) = 0 then 'user'
            when grouping(model_id) = 0 then 'model'
            else 'all'
        end as slice,
        coalesce(item_kind, user_kind, model_id, 'all') as value,
        count(*) as users
    from first_days
    inner join horizons on first_days.day <= horizons.days
    group by grouping sets (
        (horizons.days, item_kind),
        (horizons.days, item_kind, user_kind),
        (horizons.days, item_kind, model_id)
    )
    having
        (grouping(user_kind) = 1 or user_kind is not null)
        and (grouping(model_id) = 1 or model_id is not null)
),

-- Whoever took no listed item adds nothing to a sum.
hits as (
    select *
    from pairs
    semi join (
        select user_id
        from pairs
        where rank is not null or popular_rank is not null
    ) as hit_users using (user_id)
),

user_days as (
    select
        day,
        user_id,
        user_kind,
        model_id,
        item_kind,
        count(*) as taken,
        min(rank) as best,
        min(popular_rank) as popular_best,
        sum(1 / log2(rank + 1)) filter (where rank <= $cutoffs[1]) as gain_1,
        sum(1 / log2(rank + 1)) filter (where rank <= $cutoffs[2]) as gain_2,
        sum(1 / log2(rank + 1)) filter (where rank <= $cutoffs[3]) as gain_3,
        sum(1 / log2(popular_rank + 1)) filter (where popular_rank <= $cutoffs[1])
            as popular_gain_1,
        sum(1 / log2(popular_rank + 1)) filter (where popular_rank <= $cutoffs[2])
            as popular_gain_2,
        sum(1 / log2(popular_rank + 1)) filter (where popular_rank <= $cutoffs[3])
            as popular_gain_3
    from hits
    group by day, user_id, user_kind, model_id, item_kind
),

people as (
    select
        days,
        user_id,
        user_kind,
        model_id,
        item_kind,
        cast(sum(taken) as bigint) as taken,
        min(best) as best,
        min(popular_best) as popular_best,
        [sum(gain_1), sum(gain_2), sum(gain_3)] as gain,
        [sum(popular_gain_1), sum(popular_gain_2), sum(popular_gain_3)] as popular_gain
    from user_days
    inner join horizons on day <= days
    group by grouping sets ((days, user_id, user_kind, model_id), (days, user_id, item_kind))
    having grouping(item_kind) = 1 or item_kind is not null
),

scores as (
    select
        days,
        user_kind,
        model_id,
        item_kind,
        cutoff,
        if(best <= cutoff, 1, 0) as hit,
        if(popular_best <= cutoff, 1, 0) as popular_hit,
        coalesce(gain[number], 0) / $ideal[least(taken, cutoff)] as ndcg,
        coalesce(popular_gain[number], 0) / $ideal[least(taken, cutoff)] as popular_ndcg
    from people
    cross join cutoffs
),

sums as (
    select
        days,
        case
            when item_kind is not null then 'item'
            when grouping(user_kind) = 0 then 'user'
            when grouping(model_id) = 0 then 'model'
            else 'all'
        end as slice,
        coalesce(item_kind, user_kind, model_id, 'all') as value,
        cutoff,
        sum(hit) as hits,
        sum(popular_hit) as popular_hits,
        sum(hit * popular_hit) as both_hits,
        sum(ndcg) as ndcg,
        sum(popular_ndcg) as popular_ndcg,
        sum(ndcg * ndcg) as square,
        sum(popular_ndcg * popular_ndcg) as popular_square,
        sum(ndcg * popular_ndcg) as product
    from scores
    group by grouping sets (
        (days, item_kind, cutoff),
        (days, item_kind, cutoff, user_kind),
        (days, item_kind, cutoff, model_id)
    )
    having
        (grouping(user_kind) = 1 or user_kind is not null)
        and (grouping(model_id) = 1 or model_id is not null)
),

totals as (
    select
        unnest(['served', 'popularity', 'lead', 'served', 'popularity', 'lead']) as lists,
        slice_users.days,
        slice_users.slice,
        slice_users.value,
        unnest(['hr@', 'hr@', 'hr@', 'ndcg@', 'ndcg@', 'ndcg@']) || cutoffs.cutoff as metric,
        users,
        unnest([hits, popular_hits, null, hits, popular_hits, null]) as hits,
        unnest(
            [
                hits,
                popular_hits,
                hits - popular_hits,
                ndcg,
                popular_ndcg,
                ndcg - popular_ndcg
            ]
        ) as total,
        unnest(
            [
                hits,
                popular_hits,
                hits + popular_hits - 2 * both_hits,
                square,
                popular_square,
                square + popular_square - 2 * product
            ]
        ) as squares
    from slice_users
    cross join cutoffs
    left join sums
        on
            slice_users.days = sums.days
            and slice_users.slice = sums.slice
            and slice_users.value = sums.value
            and cutoffs.cutoff = sums.cutoff
),

placed as (
    select
        days,
        hits.* exclude (day)
    from hits
    inner join horizons on hits.day <= horizons.days
    where rank is not null or popular_rank is not null
),

-- Hits of a part of the list: of a reason's items up to each cut-off, or of the items of one rank.
parts as (
    select
        'served' as lists,
        days,
        'reason' as slice,
        reason as value,
        'hr@' || cutoff as metric,
        count(distinct user_id) as hits
    from placed
    inner join cutoffs on placed.rank <= cutoffs.cutoff
    group by days, reason, cutoff

    union all

    select
        lists,
        days,
        'rank',
        cast(rank as varchar),
        'hr',
        count(*)
    from (
        select 'served' as lists, days, rank from placed
        union all
        select 'popularity', days, popular_rank from placed where popular_rank <= $cutoffs[-1]
    ) as ranks
    where rank is not null
    group by lists, days, rank
),

figures as (
    select
        * replace (
            if(lists = 'lead', null, coalesce(hits, 0)) as hits,
            coalesce(total, 0) as total,
            coalesce(squares, 0) as squares
        )
    from totals

    union all

    select
        parts.lists,
        days,
        parts.slice,
        parts.value,
        parts.metric,
        slice_users.users,
        parts.hits,
        parts.hits,
        parts.hits
    from parts
    inner join slice_users using (days)
    where slice_users.slice = 'all'
)

select
    lists,
    days,
    slice,
    value,
    metric,
    users,
    hits,
    total / users as result,
    sqrt(greatest(squares - total * total / users, 0) / nullif(users - 1, 0)) as deviation
from figures
