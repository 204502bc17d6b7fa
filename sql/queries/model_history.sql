-- One row per model, newest first: what it scored, what popularity scored, and what became of it.
select *
from model_against_popularity
order by trained_at desc
