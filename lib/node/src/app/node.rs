//! The life of a node.

use std::cell::RefCell;
use std::net::SocketAddrV4;
use std::rc::Rc;
use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use overstory_model::{Clock, SystemClock};

use super::life::{Life, never};
use super::{NodeContext, NodeProgram};
use crate::config::sections::ServerSection;
use crate::config::{Config, ConfigError};
use crate::control::ControlSocket;
use crate::control::credentials::{self, CredentialCommands};
use crate::data_lock::DataLock;
use crate::server::{Listeners, Server, ServerConfig};
use crate::stats::NodeStats;
use crate::watch::node::NodeSubject;
use crate::watch::{Identity, Phase};

/// What the configuration says about a node.
pub(super) struct Plan<S> {
    server: ServerSection,
    neo_port: u16,
    config_file: std::path::PathBuf,
    settings: S,
}

impl<S> Plan<S> {
    pub(super) fn read<P: NodeProgram<Settings = S>>(config: &Config) -> Result<Self, ConfigError> {
        let server = ServerSection::read(config)?;
        // A free port has no port beside it.
        let neo_port = if server.port == 0 { 0 } else { P::neo_port(config, server.port)? };
        Ok(Self { server, neo_port, config_file: config.file().to_owned(), settings: P::check(config)? })
    }
}

pub(super) async fn live<P: NodeProgram>(mut life: Life, plan: Plan<P::Settings>) -> anyhow::Result<()> {
    let Plan { server, neo_port, config_file, settings } = plan;
    let credentials = credentials::load(&server.credentials_path).map_err(anyhow::Error::msg)?;
    let credentials = Rc::new(RefCell::new(credentials));
    let config = server_config(&server, neo_port);
    allow_files(u64::from(server.connection_limit) + P::files(&settings));
    let listeners = Listeners::bind(&config)?;
    let legacy = listeners.legacy_address();
    let neo = listeners.neo_address()?;
    let socket = ControlSocket::bind(&server.unix_socket_path, None)?;
    tracing::info!(
        target: "node.main",
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        legacy = legacy.map_or_else(|| "off".to_owned(), |address| address.to_string()),
        %neo,
        "listening"
    );
    let port = legacy.map_or(server.port, |address| address.port());
    let instance = life.plan.report.instance.clone();
    let running = life.start(Identity {
        program: P::NAME,
        kind: P::TYPE,
        connector_name: P::TYPE,
        instance: instance.clone(),
        group: life.plan.report.group.clone().unwrap_or_else(|| P::TYPE.to_owned()),
        host: life.host.clone(),
        address: Some(server.address.to_string()),
        port: Some(port),
        neo_port: Some(neo.port()),
        connection_limit: Some(server.connection_limit.into()),
        started: SystemClock.now().secs(),
        interval_s: life.plan.report.interval.as_secs(),
    })?;
    let data = DataLock::acquire(&server.data_dir);
    let stats = Rc::new(NodeStats::new::<P::Engine>());
    let context = NodeContext {
        stats: Rc::clone(&stats),
        shutdown: life.shutdown.clone(),
        config_file,
        address: server.address,
        port,
        neo_port: neo.port(),
        data_dir: server.data_dir.clone(),
        instance,
    };
    let commands = CredentialCommands { path: server.credentials_path.clone(), credentials: Rc::clone(&credentials) };
    let commanding = async {
        socket.serve(commands).await;
        never().await
    };
    let work = async {
        // Held until everything is saved.
        let _data = data?;
        let engine = tokio::select! {
            biased;
            () = life.shutdown.requested() => {
                tracing::info!(target: "node.main", "asked to stop before the data was loaded");
                return Ok(());
            }
            engine = P::open(settings, context) => engine?,
        };
        running.begin();
        let limit = server.connection_limit.into();
        let mut subject = NodeSubject::new(Rc::clone(&engine), Rc::clone(&stats), limit);
        let serve = async {
            let clock: Arc<dyn Clock> = Arc::new(SystemClock);
            let server = Server { config, engine: Rc::clone(&engine), stats, credentials, clock };
            let drained = server.run(listeners, &life.shutdown).await;
            life.phase.set(Phase::Stopping);
            if drained.cut_off > 0 {
                tracing::warn!(target: "node.main", connections = drained.cut_off, "cut off while they were answered");
            }
            tracing::info!(target: "node.main", "saving");
            P::close(engine).await
        };
        let ended = tokio::select! {
            ended = serve => ended,
            never = running.watch(&mut subject) => match never {},
        };
        running.last(&mut subject, false).await;
        ended
    };
    let ended = tokio::select! {
        ended = work => ended,
        never = commanding => match never {},
    };
    running.end(ended).await
}

fn server_config(server: &ServerSection, neo_port: u16) -> ServerConfig {
    let legacy = server.legacy.then(|| SocketAddrV4::new(server.legacy_address, server.port));
    let mut config = ServerConfig::new(legacy, SocketAddrV4::new(server.address, neo_port));
    config.backlog = server.backlog;
    config.connection_limit = usize::try_from(server.connection_limit).unwrap_or(usize::MAX);
    config.limits.max_unsent_bytes = server.max_unsent_bytes;
    config.limits.write_stall = server.unsent_timeout;
    config
}

/// Raises the limit of open files as far as the system lets this process, and says when that is not enough.
fn allow_files(wanted: u64) {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let allowed = soft.max(wanted.min(hard));
        setrlimit(Resource::RLIMIT_NOFILE, allowed, hard).map(|()| allowed)
    });
    match raised {
        Ok(allowed) if allowed < wanted => {
            tracing::warn!(target: "node.main", allowed, wanted, "not enough open files for so many connections: raise LimitNOFILE");
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(target: "node.main", %error, "cannot raise the limit of open files"),
    }
}
