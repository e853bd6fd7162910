//! Processes that a supervisord started and that no living supervisord looks after any more.
//!
//! A supervisord that is killed leaves its children running, and the next one starts every program a second time.
//! Children are known by their environment, which supervisord marks with its socket and their name.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;
use tokio::time::Instant;

use crate::api::{ProcessInfo, ProcessName, Supervisor, SupervisorError};

/// How often it is looked whether a process has ended.
const POLL: Duration = Duration::from_millis(20);
/// Our own programs end by themselves when their supervisord dies; a second SIGTERM would make them give up what they
/// are finishing, so they get this long before the first.
const GRACE: Duration = Duration::from_secs(1);
/// Ending a process can set its children free, which are then ended, too: at most so often.
const MAX_ROUNDS: usize = 5;

/// Says why a process is looked after by nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StrayKind {
    /// Its supervisord is dead.
    Orphan,
    /// Its supervisord lives, and the service it belonged to has ended or was started anew.
    Leftover,
}

/// Is a process that is looked after by nobody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stray {
    /// Its process id.
    pub pid: i32,
    /// When it was started, in clock ticks since the machine was: tells it from a later process of the same number.
    #[serde(skip)]
    pub started: u64,
    /// Which service it was started as.
    pub service: ProcessName,
    /// Its command line.
    pub command: String,
    /// Why it is looked after by nobody.
    pub kind: StrayKind,
    /// Whether the same service also runs under supervisord.
    pub duplicate: bool,
}

/// Is a process that carries the mark of our supervisord.
#[derive(Debug, Clone)]
struct Marked {
    pid: i32,
    service: ProcessName,
}

#[derive(Debug, Clone, Copy)]
struct Stat {
    parent: i32,
    started: u64,
    zombie: bool,
}

/// Finds the strays of the supervisord on `socket`: the topmost process of each tree.
///
/// `supervisord` is the process id of the one that lives, if one does, and `infos` what it looks after.
#[must_use]
pub fn find_strays(socket: &Path, supervisord: Option<i32>, infos: &[ProcessInfo]) -> Vec<Stray> {
    let (stats, marked) = scan(socket);
    let ours: HashSet<i32> = marked.iter().map(|m| m.pid).collect();
    let own_line = ancestors(i32::try_from(std::process::id()).unwrap_or_default(), &stats);
    let alive_since = supervisord.and_then(|pid| stats.get(&pid)).map(|stat| stat.started);
    let mut strays = Vec::new();
    for Marked { pid, service } in &marked {
        let Some(stat) = stats.get(pid).filter(|stat| !stat.zombie) else { continue };
        let line = ancestors(*pid, &stats);
        let supervised = supervisord.is_some_and(|daemon| line.contains(&daemon));
        // Children of a stray go with it.
        let topmost = !line.iter().skip(1).any(|ancestor| ours.contains(ancestor));
        if supervised || !topmost || own_line.contains(pid) {
            continue;
        }
        let current = infos.iter().find(|i| i.name == *service && i.state.has_process());
        let current_since = current.and_then(|i| i.pid).and_then(|pid| stats.get(&pid)).map(|stat| stat.started);
        let kind = match (alive_since, current_since) {
            (None, _) => StrayKind::Orphan,
            (Some(daemon), _) if stat.started < daemon => StrayKind::Orphan,
            // A program that runs may keep helpers that left its tree; those of an earlier run are left over.
            (Some(_), Some(since)) if stat.started >= since => continue,
            (Some(_), _) => StrayKind::Leftover,
        };
        let (started, service, command) = (stat.started, service.clone(), command_line(*pid));
        strays.push(Stray { pid: *pid, started, service, command, kind, duplicate: current.is_some() });
    }
    strays.sort_by(|a, b| (&a.service, a.pid).cmp(&(&b.service, b.pid)));
    strays
}

/// Tells why strays could not be ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReapError {
    /// supervisord, which has to say what it looks after, does not answer.
    #[error(transparent)]
    Call(#[from] SupervisorError),
    /// These do not end.
    #[error("{} processes do not end", .0.len())]
    Left(Vec<Stray>),
}

/// Ends the strays of a socket that do not end by themselves: SIGTERM, and SIGKILL for what has not ended after
/// `patience` of its service. Returns those that were ended.
///
/// A supervisord may come up while this runs, and its programs are spared; callers hold
/// [`Layout::daemon_lock`](crate::Layout::daemon_lock) all the same, so that nothing is started beside a stray.
///
/// # Errors
/// When supervisord does not answer, or some could not be ended.
pub async fn reap(
    socket: &Path,
    supervisor: &dyn Supervisor,
    patience: impl Fn(&ProcessName) -> Duration,
) -> Result<Vec<Stray>, ReapError> {
    let mut ended = Vec::new();
    let patient_until = Instant::now() + GRACE;
    for stray in find_confirmed(socket, async || ask(supervisor).await).await? {
        wait_until_gone(&stray, patient_until).await;
        if !is_alive(&stray) {
            ended.push(stray);
        }
    }
    for _ in 0..MAX_ROUNDS {
        let strays = find_confirmed(socket, async || ask(supervisor).await).await?;
        if strays.is_empty() {
            return Ok(ended);
        }
        for stray in &strays {
            send(stray, Signal::SIGTERM);
        }
        let begun = Instant::now();
        for stray in &strays {
            wait_until_gone(stray, begun + patience(&stray.service)).await;
        }
        for stray in strays.iter().filter(|stray| is_alive(stray)) {
            send(stray, Signal::SIGKILL);
            wait_until_gone(stray, Instant::now() + Duration::from_secs(2)).await;
        }
        ended.extend(strays.into_iter().filter(|stray| !is_alive(stray)));
    }
    let left = find_confirmed(socket, async || ask(supervisor).await).await?;
    if left.is_empty() { Ok(ended) } else { Err(ReapError::Left(left)) }
}

/// Finds strays that may be killed: supervisord was asked who it is after each of them had been seen.
///
/// A process that is started between the question and the look at the process table seems to be a stray. Whoever
/// started it answers the second question, which is asked when it is known already; and a process that is a stray
/// once stays one.
async fn find_confirmed(
    socket: &Path,
    ask: impl AsyncFn() -> Result<Supervised, SupervisorError>,
) -> Result<Vec<Stray>, SupervisorError> {
    let (daemon, infos) = ask().await?;
    let seen = find_strays(socket, daemon, &infos);
    if seen.is_empty() {
        return Ok(seen);
    }
    let (daemon, infos) = ask().await?;
    let mut strays = find_strays(socket, daemon, &infos);
    strays.retain(|stray| seen.iter().any(|other| (other.pid, other.started) == (stray.pid, stray.started)));
    Ok(strays)
}

/// The process id of the supervisord that lives, if one does, and what it looks after.
type Supervised = (Option<i32>, Vec<ProcessInfo>);

async fn ask(supervisor: &dyn Supervisor) -> Result<Supervised, SupervisorError> {
    let pid = match supervisor.identity().await {
        Ok(identity) => identity.pid,
        Err(error) if error.is_not_running() => return Ok((None, Vec::new())),
        Err(error) => return Err(error),
    };
    match supervisor.processes().await {
        Ok(infos) => Ok((Some(pid), infos)),
        Err(error) if error.is_not_running() => Ok((None, Vec::new())),
        Err(error) => Err(error),
    }
}

async fn wait_until_gone(stray: &Stray, deadline: Instant) {
    while is_alive(stray) && Instant::now() < deadline {
        tokio::time::sleep(POLL).await;
    }
}

/// Whether the process is still there and still the same.
fn is_alive(stray: &Stray) -> bool {
    is_running(stray.pid, Some(stray.started))
}

fn send(stray: &Stray, signal: Signal) {
    if is_alive(stray) {
        // It may end in between; that is what the signal is for.
        let _ = kill(Pid::from_raw(stray.pid), signal);
    }
}

/// When the process was started, in clock ticks since the machine was; `None` when there is none.
#[must_use]
pub fn started_ticks(pid: i32) -> Option<u64> {
    read_stat(pid).map(|stat| stat.started)
}

/// Whether process `pid` is there, not ended, and the one that was started at `started` ticks.
#[must_use]
pub fn is_running(pid: i32, started: Option<u64>) -> bool {
    read_stat(pid).is_some_and(|stat| !stat.zombie && started.is_none_or(|at| at == stat.started))
}

/// How long ago the process was started.
#[must_use]
pub fn age_of(pid: i32) -> Option<Duration> {
    /// USER_HZ, which Linux fixes at 100 for all that it reports to programs.
    const TICKS_PER_SECOND: u64 = 100;
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let (seconds, hundredths) = uptime.split(' ').next()?.split_once('.')?;
    let now = seconds.parse::<u64>().ok()? * TICKS_PER_SECOND + hundredths.parse::<u64>().ok()?;
    Some(Duration::from_millis(now.saturating_sub(started_ticks(pid)?) * 1000 / TICKS_PER_SECOND))
}

fn scan(socket: &Path) -> (HashMap<i32, Stat>, Vec<Marked>) {
    let mut stats = HashMap::new();
    let mut marked = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Some(stat) = read_stat(pid) else { continue };
        stats.insert(pid, stat);
        // Not readable for processes of other users: those are not ours.
        let Ok(environ) = fs::read(entry.path().join("environ")) else { continue };
        if let Some(service) = mark_of(&environ, socket) {
            marked.push(Marked { pid, service });
        }
    }
    (stats, marked)
}

/// The name that our supervisord gave to a process with this environment.
fn mark_of(environ: &[u8], socket: &Path) -> Option<ProcessName> {
    let mut variables = HashMap::new();
    for variable in environ.split(|b| *b == 0) {
        if let Some(rest) = variable.strip_prefix(b"SUPERVISOR_")
            && let Some((name, value)) = std::str::from_utf8(rest).ok()?.split_once('=')
        {
            variables.insert(name, value);
        }
    }
    let url = variables.get("SERVER_URL")?.strip_prefix("unix://")?;
    same_socket(Path::new(url), socket).then_some(())?;
    Some(ProcessName::new(*variables.get("GROUP_NAME")?, *variables.get("PROCESS_NAME")?))
}

fn same_socket(one: &Path, other: &Path) -> bool {
    // The socket itself may be gone: its folder tells.
    let real = |path: &Path| Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
    one == other || (one.file_name() == other.file_name() && real(one).is_some_and(|r| Some(r) == real(other)))
}

/// A process and its ancestors, itself first.
fn ancestors(pid: i32, stats: &HashMap<i32, Stat>) -> Vec<i32> {
    let mut line = vec![pid];
    let mut at = pid;
    while let Some(stat) = stats.get(&at) {
        // Numbers may be reused while /proc is read: no going round in circles.
        if stat.parent <= 1 || line.contains(&stat.parent) {
            break;
        }
        at = stat.parent;
        line.push(at);
    }
    line
}

fn read_stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The second field is the command's name in parentheses, with any character in it.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    Some(Stat { parent, started, zombie: matches!(state, "Z" | "X") })
}

fn command_line(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = bytes.split(|b| *b == 0).filter(|word| !word.is_empty());
    let line = words.map(String::from_utf8_lossy).collect::<Vec<_>>().join(" ");
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).take(100).collect()
}

#[cfg(test)]
mod tests;
