//! Sending events.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use overstory_amqp::{Outgoing, topology};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::auth::Identity;
use crate::body::{self, BodyKind};
use crate::error::ApiError;
use crate::incoming::{self, Accepted, MAX_EVENT_BYTES, Sender};
use crate::openapi::{ErrorBody, EventSchema};
use crate::sink::Taken;
use crate::state::AppState;

/// What became of the events.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct EventAnswer {
    /// Those that are durable, as they were published: the broker confirmed them, or they wait in the spool for it.
    #[schema(value_type = Vec<Object>)]
    pub sent_events: Vec<Value>,
    /// Those that will never be taken.
    #[schema(value_type = Vec<Object>)]
    pub failed_events: Vec<Value>,
    /// Those that may be sent again later: there was no room for them.
    #[schema(value_type = Vec<Object>)]
    pub retry_events: Vec<Value>,
    /// Why events failed, in the order of `failed_events`; absent when none did.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<EventError>,
}

/// Why an event failed.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventError {
    /// The event's place in the request, from 0.
    pub index: usize,
    /// What is wrong with it.
    pub error: String,
}

#[utoipa::path(post, path = "/api/v4/event", tag = "events", summary = "Send one event or several",
    request_body(content((EventSchema = "application/json"), (EventSchema = "application/x-www-form-urlencoded")),
        description = "An event or an array of events. A form holds the fields of one event, or JSON in its field `event`."),
    responses((status = 200, description = "What became of each", body = EventAnswer),
        (status = 400, description = "The body is neither an event nor an array of events, or has too many", body = ErrorBody),
        (status = 401, description = "No or wrong credentials", body = ErrorBody),
        (status = 403, description = "api_event is missing", body = ErrorBody),
        (status = 408, description = "The body did not arrive in time", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 415, description = "The body is neither JSON nor a form", body = ErrorBody),
        (status = 503, description = "None of the events could be kept: the broker is away and the spool is full", body = ErrorBody)))]
pub(super) async fn send(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<AppState>,
    caller: web::ReqData<Identity>,
) -> Result<HttpResponse, ApiError> {
    let kind = body::kind(&request);
    if kind == BodyKind::Other {
        return Err(ApiError::unsupported_media_type("application/json or application/x-www-form-urlencoded"));
    }
    let settings = &state.settings;
    let turn = tokio::time::timeout(settings.answer_timeout, state.event_bodies.acquire()).await;
    let _turn = match turn {
        Ok(turn) => turn.map_err(ApiError::internal)?,
        Err(_) => return Err(ApiError::unavailable("Too many events at a time", "no turn to read a body")),
    };
    let bytes = body::read(&request, payload, settings.max_body_bytes, settings.body_timeout).await?;
    let items = match kind {
        BodyKind::Form => form_items(&bytes, settings.max_events)?,
        _ => json_items(&bytes, settings.max_events)?,
    };
    drop(bytes);
    let account = &caller.account;
    let sender = Sender { name: &account.name, role: account.roles.first().map(String::as_str) };
    let answer = publish(&state, items, sender).await?;
    let counts = [
        ("sent", answer.sent_events.len()),
        ("failed", answer.failed_events.len()),
        ("retry", answer.retry_events.len()),
    ];
    for (outcome, count) in counts {
        state.ports.metrics.events.with_label_values(&[outcome]).inc_by(count as u64);
    }
    if answer.sent_events.is_empty() && answer.failed_events.is_empty() && !answer.retry_events.is_empty() {
        return Err(ApiError::unavailable("The events could not be kept, send them again later", "no room for events"));
    }
    Ok(HttpResponse::build(StatusCode::OK).json(answer))
}

async fn publish(state: &AppState, items: Vec<Value>, sender: Sender<'_>) -> Result<EventAnswer, ApiError> {
    let mut answer = EventAnswer::default();
    let fail = |answer: &mut EventAnswer, index: usize, item: Value, error: String| {
        answer.failed_events.push(item);
        answer.errors.push(EventError { index, error });
    };
    let (mut accepted, mut messages) = (Vec::new(), Vec::new());
    for (index, item) in items.into_iter().enumerate() {
        let Value::Object(event) = item else {
            fail(&mut answer, index, item, "an event is a JSON object".to_owned());
            continue;
        };
        match prepare(event, sender) {
            Ok((event, message)) => {
                accepted.push((index, event));
                messages.push(message);
            }
            Err((event, error)) => fail(&mut answer, index, Value::Object(event), error),
        }
    }
    if messages.is_empty() {
        return Ok(answer);
    }
    let sink = state.ports.sink.clone();
    let taken = state.shared.run("The broker does not answer", async move { sink.take(messages).await }).await?;
    for ((index, event), taken) in accepted.into_iter().zip(taken) {
        let event = Value::Object(event);
        match taken {
            Taken::Durable => answer.sent_events.push(event),
            Taken::Later => answer.retry_events.push(event),
            Taken::Never => fail(&mut answer, index, event, "it is too large".to_owned()),
        }
    }
    Ok(answer)
}

type Event = Map<String, Value>;

/// Makes a message of an event; gives the event back when it cannot be sent.
fn prepare(event: Event, sender: Sender<'_>) -> Result<(Event, Outgoing), (Event, String)> {
    let original = event.clone();
    let Accepted { event, routing_key } = incoming::accept(event, sender).map_err(|error| (original.clone(), error))?;
    let body = serde_json::to_vec(&event).map_err(|error| (original.clone(), error.to_string()))?;
    if body.len() > MAX_EVENT_BYTES {
        return Err((original, format!("it has more than {MAX_EVENT_BYTES} bytes")));
    }
    let message = Outgoing::json(topology::EVENTS, routing_key, body.into());
    Ok((event, message))
}

/// Takes an object or an array apart; the number of events is known before any of them is.
fn json_items(bytes: &[u8], max_events: usize) -> Result<Vec<Value>, ApiError> {
    let malformed = |error: serde_json::Error| ApiError::bad_request(format!("The body is malformed: {error}"));
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    match first {
        Some(b'{') => Ok(vec![serde_json::from_slice(bytes).map_err(malformed)?]),
        Some(b'[') => {
            let raw: Vec<&RawValue> = serde_json::from_slice(bytes).map_err(malformed)?;
            if raw.len() > max_events {
                return Err(ApiError::bad_request(format!("There are more than {max_events} events")));
            }
            raw.into_iter().map(|item| serde_json::from_str(item.get()).map_err(malformed)).collect()
        }
        _ => Err(ApiError::bad_request("The body has to be a JSON object or an array")),
    }
}

fn form_items(bytes: &[u8], max_events: usize) -> Result<Vec<Value>, ApiError> {
    // Tools that send JSON without saying so call it a form.
    if matches!(bytes.iter().find(|byte| !byte.is_ascii_whitespace()), Some(b'{' | b'[')) {
        return json_items(bytes, max_events);
    }
    let malformed = || ApiError::bad_request("The form is malformed");
    let text = std::str::from_utf8(bytes).map_err(|_| malformed())?;
    let pairs = web::Query::<Vec<(String, String)>>::from_query(text).map_err(|_| malformed())?.into_inner();
    match pairs.as_slice() {
        [] => Err(ApiError::bad_request("The form is empty")),
        [(name, json)] if name == "event" => json_items(json.as_bytes(), max_events),
        _ => {
            let fields = pairs.into_iter().map(|(name, value)| (name, Value::String(value)));
            Ok(vec![Value::Object(fields.collect())])
        }
    }
}
