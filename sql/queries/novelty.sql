-- One row per run date: mean self-information of the listed items, in bits; high: rarely had items.
with popularity as (
    select
        item_id,
        -log2(count(*) / (select count(*) from interactions)) as bits
    from interactions
    group by item_id
)

select
    run_date,
    avg(bits) as novelty_bits
from recommendations
left join popularity using (item_id)
group by run_date
order by run_date desc
