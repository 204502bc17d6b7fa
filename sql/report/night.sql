-- One row, or none: the edition that is served for $run_date, and the model that made it.
-- reads: editions, models, $run_date
-- makes: rows (run_date, edition, users, popular_users, without_list, rows, model_id, data_until,
--     published_at, why, trained_at, preset, model_age_days)
select
    editions.run_date,
    editions.edition,
    editions.users,
    editions.popular_users,
    editions.without_list,
    editions.rows,
    editions.model_id,
    editions.data_until,
    editions.published_at,
    editions.why,
    models.trained_at,
    models.preset,
    epoch(editions.published_at - models.trained_at) / 86400 as model_age_days
from editions
left join models using (model_id)
where editions.run_date = $run_date and editions.status = 'current'
