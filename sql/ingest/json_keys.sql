-- One row per key in any line that is an object.
-- reads: lines
-- makes: rows (name)
select distinct unnest(json_keys(line)) as name
from lines
where fault is null and json_valid(line) and json_type(line) = 'OBJECT'
order by name
