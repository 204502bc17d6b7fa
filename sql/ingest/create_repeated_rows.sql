-- One row per staged row that repeats another one's interaction: its number (seq), and whether the
-- row that stands is wholly the same. The first row stands, or with $keep_last the last one, which
-- may have another event. A row without an event is the same interaction as any of its moment.
-- Rows without a user, faulty rows and rows that are already in the lake do not count.
-- reads: anonymous_rows, faulty_rows, repeated_hashes, rows_in_lake, staged_rows, $keep_last
-- makes: table repeated_rows (seq, is_exact)
create or replace temp table repeated_rows as
with suspected as materialized (
    select
        staged_rows.rowid as seq,
        staged_rows.user_id,
        staged_rows.item_id,
        staged_rows."timestamp",
        staged_rows.event,
        staged_rows."value"
    from staged_rows
    semi join repeated_hashes
        on hash(staged_rows.user_id, staged_rows.item_id, staged_rows."timestamp") = "hash"
),

rivals as (
    select *
    from suspected
    anti join anonymous_rows using (seq)
    anti join faulty_rows using (seq)
    anti join rows_in_lake using (seq)
),

moments as (
    select
        *,
        first_value(seq) over moment as first_of_moment,
        first_value(event) over moment as event_of_moment
    from rivals
    window moment as (
        partition by user_id, item_id, "timestamp" order by if($keep_last, -seq, seq)
    )
),

repeats as (
    select
        *,
        if(
            $keep_last or event is null or event_of_moment is null,
            first_of_moment,
            min(seq) over (partition by user_id, item_id, "timestamp", event)
        ) as standing
    from moments
)

select
    repeats.seq,
    repeats.event is not distinct from kept.event
    and repeats."value" is not distinct from kept."value" as is_exact
from repeats
inner join rivals as kept on repeats.standing = kept.seq
where repeats.seq <> repeats.standing
