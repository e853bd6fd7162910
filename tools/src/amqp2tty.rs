//! `amqp2tty`: shows what passes an exchange, as it passes.
//!
//! Exit codes: 0 when interrupted or when the wanted number of messages was shown, 1 failed, 2 wrong usage.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use overstory_amqp::{AmqpConfig, Delivery, fanout};
use overstory_runtime::{Home, program};
use overstory_supervisor::privileges;
use serde_json::{Value, json};

/// Shows the messages that pass an exchange of the broker, from now on.
#[derive(Debug, Parser)]
#[command(name = "amqp2tty", version, arg_required_else_help = true)]
#[command(after_help = "Exchanges: canopsis.events, canopsis.alerts, canopsis.incidents, canopsis.dead, amq.topic.\n\
    PATTERN is a topic: words between dots, * for any word, # for any number of words.")]
struct Args {
    /// The exchange
    exchange: String,
    /// Shows only messages whose routing key matches
    #[arg(short, long, default_value = "#", value_name = "PATTERN")]
    key: String,
    /// Writes one JSON object per line
    #[arg(long)]
    json: bool,
    /// Ends after so many messages
    #[arg(short = 'n', long, value_name = "COUNT")]
    count: Option<u64>,
}

/// Runs `amqp2tty`; `args[0]` is the program's name.
#[must_use]
pub fn run(args: Vec<OsString>) -> ExitCode {
    program::end_quietly_on_closed_pipe();
    match Args::try_parse_from(args) {
        Ok(args) => match execute(&args, &Home::find()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("amqp2tty: {}", program::chain(error.as_ref()));
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            // Help and version are asked for, the rest is wrong usage.
            let _ = error.print();
            ExitCode::from(if error.use_stderr() { 2 } else { 0 })
        }
    }
}

fn execute(args: &Args, home: &Home) -> anyhow::Result<()> {
    privileges::become_owner(home.root()).with_context(|| format!("no installation at {}", home.root().display()))?;
    let config = AmqpConfig::load(home)?;
    let mut out = io::stdout();
    program::block_on(async {
        tokio::select! {
            interrupted = program::interrupted() => Ok(interrupted?),
            shown = show(args, &config, &mut out) => shown,
        }
    })
}

/// Shows messages until there are enough; a broker that goes away is waited for.
async fn show(args: &Args, config: &AmqpConfig, out: &mut impl Write) -> anyhow::Result<()> {
    let subscribe = || fanout::subscribe(config, "amqp2tty", &args.exchange, &args.key);
    let mut tail = subscribe().await?;
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        match tail.next().await {
            Ok(delivery) => {
                let text = if args.json { line(&delivery) } else { pretty(&delivery) };
                out.write_all(text.as_bytes())?;
                out.flush()?;
                left -= 1;
            }
            Err(error) => {
                eprintln!("amqp2tty: {error}; messages are missed until the broker is back");
                tail = loop {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    match subscribe().await {
                        Ok(tail) => break tail,
                        Err(error) if error.is_retryable() => {}
                        Err(error) => return Err(error.into()),
                    }
                };
            }
        }
    }
    tail.close().await;
    Ok(())
}

/// One line for programs.
fn line(delivery: &Delivery) -> String {
    let mut message = json!({
        "exchange": delivery.exchange,
        "routing_key": delivery.routing_key,
        "message_id": delivery.message_id,
        "content_type": delivery.content_type,
        "timestamp": delivery.timestamp,
        "headers": delivery.headers,
    });
    let (name, body) = body_value(&delivery.body);
    message[name] = body;
    format!("{message}\n")
}

/// The body as it is best written in JSON, and the name of the field that says how.
pub(crate) fn body_value(body: &[u8]) -> (&'static str, Value) {
    match (serde_json::from_slice(body), std::str::from_utf8(body)) {
        (Ok(value), _) => ("body", value),
        (Err(_), Ok(text)) => ("body_text", text.into()),
        (Err(_), Err(_)) => ("body_base64", {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.encode(body).into()
        }),
    }
}

/// A few lines for people.
fn pretty(delivery: &Delivery) -> String {
    let mut text = visible(&delivery.routing_key);
    let kind = delivery.content_type.as_deref().unwrap_or("no content type");
    text += &format!("  [{}, {} bytes]\n", visible(kind), delivery.size);
    for (name, value) in &delivery.headers {
        text += &format!("  {}: {}\n", visible(name), visible(value));
    }
    for line in body_lines(&delivery.body) {
        text += &format!("  {line}\n");
    }
    text
}

/// The body for people: JSON is laid out, other text is made harmless, the rest is only counted.
pub(crate) fn body_lines(body: &[u8]) -> Vec<String> {
    let text = match (serde_json::from_slice::<Value>(body), std::str::from_utf8(body)) {
        (Ok(value), _) => format!("{value:#}"),
        (Err(_), Ok(text)) => text.to_owned(),
        (Err(_), Err(_)) => format!("({} bytes that are no text)", body.len()),
    };
    text.lines().map(visible).collect()
}

/// Text without characters that could do something to a terminal.
pub(crate) fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use overstory_amqp::topology::EVENTS;
    use overstory_amqp::{Outgoing, Publisher, PublisherOptions};
    use overstory_model::RoutingKey;
    use overstory_runtime::Shutdown;
    use overstory_testkit::broker;

    use super::*;

    fn args(words: &[&str]) -> Args {
        Args::try_parse_from([&["amqp2tty"], words].concat()).unwrap()
    }

    #[test]
    fn people_see_json_laid_out_and_nothing_that_moves_the_cursor() {
        let delivery = Delivery {
            content_type: Some("application/json".into()),
            ..Delivery::local("e", "a.b\x1b[2J", r#"{"x":[1,"\u001b[2J"]}"#.into())
        };
        let text = pretty(&delivery);
        assert!(
            text.starts_with("a.b\u{fffd}[2J  [application/json, 21 bytes]\n  {\n    \"x\": [\n      1,\n"),
            "{text}"
        );
        assert!(!text.contains('\x1b'));
        assert_eq!(body_lines(b"a\x07b\nc"), ["a\u{fffd}b", "c"]);
        assert_eq!(body_lines(b"\xff\xfe"), ["(2 bytes that are no text)"]);
    }

    #[test]
    fn programs_get_one_line_whatever_the_body_is() {
        let read = |body: &'static [u8]| -> Value {
            let text = line(&Delivery::local("e", "k", body.into()));
            assert_eq!(text.matches('\n').count(), 1);
            serde_json::from_str(&text).unwrap()
        };
        assert_eq!(read(b"{\n \"a\": 1\n}")["body"]["a"], 1);
        assert_eq!(read(b"not json\n")["body_text"], "not json\n");
        assert_eq!(read(b"\xff")["body_base64"], "/w==");
    }

    #[tokio::test]
    async fn what_matches_is_shown_until_there_is_enough_and_a_missing_exchange_is_named() {
        let config = broker::shared().unwrap();
        let publisher = Publisher::start(config.clone(), PublisherOptions::new("source"), Shutdown::new()).unwrap();
        let send = |key: &str, body: &'static str| {
            publisher.publish(Outgoing::json(EVENTS, RoutingKey::fit(key.to_owned()), body.into()))
        };
        send("made.topology", "{}").await.unwrap();
        let mut out = Vec::new();
        let args = args(&[EVENTS, "--key", "x.*", "--json", "-n", "2"]);
        let publishing = async {
            loop {
                for (key, body) in [("y.1", "0"), ("x.1", "1"), ("x.y.z", "2"), ("x.2", "3")] {
                    send(key, body).await.unwrap();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            shown = show(&args, &config, &mut out) => shown.unwrap(),
            () = publishing => {}
        }
        let lines: Vec<Value> =
            out.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert!(lines.iter().all(|line| line["routing_key"] == "x.1" || line["routing_key"] == "x.2"), "{lines:?}");
        assert!(lines[0]["message_id"].is_string());

        let missing = Args { exchange: "no.such".into(), ..args };
        let error = show(&missing, &config, &mut out).await.unwrap_err();
        assert_eq!(error.to_string(), "there is no exchange no.such");
    }
}
