//! `overstory-bench startup`: how long the stack takes to be ready, next to its broker alone, and what asking costs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::Setting;
use crate::figure::{Figure, Target};
use crate::process;

/// A broker that has not come up by then will not.
const DEADLINE: Duration = Duration::from_secs(120);

/// Measures an installation that this bench may stop and start.
pub(crate) fn run(setting: &Setting, prefix: &Path) -> anyhow::Result<Vec<Figure>> {
    let prefix = Prefix { root: prefix.to_owned() };
    ensure!(prefix.program("hypcontrol").exists(), "{} is no installation", prefix.root.display());
    prefix.call("hypcontrol", &["stop"])?;
    let (mut whole, mut broker) = (Vec::new(), Vec::new());
    for _ in 0..setting.runs {
        whole.push(prefix.timed("hypcontrol", &["start"])?);
        prefix.call("hypcontrol", &["stop"])?;
        broker.push(prefix.broker_alone()?);
        prefix.call("hypcontrol", &["stop"])?;
    }
    let more: Vec<f64> = whole.iter().zip(&broker).map(|(whole, broker)| whole - broker).collect();
    prefix.call("hypcontrol", &["start"])?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..setting.runs {
        ours.push(prefix.timed("service", &["webserver", "status"])? * 1000.0);
        theirs.push(prefix.supervisorctl()? * 1000.0);
    }
    prefix.call("hypcontrol", &["stop"])?;
    Ok(vec![
        Figure::paired("hypcontrol start, cold to ready", "s", &whole, "its broker alone, to AMQP", &broker, None),
        Figure::alone("the same, beyond the broker alone", "s", &more, Some(Target::AtMost(3.0))),
        Figure::paired(
            "service webserver status",
            "ms",
            &ours,
            "supervisorctl status",
            &theirs,
            Some(Target::AtMost(20.0)),
        ),
    ])
}

struct Prefix {
    root: PathBuf,
}

impl Prefix {
    fn program(&self, name: &str) -> PathBuf {
        self.root.join("bin").join(name)
    }

    fn call(&self, program: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let output = Command::new(self.program(program)).args(arguments).stdin(Stdio::null()).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "{program} {arguments:?}: {}\n{text}", output.status);
        Ok(())
    }

    fn timed(&self, program: &str, arguments: &[&str]) -> anyhow::Result<f64> {
        let start = Instant::now();
        self.call(program, arguments)?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// Starts supervisord and the broker, and waits for nothing but its answer to an AMQP greeting.
    fn broker_alone(&self) -> anyhow::Result<f64> {
        let file = self.root.join("etc/amqp.conf");
        let text = std::fs::read_to_string(&file)?;
        let port = text.lines().find_map(|line| line.strip_prefix("port")).context("amqp.conf has no port")?;
        let port: u16 = port.trim_start_matches([' ', '=']).split_whitespace().next().context("no port")?.parse()?;
        let start = Instant::now();
        self.call("service", &["rabbitmq-server", "start"])?;
        while !answers_amqp(port) {
            if start.elapsed() > DEADLINE {
                bail!("the broker did not answer within {DEADLINE:?}");
            }
            process::pause(Duration::from_millis(20));
        }
        Ok(start.elapsed().as_secs_f64())
    }

    fn supervisorctl(&self) -> anyhow::Result<f64> {
        let start = Instant::now();
        let status = Command::new("supervisorctl")
            .arg("-c")
            .arg(self.root.join("etc/supervisord.conf"))
            .args(["status", "webserver"])
            .stdout(Stdio::null())
            .status()?;
        ensure!(status.success(), "supervisorctl status: {status}");
        Ok(start.elapsed().as_secs_f64())
    }
}

fn answers_amqp(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    let mut first = [0];
    stream.write_all(b"AMQP\x00\x00\x09\x01").is_ok() && stream.read_exact(&mut first).is_ok() && first == [1]
}
