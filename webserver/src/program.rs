//! The program `webserver`: command line, wiring, drain.

use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use actix_web::web;
use clap::Parser;
use overstory_amqp::{AmqpConfig, Publisher, PublisherOptions, SpoolOptions};
use overstory_client::GroupFiles;
use overstory_model::{Clock, SystemClock, permission};
use overstory_runtime::admin::{self, Ready};
use overstory_runtime::backoff::Backoff;
use overstory_runtime::config::ConfigError;
use overstory_runtime::program::{self, BodyResult, Flavor, chain};
use overstory_runtime::prometheus::Registry;
use overstory_runtime::{Home, Shutdown};
use overstory_store::config::{StoreConfig, StoreKind};
use overstory_store::open::{WebSide, open_web};
use overstory_store::{Accounts, StoreError};

use crate::archive::ArchiveNow;
use crate::archive::nodes::GroupArchive;
use crate::broker::AmqpWatch;
use crate::config::{self, Settings};
use crate::metrics::Metrics;
use crate::routes::events::search_time;
use crate::state::{AppState, Ports, Stores};
use crate::supervised::PrefixServices;
use crate::{engines, openapi, server};

/// Threads for everything but the handlers.
const RUNTIME_THREADS: usize = 2;
/// How often readiness and gauges are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often ended sessions are removed.
const SWEEP_EVERY: Duration = Duration::from_secs(600);
/// How long spooled and unconfirmed events may take at the end.
const FLUSH_DEADLINE: Duration = Duration::from_secs(5);
/// The condition of readiness.
const STORE: &str = "store";

/// The REST API of Overstory.
#[derive(Debug, Parser)]
#[command(name = "webserver", version)]
struct Cli {
    /// Where to listen.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8082")]
    listen: SocketAddr,
    /// Read the configuration, say what is wrong with it, and end.
    #[arg(long)]
    check_config: bool,
    /// Print the OpenAPI document and end.
    #[arg(long)]
    openapi: bool,
}

struct Configuration {
    settings: Settings,
    amqp: AmqpConfig,
    store: StoreConfig,
    archive: Option<GroupFiles>,
}

/// Runs the web server.
#[must_use]
pub fn run(args: Vec<OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing can be done about a terminal that is gone.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    if cli.openapi {
        print!("{}", openapi::document());
        return ExitCode::SUCCESS;
    }
    let home = Home::find();
    let configuration = match load(&home) {
        Ok(configuration) => configuration,
        Err(error) => {
            eprintln!("webserver: {error}");
            return ExitCode::FAILURE;
        }
    };
    if cli.check_config {
        if let Some(Err(error)) = configuration.archive.as_ref().map(GroupFiles::read) {
            eprintln!("webserver: warning: {}: the archive has no nodes: {error}", config::FILE);
        }
        println!("webserver: the configuration is fine");
        return ExitCode::SUCCESS;
    }
    program::run("webserver", Flavor::MultiThread(RUNTIME_THREADS), |shutdown| {
        serve(home, cli.listen, configuration, shutdown)
    })
}

fn load(home: &Home) -> Result<Configuration, ConfigError> {
    let settings = Settings::load(home)?;
    Ok(Configuration {
        archive: settings.archive.as_ref().map(|archive| archive.files(home)),
        settings,
        amqp: AmqpConfig::load(home)?,
        store: StoreConfig::load(home, &[])?,
    })
}

async fn serve(home: Home, address: SocketAddr, configuration: Configuration, shutdown: Shutdown) -> BodyResult {
    let Configuration { settings, amqp, store, archive } = configuration;
    let listener = bind(address)?;
    let (registry, ready) = (Registry::new(), Ready::new(&[STORE]));
    let metrics = Metrics::register(&registry)?;
    admin::start(settings.admin_listen, registry, ready.clone(), shutdown.clone()).await.map_err(|error| {
        format!("{error}; [admin] listen in {} changes it", home.config_file(config::FILE).display())
    })?;
    let Some(stores) = open_store(&store, &home, &shutdown).await? else { return Ok(()) };
    let publisher = start_publisher(&home, &amqp, &settings, shutdown.clone())?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let archive = archive.map(|files| {
        let group = GroupArchive::new(files, search_time(settings.answer_timeout));
        Arc::new(move || group.now()) as ArchiveNow
    });
    let ports = Ports {
        stores: stores.clone(),
        sink: Arc::new(publisher.clone()),
        engines: Arc::new({
            let home = home.clone();
            move || engines::read(&home)
        }),
        archive,
        broker: Arc::new(AmqpWatch::new(amqp)),
        services: Arc::new(PrefixServices::new(home.root().to_owned())),
        clock,
        metrics: metrics.clone(),
    };
    let runtime = tokio::runtime::Handle::current();
    let state = web::Data::new(AppState::new(settings, ports, runtime, ready.clone(), shutdown.clone())?);
    let watch = tokio::spawn(look_after(stores.accounts, ready, publisher.clone(), metrics));
    let sweep = tokio::spawn(sweep(state.clone()));
    tracing::info!(%address, "listening");
    let served = server::serve(listener, state).await;
    watch.abort();
    sweep.abort();
    if let Err(error) = publisher.close(FLUSH_DEADLINE).await {
        tracing::warn!(error = %chain(&error), "events were left unconfirmed");
    }
    Ok(served?)
}

/// Binds the address; the error says where it is set.
fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).map_err(|error| {
        format!("cannot listen on {address}: {error}; --listen in etc/supervisord.d/webserver.conf changes it")
    })
}

/// Opens the store, waiting for one that is away; nothing when stopping was asked for meanwhile.
async fn open_store(config: &StoreConfig, home: &Home, shutdown: &Shutdown) -> Result<Option<Stores>, StoreError> {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    loop {
        match open_web(config, home).await {
            Ok(side) => return Ok(Some(stores(side, config))),
            Err(error) if error.is_retryable() => {
                tracing::warn!(error = %chain(&error), "cannot open the store yet");
            }
            Err(error) => return Err(error),
        }
        tokio::select! {
            () = shutdown.requested() => return Ok(None),
            () = tokio::time::sleep(backoff.next_delay()) => {}
        }
    }
}

fn stores(side: WebSide, config: &StoreConfig) -> Stores {
    let name = match config.kind {
        StoreKind::Embedded { .. } => "SQLite",
        StoreKind::MongoDb { .. } => "MongoDB",
    };
    let WebSide { alarms, entities, metrics, runs, accounts, .. } = side;
    Stores { alarms, entities, metrics, runs, accounts, name }
}

fn start_publisher(
    home: &Home,
    amqp: &AmqpConfig,
    settings: &Settings,
    shutdown: Shutdown,
) -> Result<Publisher, Box<dyn std::error::Error + Send + Sync>> {
    let dir = home.spool_dir();
    make_dir(&dir)?;
    let spool = Some(SpoolOptions { dir, max_bytes: settings.spool_bytes });
    let options = PublisherOptions { spool, ..PublisherOptions::new("webserver") };
    Ok(Publisher::start(amqp.clone(), options, shutdown)?)
}

fn make_dir(dir: &Path) -> Result<(), String> {
    std::fs::create_dir_all(dir).map_err(|error| format!("cannot make {}: {error}", dir.display()))
}

/// Keeps readiness and the gauges of the publisher up to date.
async fn look_after(accounts: Arc<dyn Accounts>, ready: Ready, publisher: Publisher, metrics: Metrics) {
    let mut pace = tokio::time::interval(LOOK_EVERY);
    let mut reported = true;
    loop {
        pace.tick().await;
        let answer = tokio::time::timeout(LOOK_EVERY, accounts.role(permission::ADMIN_ROLE)).await;
        let fine = matches!(answer, Ok(Ok(_)));
        if fine != reported {
            if fine {
                tracing::info!("store is back")
            } else {
                tracing::warn!("store does not answer")
            }
            reported = fine;
        }
        ready.set(STORE, fine);
        let stats = publisher.stats();
        metrics.broker_connected.set(i64::from(publisher.is_connected()));
        metrics.spool_bytes.set(i64::try_from(stats.spool_bytes).unwrap_or(i64::MAX));
    }
}

/// Removes sessions that have ended.
async fn sweep(state: web::Data<AppState>) {
    let mut pace = tokio::time::interval(SWEEP_EVERY);
    loop {
        pace.tick().await;
        match state.auth.expire_sessions().await {
            Ok(0) => {}
            Ok(sessions) => tracing::debug!(sessions, "sessions ended"),
            Err(error) => tracing::warn!(error = %chain(&error), "ended sessions were not removed"),
        }
    }
}
