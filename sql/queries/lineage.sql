-- One row per recommendation of the user $user_id (an id) on $run_date (a date): which model,
-- trained on which version, read which version of `interactions`, in which run.
select
    recommendations.rank,
    recommendations.item_id,
    recommendations.reason,
    recommendations.model_id,
    models.preset,
    models.seed,
    models.interactions_version as trained_on_version,
    recommendations.interactions_version as recommended_from_version,
    recommendations.run_id,
    recommendations.generated_at
from recommendations
left join models using (model_id)
where recommendations.user_id = $user_id and recommendations.run_date = $run_date
order by recommendations.rank
