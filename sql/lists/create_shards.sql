-- One row per user of `interactions`: the shard that a hash of its id puts it into, of $shards. The
-- hash is fixed, so that a user stays in a shard as long as their number does.
-- reads: interactions, $shards
-- makes: table shard_of_users (user_id, shard)
create or replace table shard_of_users as
select
    user_id,
    cast(md5_number_lower(cast(user_id as varchar)) % $shards as integer) as shard
from (
    select distinct user_id
    from interactions
)
