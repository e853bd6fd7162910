//! The real RabbitMQ of Debian, in a directory of its own, with an epmd and ports of its own.
//!
//! Starting one takes ten seconds, so all tests of a run share one, each in a virtual host of its own
//! ([`shared`]). Tests that stop, kill or throttle the broker take turns with another one ([`PrivateBroker`]). In both
//! cases a small process beside the tests keeps the broker and ends it, with its files, when the tests are gone,
//! however they went.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use overstory_amqp::AmqpConfig;
use overstory_runtime::lock::FileLock;

use crate::ports::{claim, free_port};

const KEEPER: &str = include_str!("broker/keeper.sh");
const CTL: &str = "/usr/lib/rabbitmq/bin/rabbitmqctl";
/// How long a broker may take to answer, on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// Virtual hosts that the shared broker begins with, and that any broker is given more of at a time.
const VHOSTS: u32 = 128;
/// Virtual hosts that the other broker begins with: fewer, since each start opens them all.
const FEW_VHOSTS: u32 = 16;
const USER: &str = "overstory";
const PASSWORD: &str = "test";
/// `PASSWORD` as the broker keeps it: base64 of a salt and the SHA-256 of salt and password.
const PASSWORD_HASH: &str = "c2FsdBvBo2HxcJK8evSy+Cv5GU6p7iyknrLlPjn1Vbwe6u10";

/// Gives a fresh virtual host on the broker that all tests of this run share, starting it if need be. Blocks.
///
/// # Errors
/// RabbitMQ is not installed or does not start.
pub fn shared() -> Result<AmqpConfig> {
    let (dir, lock_path) = place("shared")?;
    let _lock = FileLock::acquire(&lock_path).context("the shared broker's lock")?;
    let node = match Node::running(&dir) {
        Some(node) => node,
        None => Node::start(&dir, &lock_path, VHOSTS)?,
    };
    node.lease()?;
    node.wait_until_ready()?;
    node.next_vhost()
}

/// Where the broker for this purpose is kept, and the lock that guards it.
fn place(purpose: &str) -> Result<(PathBuf, PathBuf)> {
    // Keyed by the sources that it is made from: two checkouts, or two versions of the keeper, do not meet.
    let key = crc(&[env!("CARGO_MANIFEST_DIR").as_bytes(), KEEPER.as_bytes(), &VHOSTS.to_be_bytes()]);
    let user = fs::metadata("/proc/self").context("/proc")?.uid();
    let dir = PathBuf::from(format!("/tmp/overstory-broker-{user}-{purpose}-{key:08x}"));
    let lock = dir.with_extension("lock");
    Ok((dir, lock))
}

/// A broker that one test at a time has for itself. Whatever the test does to it, the next one finds it well, or gets
/// a new one.
#[derive(Debug)]
pub struct PrivateBroker {
    node: Node,
    dir: PathBuf,
    _lock: FileLock,
}

impl PrivateBroker {
    /// Waits for its turn, starts the broker if need be, and waits until it answers. Blocks.
    ///
    /// # Errors
    /// RabbitMQ is not installed or does not start.
    pub fn start() -> Result<Self> {
        let (dir, lock_path) = place("private")?;
        let lock = FileLock::acquire(&lock_path).context("the private broker's lock")?;
        // The mark stays when a test fails or is killed; nobody knows then what it left behind.
        let well = !dir.join("in-use").exists();
        let node = match Node::running(&dir) {
            Some(node) if well => node,
            Some(node) => {
                node.end();
                Node::start(&dir, &lock_path, FEW_VHOSTS)?
            }
            None => Node::start(&dir, &lock_path, FEW_VHOSTS)?,
        };
        node.lease()?;
        fs::write(dir.join("in-use"), "")?;
        let broker = Self { node, dir, _lock: lock };
        broker.node.wait_until_ready()?;
        Ok(broker)
    }

    /// A fresh virtual host on it.
    ///
    /// # Errors
    /// Its files cannot be written.
    pub fn vhost(&self) -> Result<AmqpConfig> {
        self.node.next_vhost()
    }

    /// Kills the broker as a crash would; it stays down until [`Self::start_again`].
    ///
    /// # Errors
    /// It was not running.
    pub async fn kill(&self) -> Result<()> {
        self.end("-9").await
    }

    /// Stops the broker as an operator would; it stays down until [`Self::start_again`].
    ///
    /// # Errors
    /// It was not running.
    pub async fn stop(&self) -> Result<()> {
        self.end("-TERM").await
    }

    /// The broker's process.
    ///
    /// # Errors
    /// It does not run.
    pub fn pid(&self) -> Result<u32> {
        let pid = fs::read_to_string(self.dir.join("beam.pid")).context("the broker does not run")?;
        Ok(pid.trim().parse()?)
    }

    async fn end(&self, signal: &str) -> Result<()> {
        fs::write(self.dir.join("wanted"), "down")?;
        let pid = self.pid()?.to_string();
        let killed = tokio::process::Command::new("kill").args([signal, &pid]).status().await?;
        ensure!(killed.success(), "cannot kill the broker");
        self.until("the broker to end", || !self.dir.join("beam.pid").exists()).await
    }

    /// Starts the broker again with its data and waits until it answers.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn start_again(&self) -> Result<()> {
        fs::write(self.dir.join("wanted"), "up")?;
        self.until("the broker to answer", || answers(self.node.amqp_port)).await
    }

    async fn until(&self, what: &str, done: impl Fn() -> bool) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        while !done() {
            ensure!(Instant::now() < deadline, "waited in vain for {what}\n{}", self.node.logs());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Sends a signal to the broker's process, for example `-STOP`.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal(&self, signal: &str) -> Result<()> {
        let pid = self.pid()?.to_string();
        ensure!(Command::new("kill").args([signal, &pid]).status()?.success(), "cannot signal the broker");
        Ok(())
    }

    /// The port on which the broker speaks TLS, and its certificate, which is its own authority.
    ///
    /// # Errors
    /// Its files cannot be read.
    pub fn tls(&self) -> Result<(u16, PathBuf)> {
        let port = fs::read_to_string(self.dir.join("tls-port"))?.parse()?;
        Ok((port, self.dir.join("etc/certificate.pem")))
    }

    /// Runs `rabbitmqctl` and gives what it prints.
    ///
    /// # Errors
    /// It fails.
    pub async fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = tokio::process::Command::from(self.node.ctl());
        let output = command.args(arguments).output().await?;
        ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for PrivateBroker {
    fn drop(&mut self) {
        // Left down, the broker would keep the next test waiting; left otherwise unwell, the test has failed.
        if !std::thread::panicking() && self.dir.join("beam.pid").exists() {
            let _ = fs::remove_file(self.dir.join("in-use"));
        }
    }
}

/// A broker's directory and ports.
#[derive(Debug)]
struct Node {
    dir: PathBuf,
    keeper: u32,
    amqp_port: u16,
    epmd_port: u16,
}

impl Node {
    /// The node that is kept in `dir`, if its keeper lives.
    fn running(dir: &Path) -> Option<Self> {
        let text = fs::read_to_string(dir.join("node")).ok()?;
        let mut numbers = text.split_whitespace().map(str::parse::<u32>);
        let mut number = || numbers.next()?.ok();
        let (keeper, amqp, epmd) = (number()?, number()?, number()?);
        let command_line = fs::read(format!("/proc/{keeper}/cmdline")).ok()?;
        let alive = String::from_utf8_lossy(&command_line).contains(dir.to_str()?);
        let (amqp_port, epmd_port) = (u16::try_from(amqp).ok()?, u16::try_from(epmd).ok()?);
        alive.then(|| Self { dir: dir.to_owned(), keeper, amqp_port, epmd_port })
    }

    /// Makes the directory and starts the keeper, which starts the broker.
    fn start(dir: &Path, lock: &Path, vhosts: u32) -> Result<Self> {
        ensure!(Path::new(CTL).exists(), "RabbitMQ is missing: apt-get install rabbitmq-server ({CTL})");
        if dir.exists() {
            fs::remove_dir_all(dir)?;
        }
        for folder in ["etc", "log", "lib", "leases"] {
            fs::create_dir_all(dir.join(folder))?;
        }
        let [amqp_port, epmd_port, dist_port, tls_port] = std::array::from_fn(|_| free_port());
        let at = dir.display();
        let mut conf = format!(
            "listeners.tcp.1 = 127.0.0.1:{amqp_port}\nlog.file = {at}/log/rabbit.log\nlog.file.level = info\n\
             log.console = false\ndefinitions.import_backend = local_filesystem\n\
             definitions.local.path = {at}/etc/definitions.json\nvm_memory_high_watermark.absolute = 1GB\n\
             disk_free_limit.absolute = 50MB\n"
        );
        if vhosts == FEW_VHOSTS {
            make_certificate(&dir.join("etc"))?;
            fs::write(dir.join("tls-port"), tls_port.to_string())?;
            conf += &format!(
                "listeners.ssl.1 = 127.0.0.1:{tls_port}\nssl_options.cacertfile = {at}/etc/certificate.pem\n\
                 ssl_options.certfile = {at}/etc/certificate.pem\nssl_options.keyfile = {at}/etc/key.pem\n\
                 ssl_options.verify = verify_none\n"
            );
        }
        fs::write(dir.join("etc/rabbitmq.conf"), conf)?;
        fs::write(dir.join("etc/env.conf"), "")?;
        fs::write(dir.join("etc/enabled_plugins"), "[].")?;
        fs::write(dir.join("etc/definitions.json"), definitions(vhosts).to_string())?;
        fs::write(dir.join("wanted"), "up")?;
        fs::write(dir.join("vhosts"), format!("0 {vhosts}"))?;
        fs::write(dir.join("keeper.sh"), KEEPER)?;
        let log = fs::File::create(dir.join("log/keeper"))?;
        let lease = dir.join("leases").join(std::process::id().to_string());
        fs::write(lease, runner())?;
        // In a group of its own, so that what ends the tests does not end it before it has tidied up.
        let keeper = Command::new("bash")
            .arg(dir.join("keeper.sh"))
            .arg(dir)
            .arg(lock)
            .args([amqp_port, epmd_port, dist_port].map(|port| port.to_string()))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .context("cannot start bash")?
            .id();
        fs::write(dir.join("node"), format!("{keeper} {amqp_port} {epmd_port}"))?;
        Ok(Self { dir: dir.to_owned(), keeper, amqp_port, epmd_port })
    }

    /// Ends the keeper, and the broker with it.
    fn end(&self) {
        let _ = Command::new("kill").arg(self.keeper.to_string()).status();
        let deadline = Instant::now() + START_TIMEOUT;
        while Self::running(&self.dir).is_some() && Instant::now() < deadline {
            nap();
        }
    }

    /// Notes that this process uses the broker, and claims its port for the time when the broker is down.
    fn lease(&self) -> Result<()> {
        claim(self.amqp_port);
        let lease = self.dir.join("leases").join(std::process::id().to_string());
        fs::write(lease, runner()).context("the shared broker's leases")
    }

    fn wait_until_ready(&self) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        while !answers(self.amqp_port) {
            if Instant::now() > deadline {
                bail!("the broker does not answer\n{}", self.logs());
            }
            nap();
        }
        Ok(())
    }

    fn next_vhost(&self) -> Result<AmqpConfig> {
        let path = self.dir.join("vhosts");
        let text = fs::read_to_string(&path)?;
        let (used, made) = text.split_once(' ').context("the vhosts file")?;
        let (used, mut made): (u32, u32) = (used.parse()?, made.trim().parse()?);
        if used >= made {
            self.make_vhosts(made, made + VHOSTS)?;
            made += VHOSTS;
        }
        fs::write(path, format!("{} {made}", used + 1))?;
        Ok(AmqpConfig {
            port: self.amqp_port,
            vhost: format!("t{used}"),
            user: USER.to_owned(),
            password: PASSWORD.to_owned(),
            heartbeat: Duration::from_secs(2),
            ..AmqpConfig::default()
        })
    }

    fn make_vhosts(&self, from: u32, to: u32) -> Result<()> {
        let expression = format!(
            "[begin V = list_to_binary(\"t\" ++ integer_to_list(I)), rabbit_vhost:add(V, <<\"test\">>), \
             rabbit_auth_backend_internal:set_permissions(<<\"{USER}\">>, V, <<\".*\">>, <<\".*\">>, <<\".*\">>, \
             <<\"test\">>) end || I <- lists:seq({from}, {})].",
            to - 1
        );
        let output = self.ctl().args(["eval", &expression]).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    fn ctl(&self) -> Command {
        let mut command = Command::new(CTL);
        command
            .env("HOME", self.dir.join("lib"))
            .env("LANG", "C.UTF-8")
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .env("RABBITMQ_CONF_ENV_FILE", self.dir.join("etc/env.conf"))
            .env("RABBITMQ_NODENAME", format!("t{}@localhost", self.amqp_port));
        command
    }

    fn logs(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.dir.join("log").join(name)).unwrap_or_default();
        let rabbit = read("rabbit.log");
        let end = rabbit.lines().rev().take(20).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n");
        format!("{}{}{end}", read("keeper"), read("out"))
    }
}

/// Between two looks at another process.
#[expect(clippy::disallowed_methods, reason = "a condition with a deadline, before the test does anything")]
fn nap() {
    std::thread::sleep(Duration::from_millis(50));
}

/// The pid of the program that runs the tests, which outlives them one by one.
fn runner() -> String {
    let parent = std::os::unix::process::parent_id().to_string();
    let name = fs::read_to_string(format!("/proc/{parent}/comm")).unwrap_or_default();
    if name.starts_with("cargo") { parent } else { String::new() }
}

fn definitions(vhosts: u32) -> serde_json::Value {
    let names: Vec<String> = (0..vhosts).map(|number| format!("t{number}")).collect();
    serde_json::json!({
        "users": [{
            "name": USER, "password_hash": PASSWORD_HASH,
            "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": "",
        }],
        "vhosts": names.iter().map(|name| serde_json::json!({"name": name})).collect::<Vec<_>>(),
        "permissions": names.iter().map(|name| serde_json::json!({
            "user": USER, "vhost": name, "configure": ".*", "write": ".*", "read": ".*",
        })).collect::<Vec<_>>(),
    })
}

/// Makes a key and a certificate for `localhost` and `127.0.0.1` that is its own authority.
fn make_certificate(dir: &Path) -> Result<()> {
    let made = Command::new("openssl")
        .current_dir(dir)
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", "key.pem", "-out", "certificate.pem"])
        .output()
        .context("openssl is missing: apt-get install openssl")?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Ok(())
}

/// Whether an AMQP server answers the protocol's greeting.
fn answers(port: u16) -> bool {
    let probe = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"AMQP\x00\x00\x09\x01")?;
        let mut first = [0];
        stream.read_exact(&mut first)?;
        Ok(first[0] == 1)
    };
    probe().unwrap_or(false)
}

/// A short name for these bytes.
fn crc(parts: &[&[u8]]) -> u32 {
    // FNV-1a: nobody attacks a test's directory name.
    parts.concat().iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}
