//! Series and their points.

use actix_web::{HttpRequest, HttpResponse, web};
use overstory_model::metric::MetricKind;
use overstory_model::{EntityId, Millis, SeriesKey};
use overstory_store::{Aggregate, Bucket, RangeQuery, Series, SeriesQuery};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::openapi::{ErrorBody, FieldErrors};
use crate::paging::Meta;
use crate::query::Parameters;
use crate::state::AppState;

/// The most points or buckets in one answer: a point per pixel and more.
const MAX_POINTS: u32 = 10_000;
/// Where a range begins that is not said, in seconds before its end.
const DEFAULT_RANGE_S: f64 = 3600.0;
/// A time beyond the year 9999 is a mistake.
const LATEST_S: f64 = 253_402_300_799.0;

/// A moment in Unix seconds; with decimals only when it does not fall on a second.
#[derive(Debug, Clone, Copy, PartialEq, ToSchema)]
#[schema(value_type = f64)]
pub struct Seconds(Millis);

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let millis = self.0.0;
        if millis % 1000 == 0 {
            serializer.serialize_i64(millis / 1000)
        } else {
            #[expect(clippy::cast_precision_loss, reason = "exact far beyond the year 9999")]
            serializer.serialize_f64(millis as f64 / 1000.0)
        }
    }
}

/// A series and its latest point.
#[derive(Debug, Serialize, ToSchema)]
pub struct SeriesView {
    /// Whose it is.
    pub entity: String,
    /// The metric's name.
    pub metric: String,
    /// The unit.
    pub unit: Option<String>,
    /// How values relate: GAUGE, COUNTER, DERIVE, ABSOLUTE.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub kind: MetricKind,
    /// The least possible value.
    pub min: Option<f64>,
    /// The greatest possible value.
    pub max: Option<f64>,
    /// Where the source warns.
    pub warn: Option<f64>,
    /// Where the source calls it critical.
    pub crit: Option<f64>,
    /// The latest value.
    pub last_value: Option<f64>,
    /// When the latest value was read.
    pub last_date: Option<Seconds>,
}

/// A page of series.
#[derive(Debug, Serialize, ToSchema)]
pub struct SeriesListing {
    /// The series.
    pub data: Vec<SeriesView>,
    /// Where they are in the list.
    pub meta: Meta,
}

/// A point or a bucket.
#[derive(Debug, Serialize, ToSchema)]
pub struct PointView {
    /// Where the bucket starts, or the point's time.
    pub t: Seconds,
    /// The value.
    pub value: f64,
    /// How many points it is made of.
    pub count: u64,
}

/// A part of a series.
#[derive(Debug, Serialize, ToSchema)]
pub struct RangeView {
    /// Whose series.
    pub entity: String,
    /// The metric's name.
    pub metric: String,
    /// From this time on.
    pub from: Seconds,
    /// Up to but not including this time.
    pub to: Seconds,
    /// The width of a bucket in seconds; `null`: points as they came.
    pub step: Option<Seconds>,
    /// What a bucket shows.
    pub aggregate: String,
    /// The buckets that hold points, oldest first.
    pub points: Vec<PointView>,
}

/// A part of a series.
#[derive(Debug, Serialize, ToSchema)]
pub struct RangeAnswer {
    /// The part.
    pub data: RangeView,
}

/// Either answer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum MetricsAnswer {
    /// Without `from` and `to`: the series there are.
    Series(SeriesListing),
    /// With `from` or `to`: points of one series.
    Range(RangeAnswer),
}

#[utoipa::path(get, path = "/api/v4/metrics", tag = "metrics", summary = "List series, or with `from` or `to` the points of one",
    params(
        ("entity" = Option<String>, Query, description = "The entity's id; needed for a range"),
        ("metric" = Option<String>, Query, description = "The metric's name; needed for a range"),
        ("from" = Option<f64>, Query, description = "From this time on, Unix seconds; an hour before `to` if not given"),
        ("to" = Option<f64>, Query, description = "Up to but not including this time, Unix seconds; now if not given"),
        ("step" = Option<f64>, Query, description = "The width of a bucket in seconds; absent: points as they came"),
        ("aggregate" = Option<String>, Query, description = "avg (if not given), min, max, last, sum"),
        ("search" = Option<String>, Query, description = "List: text that the entity's id or the metric's name contains"),
        ("page" = Option<u32>, Query, description = "List: from 1"),
        ("limit" = Option<u32>, Query, description = "List: per page, 1 to 1000, 10 if not given"),
        ("paginate" = Option<bool>, Query, description = "List: false: up to 10,000 at once")),
    responses((status = 200, description = "The series, or the points", body = MetricsAnswer),
        (status = 400, description = "Wrong parameters, or a range of more than 10,000 points", body = FieldErrors),
        (status = 401, description = "No or wrong credentials", body = ErrorBody),
        (status = 403, description = "api_metrics_read is missing", body = ErrorBody),
        (status = 503, description = "The store is away", body = ErrorBody)))]
pub(super) async fn query(request: HttpRequest, state: web::Data<AppState>) -> Result<HttpResponse, ApiError> {
    let mut query = Parameters::new(request.query_string())?;
    if ["from", "to", "step", "aggregate"].iter().any(|name| query.has(name)) {
        return range(query, &state).await;
    }
    let series_query = SeriesQuery {
        search: query.text("search"),
        entity: query.text("entity"),
        metric: query.text("metric"),
        page: query.page(),
    };
    query.finish()?;
    let page = series_query.page;
    let _turn = state.turn_to_list(page).await?;
    let metrics = state.ports.stores.metrics.clone();
    let found = state.shared.store(async move { metrics.series(&series_query).await }).await?;
    let data = found.items.into_iter().map(series_view).collect();
    Ok(HttpResponse::Ok().json(SeriesListing { data, meta: Meta::new(page, found.total) }))
}

async fn range(mut query: Parameters, state: &AppState) -> Result<HttpResponse, ApiError> {
    let aggregate = query.text("aggregate").unwrap_or_else(|| "avg".to_owned());
    let range_query = range_query(&mut query, state.ports.clock.now());
    query.finish()?;
    let range_query = range_query.ok_or_else(|| ApiError::internal("a range without a series"))?;
    let (asked, metrics) = (range_query.clone(), state.ports.stores.metrics.clone());
    let points = state.shared.store(async move { metrics.range(&range_query).await }).await?;
    if points.len() > MAX_POINTS as usize {
        let message = format!("there are more than {MAX_POINTS} points, give a step");
        return Err(ApiError::fields([("step".to_owned(), message)].into()));
    }
    let data = RangeView {
        entity: asked.series.entity.0,
        metric: asked.series.metric,
        from: Seconds(asked.from),
        to: Seconds(asked.to),
        step: asked.step.map(|step| Seconds(Millis(step))),
        aggregate,
        points: points.into_iter().map(point_view).collect(),
    };
    Ok(HttpResponse::Ok().json(RangeAnswer { data }))
}

/// Reads the parameters of a range; `None` only when something was refused.
fn range_query(query: &mut Parameters, now: Millis) -> Option<RangeQuery> {
    for name in ["entity", "metric"] {
        if !query.has(name) {
            query.refuse(name, "Field is missing.");
        }
    }
    let (entity, metric) = (query.text("entity"), query.text("metric"));
    #[expect(clippy::cast_precision_loss, reason = "exact far beyond the year 9999")]
    let now_s = now.0 as f64 / 1000.0;
    let to_s = query.number("to", 0.0..=LATEST_S).unwrap_or(now_s);
    let from_s = query.number("from", 0.0..=LATEST_S).unwrap_or((to_s - DEFAULT_RANGE_S).max(0.0));
    if from_s >= to_s {
        query.refuse("from", "has to be before to");
    }
    let step = query.number("step", 0.001..=LATEST_S).map(millis);
    let (from, to) = (Millis(millis(from_s)), Millis(millis(to_s)));
    if step.is_some_and(|step| to.since(from) / step.max(1) >= i64::from(MAX_POINTS)) {
        query.refuse("step", format_args!("makes more than {MAX_POINTS} buckets of this range"));
    }
    let aggregates = [
        ("avg", Aggregate::Avg),
        ("min", Aggregate::Min),
        ("max", Aggregate::Max),
        ("last", Aggregate::Last),
        ("sum", Aggregate::Sum),
    ];
    let aggregate = query.choice("aggregate", &aggregates).unwrap_or_default();
    let series = SeriesKey { entity: EntityId(entity?), metric: metric? };
    // One more than shown, to tell that there are more.
    Some(RangeQuery { series, from, to, step, aggregate, limit: MAX_POINTS + 1 })
}

/// Whole milliseconds of a number of seconds that was checked to lie between 0 and the year 9999.
#[expect(clippy::cast_possible_truncation, reason = "a checked range")]
fn millis(seconds: f64) -> i64 {
    (seconds * 1000.0).round() as i64
}

fn series_view(series: Series) -> SeriesView {
    let [min, max, warn, crit] = series.limits;
    SeriesView {
        entity: series.key.entity.0,
        metric: series.key.metric,
        unit: series.unit,
        kind: series.kind,
        min,
        max,
        warn,
        crit,
        last_value: series.last_value,
        last_date: series.last_at.map(Seconds),
    }
}

fn point_view(bucket: Bucket) -> PointView {
    PointView { t: Seconds(bucket.at), value: bucket.value, count: bucket.count }
}
