//! `overstory dead`: looks at dead letters, sends them again, throws them away.

use std::io::Write;

use anyhow::bail;
use clap::{Args, Subcommand};
use overstory_amqp::AmqpConfig;
use overstory_amqp::dead::{self, DeadLetter, Outcome, Selection};
use overstory_runtime::{Home, program};
use serde_json::{Value, json};

use crate::amqp2tty::{body_lines, body_value, visible};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Lists them, oldest first
    List {
        /// Writes one JSON object per line
        #[arg(long)]
        json: bool,
        /// How many at most
        #[arg(short = 'n', long, default_value_t = 50, value_name = "COUNT")]
        count: usize,
    },
    /// Shows one with its body
    Show {
        /// Its id, or the beginning of it
        id: String,
        /// Writes a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Publishes them where they came from, to be worked on once more
    Replay(Which),
    /// Throws them away
    Drop(Which),
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(super) struct Which {
    /// The one with this id, or whose id begins so
    #[arg(conflicts_with_all = ["all", "reason"])]
    id: Option<String>,
    /// All of them
    #[arg(long)]
    all: bool,
    /// All with this reason
    #[arg(long)]
    reason: Option<String>,
}

impl Which {
    fn selection(&self) -> Selection {
        match (&self.id, &self.reason) {
            (Some(id), _) => Selection::Id(id.clone()),
            (None, Some(reason)) => Selection::Reason(reason.clone()),
            (None, None) => Selection::All,
        }
    }
}

pub(super) fn run(command: &Command, home: &Home, out: &mut impl Write) -> anyhow::Result<()> {
    let config = AmqpConfig::load(home)?;
    program::block_on(execute(command, &config, out))
}

async fn execute(command: &Command, config: &AmqpConfig, out: &mut impl Write) -> anyhow::Result<()> {
    match command {
        Command::List { json, count } => {
            let (letters, total) = dead::list(config, *count).await?;
            for letter in &letters {
                if *json {
                    writeln!(out, "{}", as_json(letter, false))?;
                } else {
                    writeln!(out, "{}", as_line(letter))?;
                }
            }
            if !json {
                match total.saturating_sub(letters.len()) {
                    0 if total == 0 => writeln!(out, "no dead letters")?,
                    0 => {}
                    more => writeln!(out, "and {more} more (-n {total} shows all)")?,
                }
            }
        }
        Command::Show { id, json } => {
            let letter = dead::show(config, id).await?;
            if *json {
                writeln!(out, "{}", as_json(&letter, true))?;
            } else {
                write!(out, "{}", in_full(&letter))?;
            }
        }
        Command::Replay(which) => {
            report(&dead::replay(config, &which.selection()).await?, "sent again", out)?;
        }
        Command::Drop(which) => report(&dead::drop(config, &which.selection()).await?, "thrown away", out)?,
    }
    Ok(())
}

fn report(outcome: &Outcome, done: &str, out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(out, "{} {done}", outcome.done.len())?;
    for (id, error) in &outcome.failed {
        writeln!(out, "{}: {error}", visible(id))?;
    }
    if !outcome.failed.is_empty() {
        bail!("{} could not be {done} and are still there", outcome.failed.len());
    }
    Ok(())
}

fn when(letter: &DeadLetter) -> String {
    letter.at.map_or_else(|| "unknown time".to_owned(), |at| at.utc())
}

fn as_line(letter: &DeadLetter) -> String {
    let detail = visible(&letter.detail);
    let detail: String =
        if detail.chars().count() > 80 { detail.chars().take(79).chain(['…']).collect() } else { detail };
    let DeadLetter { id, reason, routing_key, body, .. } = letter;
    let (id, reason, key) = (visible(id), visible(reason), visible(routing_key));
    format!("{}  {id}  {reason}  {key}  {} bytes  {detail}", when(letter), body.len()).trim_end().to_owned()
}

fn in_full(letter: &DeadLetter) -> String {
    let mut text = String::new();
    let mut field = |name: &str, value: &str| text += &format!("{name:<12} {}\n", visible(value));
    field("id", &letter.id);
    field("at", &when(letter));
    field("reason", &letter.reason);
    field("detail", &letter.detail);
    field("from", &letter.origin);
    field("exchange", &letter.exchange);
    field("routing key", &letter.routing_key);
    field("type", letter.content_type.as_deref().unwrap_or(""));
    for (name, value) in &letter.headers {
        field("header", &format!("{name}: {value}"));
    }
    field("bytes", &letter.body.len().to_string());
    for line in body_lines(&letter.body) {
        text += &format!("  {line}\n");
    }
    text
}

fn as_json(letter: &DeadLetter, with_body: bool) -> Value {
    let mut value = json!({
        "id": letter.id, "at": letter.at, "reason": letter.reason, "detail": letter.detail,
        "origin": letter.origin, "exchange": letter.exchange, "routing_key": letter.routing_key,
        "message_id": letter.message_id, "content_type": letter.content_type, "headers": letter.headers,
        "bytes": letter.body.len(),
    });
    if with_body {
        let (name, body) = body_value(&letter.body);
        value[name] = body;
    }
    value
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use clap::Parser;
    use overstory_amqp::topology::{ENGINE_EVENTS, EVENTS};
    use overstory_amqp::{Delivery, Publisher, PublisherOptions};
    use overstory_model::Timestamp;
    use overstory_runtime::Shutdown;
    use overstory_testkit::broker;

    use super::*;
    use crate::overstory_admin as parent;

    async fn dead(config: &AmqpConfig, words: &[&str]) -> (String, Option<String>) {
        let args = parent::Args::try_parse_from([&["overstory", "dead"], words].concat()).unwrap();
        #[allow(irrefutable_let_patterns, reason = "holds however many other subcommands there are")]
        let parent::Command::Dead(command) = args.command else { panic!("not dead") };
        let mut out = Vec::new();
        let result = execute(&command, config, &mut out).await;
        (String::from_utf8(out).unwrap(), result.err().map(|error| error.to_string()))
    }

    #[test]
    fn what_is_meant_must_be_said() {
        let parse = |words: &[&str]| parent::Args::try_parse_from([&["overstory", "dead"], words].concat());
        assert!(parse(&["drop"]).is_err() && parse(&["replay", "x", "--all"]).is_err());
        assert!(parse(&["drop", "--all"]).is_ok() && parse(&["replay", "--all", "--reason", "r"]).is_ok());
    }

    #[tokio::test]
    async fn an_operator_lists_shows_replays_and_drops() {
        let config = broker::shared().unwrap();
        assert_eq!(dead(&config, &["list"]).await, ("no dead letters\n".to_owned(), None));
        let publisher = Publisher::start(config.clone(), PublisherOptions::new("undertaker"), Shutdown::new()).unwrap();
        for (id, exchange, body) in [("m1", EVENTS, "{\"a\":1}"), ("m2", "no.such", "\x1b[2J")] {
            let delivery = Delivery { message_id: Some(id.into()), ..Delivery::local(exchange, "a.b", body.into()) };
            let at = Timestamp(1_795_245_631);
            let letter = dead::dead_letter(&delivery, ENGINE_EVENTS, "malformed", "line 1", at);
            publisher.publish(letter).await.unwrap();
        }
        let (list, _) = dead(&config, &["list", "-n", "1"]).await;
        assert_eq!(list, "2026-11-21 07:20:31Z  m1  malformed  a.b  7 bytes  line 1\nand 1 more (-n 2 shows all)\n");
        let (json, _) = dead(&config, &["show", "m1", "--json"]).await;
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (&json["body"]["a"], &json["origin"], &json["at"]),
            (&1.into(), &"Engine_events".into(), &1_795_245_631.into())
        );
        let (shown, _) = dead(&config, &["show", "m2"]).await;
        assert!(shown.contains("exchange     no.such\n") && !shown.contains('\x1b'), "{shown}");
        assert_eq!(dead(&config, &["show", "m3"]).await.1.unwrap(), "there is no dead letter m3");

        let (replayed, error) = dead(&config, &["replay", "--all"]).await;
        assert_eq!(replayed, "1 sent again\nm2: there is no exchange no.such\n");
        assert_eq!(error.unwrap(), "1 could not be sent again and are still there");
        assert_eq!(dead(&config, &["drop", "m2"]).await, ("1 thrown away\n".to_owned(), None));
        assert_eq!(dead(&config, &["list", "--json"]).await, (String::new(), None));
    }
}
